"""Every example file of LLaMA-Factory is read with the same meaning or refused with the reason, key by key, and every name of
its dataclasses is known.  What they hold is in `reference.toml`."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config import compat, foreign
from tunesmith.config.load import load
from tunesmith.config.schema import Config, fields
from tunesmith.config.shapes import shape_of
from tunesmith.log import OptionError

TABLE = tomllib.loads((Path(__file__).parent / "reference.toml").read_text(encoding="utf-8"))
EXAMPLES: list[dict[str, Any]] = TABLE["example"]
NAMES = {name: group for group, names in TABLE["names"].items() for name in names.split()}
LONGEST_TIMEOUT = 180000000


def keys_of(example: dict[str, Any]) -> dict[str, Any]:
    """All keys of an example, those of its groups first."""
    keys: dict[str, Any] = {}
    for group in example.get("uses", ()):
        keys |= TABLE["groups"][group]
    return keys | example["keys"]


def read(example: dict[str, Any], folder: Path, keys: dict[str, Any]) -> Config:
    """The config that the keys make as a YAML file."""
    file = folder / "example.yaml"
    lines = [f"{name}: {'null' if value == 'null' else json.dumps(value)}\n" for name, value in keys.items()]
    file.write_text("".join(lines), encoding="utf-8")
    return load([str(file)], example.get("command", "train")).config


def meant(name: str, command: str, value: Any) -> tuple[str, Any]:
    """The option and the value that a key of the other program stands for."""
    option = compat.canonical(name, command)
    if value == "null":
        return option, fields()[option][1].default
    if name in compat.SWITCHES:
        switch = compat.SWITCHES[name]
        return option, switch.on if value else switch.off
    if isinstance(value, str) and shape_of(option).item:
        return option, [part.strip() for part in value.split(",")]
    return option, compat.RESPELLED.get(option, {}).get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_an_example_is_read_as_it_is_meant_or_refused_with_the_reason(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keys, refused, command = keys_of(example), example.get("refused", {}), example.get("command", "train")
    if refused:
        with pytest.raises(OptionError) as problem:
            read(example, tmp_path, keys)
        for option, reason in refused.items():
            told = [line for line in problem.value.problems if f"{option}: {reason}" in line or f": {reason}" in line]
            assert told, f"{option}: {reason}: {problem.value.problems}"
        assert len(problem.value.problems) == len(refused)
    known = {name: value for name, value in keys.items() if name not in refused and name not in foreign.UNBUILT}
    left_out = {compat.canonical(name, command) for name in refused}
    known = {name: value for name, value in known.items() if compat.canonical(name, command) not in left_out}
    if "dataset" in refused:
        known["dataset"] = "identity"
    capsys.readouterr()
    config = read(example, tmp_path, known).flat()
    warned = {line.split(": ")[1] for line in capsys.readouterr().err.splitlines() if "has no effect: " in line}
    assert {name for name in warned if name in known} == set(example.get("inert", ()))
    for name, value in known.items():
        if name not in foreign.INERT and not (name == "bf16" and known.get("fp8")):  # what is not fp8 is bf16
            option, wanted = meant(name, command, value)
            assert config[option] == wanted, name


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_of_its_dataclasses_is_known(name):
    command = "eval" if NAMES[name] == "evaluation" else "train"
    is_option = compat.canonical(name, command) in fields()
    assert is_option or name in foreign.INERT or name in foreign.UNBUILT


def test_an_argument_is_an_option_or_has_a_reason_but_not_both():
    for name in NAMES:
        is_option = compat.canonical(name) in fields()
        assert is_option + (name in foreign.INERT) + (name in foreign.UNBUILT) <= 1, name


def test_no_reason_is_empty():
    assert foreign.INSTEAD.keys() == foreign.UNBUILT.keys()
    assert all(len(reason.split()) > 1 for reason in (*foreign.INERT.values(), *foreign.INSTEAD.values()))


def test_a_file_that_names_only_rows_to_evaluate_does_not_train(tmp_path, capsys):
    words = ["--model_name_or_path", "m", "--eval_dataset", "d", "--do_predict"]
    loaded = load(words, "train")
    assert not loaded.config.train.do_train
    assert capsys.readouterr().err == "note: do_train: false, since only eval_dataset names data\n"
    assert load([*words, "--dataset", "d"], "train").config.train.do_train
    with pytest.raises(OptionError, match="dataset: is missing"):
        load([*words, "--do_train"], "train")
