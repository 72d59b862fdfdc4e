"""A folder by itself says which base, adapters and chat format belong to it; what the user writes wins."""

import json
from pathlib import Path

import pytest

from tunesmith.config.schema import Config, fields
from tunesmith.generate.source import settle
from tunesmith.log import ModelError, OptionError


def options(**written: object) -> tuple[Config, frozenset[str]]:
    """A config in which these options were written, as `load` gives it."""
    sections: dict[str, dict[str, object]] = {}
    for name, value in written.items():
        sections.setdefault(fields()[name][0], {})[name] = value
    return Config.model_validate(sections), frozenset(written)


def run_folder(folder: Path, *, base: Path | str, adapter: bool = True, **recorded: object) -> Path:
    folder.mkdir(parents=True)
    everything = {"model_name_or_path": str(base), "adapter_name_or_path": [], "template": "auto"} | recorded
    lines = (f"{name}: {json.dumps(value)}  # x.yaml:4" for name, value in everything.items())
    (folder / "config.yaml").write_text("\n".join(["# Every option", "", *lines]), encoding="utf-8")
    if adapter:
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "gone"}), encoding="utf-8")
    return folder


def test_a_model_folder_is_the_model(tiny_model):
    cfg = settle(*options(model_name_or_path=str(tiny_model)))
    assert (cfg.model.model_name_or_path, cfg.model.adapter_name_or_path) == (str(tiny_model), [])
    assert cfg.data.template == "auto"


def test_an_adapter_folder_finds_its_base_and_chat_format(tmp_path, tiny_model):
    run = run_folder(
        tmp_path / "run",
        base=tiny_model,
        template="qwen",
        template_args={"default_system": "Be brief."},
        default_system="Be kind.",
        enable_thinking=False,
        trust_remote_code=True,
        dataset=["x"],
        from_a_later_version=1,
    )
    cfg = settle(*options(model_name_or_path=str(run)))
    assert cfg.model.model_name_or_path == str(tiny_model)
    assert cfg.model.adapter_name_or_path == [str(run)]
    assert (cfg.data.template, cfg.data.default_system) == ("qwen", "Be kind.")
    assert cfg.data.template_args == {"default_system": "Be brief."} and cfg.data.enable_thinking is False
    assert cfg.model.trust_remote_code is False, "a folder must not allow its own code"
    assert cfg.data.dataset == []


def test_what_is_written_wins_over_the_run(tmp_path, tiny_model):
    run = run_folder(tmp_path / "run", base="/moved/away", template="qwen", default_system="Be kind.")
    cfg = settle(*options(model_name_or_path=str(tiny_model), template="chatml"), place=str(run))
    assert (cfg.model.model_name_or_path, cfg.data.template) == (str(tiny_model), "chatml")
    assert cfg.data.default_system == "Be kind."


def test_another_template_leaves_the_arguments_of_the_runs_behind(tmp_path, tiny_model):
    args = {"user": "Q: {{content}}", "assistant": "A: {{content}}"}
    run = run_folder(tmp_path / "run", base=tiny_model, template="custom", template_args=args, enable_thinking=False)
    cfg = settle(*options(model_name_or_path=str(run), template="chatml"))
    assert (cfg.data.template, cfg.data.template_args, cfg.data.enable_thinking) == ("chatml", {}, True)


def test_a_template_from_a_file_is_the_one_kept_with_the_run(tmp_path, tiny_model):
    run = run_folder(tmp_path / "run", base=tiny_model, template="jinja:gone.jinja")
    assert settle(*options(model_name_or_path=str(run))).data.template == "jinja:gone.jinja"
    (run / "chat_template.jinja").write_text("{{ messages }}")
    assert settle(*options(model_name_or_path=str(run))).data.template == f"jinja:{run / 'chat_template.jinja'}"


def test_a_checkpoint_looks_into_the_run_around_it(tmp_path, tiny_model):
    run = run_folder(tmp_path / "run", base=tiny_model, template="qwen")
    checkpoint = run / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "adapter_config.json").write_text("{}")
    cfg = settle(*options(model_name_or_path=str(checkpoint)))
    assert cfg.model.adapter_name_or_path == [str(checkpoint)]
    assert (cfg.model.model_name_or_path, cfg.data.template) == (str(tiny_model), "qwen")


def test_a_full_models_run_keeps_its_chat_format(tmp_path, tiny_model):
    run = run_folder(tmp_path / "run", base=tiny_model, adapter=False, template="llama3")
    cfg = settle(*options(model_name_or_path=str(run)))
    assert (cfg.model.model_name_or_path, cfg.data.template) == (str(run), "llama3")


def test_an_adapter_named_by_option_brings_its_chat_format(tmp_path, tiny_model):
    run = run_folder(tmp_path / "run", base=tiny_model, template="qwen")
    cfg = settle(*options(adapter_name_or_path=["other", str(run)], model_name_or_path=str(tiny_model)))
    assert cfg.model.adapter_name_or_path == ["other", str(run)]
    assert (cfg.model.model_name_or_path, cfg.data.template) == (str(tiny_model), "qwen")


def test_an_adapter_of_another_tool_names_its_base_itself(tmp_path, tiny_model):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    assert settle(*options(model_name_or_path=str(tmp_path))).model.model_name_or_path == str(tiny_model)


def test_two_models_are_a_mistake(tmp_path, tiny_model):
    with pytest.raises(OptionError, match=f"both /a and {tiny_model} are given"):
        settle(*options(model_name_or_path=str(tiny_model)), place="/a")
    run = run_folder(tmp_path / "run", base=tiny_model)
    with pytest.raises(OptionError, match="is an adapter itself"):
        settle(*options(model_name_or_path=str(run), adapter_name_or_path=["x"]))


def test_a_base_that_moved_is_told_with_the_way_out(tmp_path):
    run = run_folder(tmp_path / "run", base="/moved/away")
    with pytest.raises(OptionError, match=r"was trained on /moved/away, .*--model_name_or_path"):
        settle(*options(model_name_or_path=str(run)))


def test_damaged_files_are_told(tmp_path, tiny_model):
    run = run_folder(tmp_path / "run", base=tiny_model, template=5)
    with pytest.raises(ModelError, match="template"):
        settle(*options(model_name_or_path=str(run)))
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(ModelError, match=r"config\.yaml can't be read"):
        settle(*options(model_name_or_path=str(run)))
    (run / "config.yaml").unlink()
    (run / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json can't be read"):
        settle(*options(model_name_or_path=str(run)))
    (run / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not say which model"):
        settle(*options(model_name_or_path=str(run)))
