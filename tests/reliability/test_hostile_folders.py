"""No code of a model's, adapter's or dataset's folder runs, no pickle is read, and no template reaches out or runs for ever."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

CODE = "open({canary!r}, 'w').close()\nfrom transformers import Qwen2Config as C, Qwen2ForCausalLM as M, Qwen2Tokenizer as T\n"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that foreign code would make."""
    return tmp_path / "code ran"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path, canary: Path) -> Path:
    """A model of a known architecture that brings code for all of its parts."""
    made = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (made / "theirs.py").write_text(CODE.format(canary=str(canary)))
    for name, parts in {
        "config.json": {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"},
        "tokenizer_config.json": {"AutoTokenizer": ["theirs.T", "theirs.T"]},
    }.items():
        written = json.loads((made / name).read_text())
        (made / name).write_text(json.dumps(written | {"auto_map": parts}))
    return made


@pytest.mark.parametrize("trust", ["true", "false"])
def test_a_known_architecture_runs_no_code_of_its_folder(trust, folder, canary, train):
    ended = train(model_name_or_path=folder, trust_remote_code=trust)
    assert ended.code == 0, ended
    assert not canary.exists()


class Program:
    """What a pickle holds that runs when it is read."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


def test_weights_that_are_a_program_are_refused(folder, canary, train):
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Program(canary)}, folder / "pytorch_model.bin")
    assert train(model_name_or_path=folder).code == 2
    assert not canary.exists()


def test_pickled_tensors_are_read_without_running_anything(folder, canary, train):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert train(model_name_or_path=folder).code == 0
    assert not canary.exists()


def test_pickles_in_a_checkpoint_are_not_read(canary, train):
    assert train(save_strategy="steps", save_steps=1).code == 0
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save(Program(canary), Path("out/checkpoint-1") / name)
    assert train(save_strategy="steps", save_steps=1, max_steps=2).code == 0
    assert not canary.exists()
    written = [path.suffix for path in Path("out").rglob("*") if path.parent.name != "checkpoint-1"]
    assert not {".pt", ".pth", ".bin", ".pkl"} & set(written)


TEMPLATES = {
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "filter": "{{ lipsum|attr('__globals__') }}",
    "format": "{{ '{0.__class__}'.format(messages) }}",
    "include": "{% include '/etc/passwd' %}",
    "endless": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "memory": "{{ 'x' * 10000000000 }}",
    "width": "{{ 'x'.center(10000000000) }}",
    "filter's width": "{{ 'x'|center(10000000000) }}",
    "format's width": "{{ '%010000000000d' % 1 }}",
    "power": "{{ messages|length ** 99999999 }}",
    "syntax": "{% if %}",
}


@pytest.mark.parametrize("how", TEMPLATES)
def test_a_template_neither_reaches_out_nor_runs_for_ever(how, folder, canary, train):
    (folder / "chat_template.jinja").write_text(TEMPLATES[how].replace("CANARY", str(canary)))
    ended = train(model_name_or_path=folder, template="auto", do_train="false", output_dir=None)
    assert ended.code in (2, 3) and "internal error" not in ended.err, ended
    assert not canary.exists()


def test_a_program_in_a_dataset_s_folder_is_not_run(canary, train, rows):
    (rows / "more").mkdir()
    (rows / "more" / "more.py").write_text(CODE.format(canary=str(canary)))
    (rows / "dataset_info.json").write_text('{"talk": {"file_name": "more"}}')
    ended = train(do_train="false", output_dir=None)
    assert ended.code == 3 and "more.py is a program" in ended.err
    shutil.copy(rows / "talk.json", rows / "more" / "talk.json")
    assert train(do_train="false", output_dir=None).code == 0
    assert not canary.exists()


LINKED = ("config.yaml", "run.json", "run.log", "run.lock", "events.jsonl", "README.md", "adapter_model.safetensors")


@pytest.mark.parametrize("replace", ["true", "false"])
@pytest.mark.parametrize("name", [*LINKED, "checkpoint-1", "checkpoint-9"])
def test_no_link_in_the_output_folder_is_followed_out_of_it(name, replace, train, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    Path("out").mkdir()
    os.symlink(outside if name.startswith("checkpoint") else outside / "precious", Path("out") / name)
    ended = train(overwrite_output_dir=replace, save_strategy="steps", save_steps=1, save_total_limit=1)
    assert [path.name for path in outside.iterdir()] == ["precious"] and (outside / "precious").read_text() == "kept"
    assert "internal error" not in ended.err and (ended.code == 0 or "output_dir" in ended.err), ended
