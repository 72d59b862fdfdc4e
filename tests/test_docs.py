"""The commands of README.md and docs/*.md run as they are printed, and the sessions print what the page says.

On a page, a `bash` block is run; of a `console` block the lines after `$ ` are run and the rest is what they print; a
`yaml` block whose first line is `# name.yaml` is a file of that name.  Blocks of one page run in order, in one folder
that holds what every page may assume: `models/tiny`, and this repository's `data/` and `examples/`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from surroundings import REPOSITORY
from warm import Warm

PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")]
PAGES += sorted((REPOSITORY / "docs").glob("*.md"))

NOT_RUN = {
    "git clone": "the repository is here already",
    "cd tunesmith": "the page's folder is the place already",
    "make demo": "it takes minutes; its steps are the commands of these pages",
    "make install": "it installs packages",
    "make test": "it would run this test",
    "make check": "it is part of `make test`",
    ".venv/bin/python benchmarks/": "it takes minutes",
    ".venv/bin/python -m pytest": "it would run tests inside a test",
    "source <(": "it changes the reader's shell",
}
"""How a command begins -> why it is not run."""

LANGUAGES = {"bash", "console", "text", "yaml", "json", "python", ""}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what is in it, and the line it begins in."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)


def script_of(block: Block) -> str:
    """What of a `bash` block is run."""
    return "".join(line for line in block.text.splitlines(keepends=True) if not line.startswith(tuple(NOT_RUN)))


def session_of(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a `console` block, each with what it is to print."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command = re.match(r"(?:[^\n]*\\\n)*[^\n]*\n?", part)
        assert command
        yield command[0], part[command.end() :]


def pattern_of(expected: str) -> str:
    """A line of dots stands for any lines, dots within a line for any text; numbers with a point may differ."""
    lines = []
    for line in expected.splitlines(keepends=True):
        whole = line.strip() == "..."
        lines.append(r"(?:.*\n)*?" if whole else re.escape(masked(line)).replace(r"\.\.\.", ".*"))
    return "".join(lines)


def masked(text: str) -> str:
    return re.sub(r"\d+\.\d+(e[-+]?\d+)?", "#", text)


@pytest.fixture
def place(warm: Warm, tiny_model: Path, tmp_path: Path) -> Path:
    """The folder that a page's commands run in."""
    links = {"models/tiny": tiny_model, ".venv/bin": warm.bin}
    links |= {name: REPOSITORY / name for name in ("data", "examples")}
    for name, target in links.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_does_what_it_says(page: Path, warm: Warm, place: Path) -> None:
    surroundings = {"COLUMNS": "100", "XDG_CACHE_HOME": str(place / "cache")}
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        named = re.match(r"# (\S+\.yaml)\n", block.text) if block.language == "yaml" else None
        if named:
            (place / named[1]).write_text(block.text, encoding="utf-8")
        if block.language == "bash":
            done = warm.run(script_of(block), place, **surroundings)
            assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stdout}"
        if block.language == "console":
            for command, expected in session_of(block):
                said = warm.run(command, place, **surroundings).stdout
                assert re.fullmatch(pattern_of(expected), masked(said)), f"{where}: {command}printed\n{said}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: {block.language}"
        looks_like_command = re.match(r"\$?\s*(tunesmith|llamafactory-cli|make|torchrun)\s", block.text)
        runs = block.language in ("bash", "console")
        assert runs or not looks_like_command, f"{page.name}:{block.line}: a command that is never run"


def test_what_is_not_run_is_on_some_page() -> None:
    commands = "".join(block.text for page in PAGES for block in blocks(page) if block.language == "bash")
    for beginning, reason in NOT_RUN.items():
        assert re.search(rf"^{re.escape(beginning)}", commands, re.MULTILINE), f"{beginning!r} ({reason}): not needed"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            path, _, heading = target.partition("#")
            found = (page.parent / path).resolve()
            assert found.exists(), f"{page.name}: {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in slugs, f"{page.name}: {target}"


def test_every_page_is_on_the_map() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.parent.name == "docs" and page.name != "index.md":
            assert f"]({page.name})" in index, f"docs/index.md does not lead to {page.name}"


def test_the_page_of_parameters_is_what_is_declared() -> None:
    from tunesmith.config.explain import markdown

    page = REPOSITORY / "docs" / "parameters.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run: tunesmith explain --markdown > docs/parameters.md"


def test_the_page_of_other_programs_names_is_what_is_known() -> None:
    from tunesmith.config.foreign_page import markdown

    page = REPOSITORY / "docs" / "foreign.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run: tunesmith explain --foreign > docs/foreign.md"


def test_every_other_spelling_is_on_the_page_for_migrants() -> None:
    from tunesmith.config import compat

    page = (REPOSITORY / "docs" / "migrating.md").read_text(encoding="utf-8")
    for ours, others in compat.ALIASES.items():
        assert f"| `{ours}` | {', '.join(f'`{other}`' for other in others)} |\n" in page, ours
    for name, switch in compat.SWITCHES.items():
        on = str(switch.on).lower() if isinstance(switch.on, bool) else switch.on
        on = ", ".join(on) if isinstance(on, list) else on
        assert f"| `{name}: true` | `{switch.option}: {on}` |\n" in page, name


def test_the_picture_of_the_house_shows_every_room_and_no_other_file() -> None:
    from test_floors import FLOORS, SOURCES

    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in FLOORS:
        assert room in ("", "__main__") or re.search(rf"`{room}`|^  {room}[/.]", page, re.MULTILINE), room
    names = {path.name for path in SOURCES}
    for drawn in re.findall(r"[\w/]*?(\w+\.py)\b", page):
        assert drawn in names or drawn == "test_floors.py", drawn
