"""The commands: exit codes, where words go, and what must not be imported for a quick answer."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tiny
from surroundings import clean_environment

from tunesmith import __version__, cli, completion, environment, log

HEAVY = ("torch", "transformers", "numpy", "datasets", "peft", "accelerate", "rich")
SCHEMA = ("pydantic", "ruamel", "tunesmith.config.schema")


def imported_by(*words: str) -> tuple[int, set[str]]:
    """Exit code of a command in a fresh process, and the modules it left imported."""
    code = (
        "import sys; from tunesmith.cli import main; code = main(sys.argv[1:]); "
        "print(); print('MODULES', code, *sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    _, code, *modules = result.stdout.splitlines()[-1].split()
    return int(code), set(modules)


@pytest.mark.parametrize("words", [["version"], ["--version"], ["--help"], ["help"], [], ["help", "schema"]])
def test_a_quick_answer_imports_nothing(words):
    code, modules = imported_by(*words)
    assert code == 0
    assert not modules.intersection((*HEAVY, *SCHEMA, "difflib", "json", "tunesmith.catalog"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--learning_rte", "1"], 2),
        (["train", "nothere.yaml"], 2),
        (["train", "--help"], 0),
        (["chat", "-h"], 0),
        (["chat"], 2),
        (["explain", "lora_rank"], 0),
        (["schema"], 0),
        (["env"], 0),
        (["completion", "bash"], 0),
        (["trian"], 2),
    ],
)
def test_no_answer_about_options_imports_torch(words, expected):
    code, modules = imported_by(*words)
    assert code == expected
    assert not modules.intersection(HEAVY)


def test_version_and_help(capsys):
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"tunesmith {__version__}\n"
    assert cli.main([]) == cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command}" in text for command in cli.COMMANDS)


def test_every_command_exists():
    for command in cli.COMMANDS:
        assert callable(cli._function(command))


def test_an_unknown_command(capsys):
    assert cli.main(["trian", "x.yaml"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "unknown command 'trian'; did you mean 'train'?"
    assert cli.main(["help", "trian"]) == 2


def fails_with(problem: BaseException):
    def command(words: list[str]) -> int:
        raise problem

    return lambda name: command


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (log.OptionError("seed: wrong", "lr: wrong"), 2, "seed: wrong\nlr: wrong\n"),
        (log.DataError("row 3"), 3, "row 3\n"),
        (log.ModelError("no weights"), 2, "no weights\n"),
        (log.RunError("not finite"), 1, "not finite\n"),
        (log.MissingExtra("pip install x"), 5, "pip install x\n"),
        (KeyboardInterrupt(), 130, ""),
        (ValueError("odd\nnews"), 1, "internal error: ValueError: odd news (add --debug to see where)\n"),
        (PermissionError(13, "Permission denied", "a/b"), 1, "a/b: Permission denied (--debug shows where)\n"),
        (OSError(28, "No space left on device"), 1, "can't be written: No space left on device\n"),
        (MemoryError(), 4, "out of memory: MemoryError (--debug shows where)\n"),
        (ZeroDivisionError(), 1, "internal error: ZeroDivisionError:  (add --debug to see where)\n"),
    ],
)
def test_errors_become_sentences_and_exit_codes(monkeypatch, capsys, problem, code, said):
    monkeypatch.delenv("TUNESMITH_DEBUG", raising=False)
    monkeypatch.setattr(cli, "_function", fails_with(problem))
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err == said


def test_exit_codes_are_told_in_help_and_on_their_page(capsys, repo):
    page = (repo / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert cli.main(["help", "exit-codes"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told == {str(code): meaning for code, meaning in cli.EXIT_CODES.items()}
    assert all(f"| {code} | {meaning} |" in page for code, meaning in told.items())
    classes = [each for each in vars(log).values() if isinstance(each, type) and issubclass(each, log.TunesmithError)]
    assert {each.exit_code for each in classes} <= cli.EXIT_CODES.keys()


@pytest.mark.parametrize("problem", [MemoryError("no room"), type("OutOfMemoryError", (RuntimeError,), {})("no room")])
def test_out_of_memory_has_its_own_code(monkeypatch, capsys, problem):
    monkeypatch.setattr(cli, "_function", fails_with(problem))
    assert cli.main(["train"]) == 4
    assert capsys.readouterr().err == "out of memory: no room (--debug shows where)\n"


@pytest.mark.parametrize("problem", [log.DataError("row 3"), ValueError("odd")])
def test_a_traceback_is_shown_when_asked_for(monkeypatch, capsys, problem):
    monkeypatch.setattr(cli, "_function", fails_with(problem))
    cli.main(["train", "--debug"])
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("TUNESMITH_DEBUG", "1")
    cli.main(["train"])
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m tunesmith schema | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout.strip() in ("0", "141")


def test_text_that_the_output_cannot_hold_is_no_error():
    result = subprocess.run(
        [sys.executable, "-m", "tunesmith", "train", "--optim", "Öptim"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )
    assert result.returncode == 2 and b"Traceback" not in result.stderr and rb"\xf6ptim" in result.stderr


def test_an_answer_that_the_output_cannot_hold_is_still_told():
    code = "import tunesmith.cli as c; c._function = lambda name: lambda words: print('Zoë') or 0; c.main(['train'])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert result.stdout.rstrip() == rb"Zo\xeb"


def test_a_file_in_the_place_of_a_command(capsys, tmp_path):
    (tmp_path / "x.yaml").touch()
    assert cli.main([str(tmp_path / "x.yaml")]) == 2
    assert "the command comes first, such as `tunesmith train FILE`" in capsys.readouterr().err


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_commands_options_and_values(shell):
    script = completion.script(shell, list(cli.COMMANDS))
    assert all(command in script for command in cli.COMMANDS)
    assert "lora_rank" in script and "constant_with_warmup" in script and "deepseek3" in script
    assert "fail-if" in script


def test_completion_in_bash_completes(tmp_path):
    (tmp_path / "script").write_text(completion.script("bash", list(cli.COMMANDS)))
    ask = (
        f"source {tmp_path}/script; COMP_WORDS=(tunesmith train TYPED); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        "_tunesmith; echo ${COMPREPLY[@]}"
    )
    for typed, expected in {"--lora_ra": "--lora_rank", "--stage s": "sft", "--overw": None}.items():
        answer = subprocess.run(
            ["bash", "-c", ask.replace("TYPED", typed)], capture_output=True, text=True
        ).stdout.split()
        assert answer == ([expected] if expected else ["--overwrite_cache", "--overwrite_output_dir"])


def test_env_names_what_is_missing_and_how_to_get_it(capsys, repo):
    assert environment.env_command([]) == 0
    text = capsys.readouterr().out
    assert f"tunesmith:         {__version__}\n" in text and "torch:" in text and "cores:" in text
    extras = tomllib.loads((repo / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(environment.EXTRAS) == set(extras) - {"dev"}
    assert all(any(need.startswith(environment.EXTRAS[name]) for need in extras[name]) for name in environment.EXTRAS)


def test_schema_prints_json(capsys):
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["additionalProperties"] is False


def shell(line: str, folder: Path) -> tuple[int, str]:
    """Exit code and standard error of a line in which `tunesmith` is this program."""
    script = f'tunesmith() {{ "{sys.executable}" -m tunesmith "$@"; }}; {line}'
    ran = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=clean_environment(), capture_output=True, encoding="utf-8", check=False
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("tunesmith help >&-", 0, ""),
        ("tunesmith version >&- 2>&- <&-", 0, ""),
        ("tunesmith explain lora_rank <&-", 0, ""),
        ("tunesmith train nothing.yaml >&-", 2, "there is no file"),
        ("tunesmith help > /dev/full", 1, "can't be written: No space left on device"),
        ("tunesmith explain > /dev/full", 1, "can't be written: No space left on device"),
        ("tunesmith env > /dev/full", 1, "can't be written: No space left on device"),
        ("tunesmith explain > /dev/full 2>&1", 1, ""),
        ("PYTHONUTF8=0 LC_ALL=C tunesmith train nothing.yaml", 2, "PYTHONUTF8: 0 has torch"),
        ("PYTHONOPTIMIZE=2 tunesmith train nothing.yaml", 2, "PYTHONOPTIMIZE: 2 removes"),
        ("tunesmith schema | head -c 1 > gone; exit ${PIPESTATUS[0]}", 141, ""),
        ("mkdir gone && cd gone && rmdir ../gone && tunesmith export x --export_dir y", 1, "is not there any more"),
    ],
)
def test_streams_that_are_closed_or_full_and_a_folder_that_is_gone(
    line: str, code: int, said: str, tmp_path: Path
) -> None:
    ended, told = shell(line, tmp_path)
    assert "Traceback" not in told and "internal error" not in told and "Exception ignored" not in told
    assert ended == code and said in told, told


def test_a_working_directory_that_is_gone_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(cli, "_function", fails_with(FileNotFoundError(2, "No such file or directory")))
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == "the working directory is not there any more; change to another one\n"


def test_a_setting_that_torch_does_not_take_is_told(tmp_path: Path) -> None:
    tiny.qwen2(tmp_path / "model")
    assert shell("TORCH_LOGS=nonsense tunesmith chat model < /dev/null", tmp_path) == (
        2,
        "TORCH_LOGS: torch takes no 'nonsense'; unset it\n",
    )
