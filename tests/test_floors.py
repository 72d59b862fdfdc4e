"""The plan of the house holds: who may import whom, how long files and functions are, what is not written here."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS: dict[str, float] = {
    # Floor 0 has an order of its own.
    "": 0.0,
    "log": 0.0,
    "language": 0.1,
    "files": 0.1,
    "shortage": 0.1,
    "catalog": 0.1,
    "config": 0.2,
    "templates": 1,
    "compiled": 0.5,
    "losses": 1,
    "data": 2,
    "models": 2,
    "optim": 2,
    "jobs": 2,
    "estimate": 2,
    "generate": 3,
    "train": 4,
    "export": 4,
    "look": 4.5,
    "evaluation": 4.5,
    "cli": 5,
    "environment": 5,
    "completion": 5.1,
    "__main__": 5.1,
}
"""Room -> floor.  A room imports itself and lower floors; rooms on one floor never import each other."""

PLAIN_ROOMS = {"templates": {"log"}, "losses": {"log", "compiled"}}
"""Rooms that take plain values, and the little they may import."""

HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy", "safetensors", "matplotlib"}
NEVER_HEAVY = (
    "log",
    "language",
    "catalog",
    "config",
    "files",
    "shortage",
    "jobs",
    "cli",
    "environment",
    "completion",
    "__main__",
)
"""Rooms that import none of the heavy libraries at the top of a file."""

FORBIDDEN_NAMES = {"utils", "util", "misc", "common", "helpers", "helper", "manager", "base"}
LONGEST_FILE, LONGEST_FUNCTION = 500, 60

PROBING_ALLOWED = {"tunesmith.models.save": "the name of a dtype is data in a model's config"}
"""File -> why it must ask whether an attribute is there."""

SOURCES = sorted((ROOT / "tunesmith").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCES}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def tree_of(module: str) -> ast.Module:
    return parsed(MODULES[module])


def room(module: str) -> str:
    return [*module.split("."), ""][1] if module.startswith("tunesmith.") else ""


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported anywhere below `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def own_imports(tree: ast.AST) -> set[str]:
    return {name for name in imports(tree) if name.split(".")[0] == "tunesmith"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    here = room(module)
    for imported in own_imports(tree_of(module)):
        there = room(imported)
        assert there == here or FLOORS[there] < FLOORS[here], f"{module} imports {imported}"
        if here in PLAIN_ROOMS and there != here:
            assert there in PLAIN_ROOMS[here], f"{module} imports {imported}"


def test_no_import_circle():
    waiting = {module: own_imports(tree_of(module)) - {module, "tunesmith"} for module in MODULES}
    while free := [module for module, needs in waiting.items() if not needs & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert not waiting, f"these import each other: {sorted(waiting)}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in NEVER_HEAVY])
def test_light_rooms_import_nothing_heavy(module):
    top = ast.Module(body=[node for node in tree_of(module).body if isinstance(node, ast.Import | ast.ImportFrom)])
    assert not {name.split(".")[0] for name in imports(top)} & HEAVY


def test_only_one_file_imports_accelerate_to_run_with():
    users = [module for module in MODULES if "accelerate" in {name.split(".")[0] for name in imports(tree_of(module))}]
    assert set(users) <= {"tunesmith.train.runtime", "tunesmith.train.telling.trackers"}


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE, f"{path}: {text.count(chr(10))} lines"
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{path}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_files_say_what_they_are_for(path):
    tree = parsed(path)
    assert not tree.body or ast.get_docstring(tree), f"{path} must open with a sentence: what it is for"
    assert path.stem not in FORBIDDEN_NAMES, f"{path}: a name that says nothing"


@pytest.mark.parametrize("module", MODULES)
def test_no_probing(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr"):
            assert module in PROBING_ALLOWED, f"{module}:{node.lineno}: {node.func.id}; know what you hold"


def test_every_option_has_a_docstring():
    for module in [name for name in MODULES if room(name) == "config"]:
        for cls in [node for node in tree_of(module).body if isinstance(node, ast.ClassDef)]:
            if not any(isinstance(one, ast.Name) and one.id == "Section" for one in cls.bases) or cls.name == "Config":
                continue
            for field, following in zip(cls.body, [*cls.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    assert said, f"{module}: {ast.unparse(field.target)} has no docstring"
