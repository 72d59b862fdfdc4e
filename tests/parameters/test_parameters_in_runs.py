"""Runs that show what single parameters of the guide do, where weights alone don't."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from guide_runs import Plan, Run, history, logged, weights
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.cli import main
from tunesmith.config.load import load
from tunesmith.data.keeping import prepare
from tunesmith.models import quantizers
from tunesmith.train.session import Session
from tunesmith.train.telling import progress

Capture = pytest.CaptureFixture[str]
NORM = "model.norm.weight"


@pytest.fixture(autouse=True)
def kernels_of_any_kind() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def with_code(model: Path, folder: Path) -> Path:
    """A model that brings its own code, `theirs.py`."""
    shutil.copytree(model, folder)
    (folder / "theirs.py").write_text(
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "class TheirConfig(Qwen2Config):\n    model_type = 'theirs'\n"
        "class TheirModel(Qwen2ForCausalLM):\n    config_class = TheirConfig\n"
    )
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def first_loss(folder: Path) -> float:
    return logged(folder, "loss")[0]


# -- model, data and how they are prepared


def test_not_to_train_is_a_plan_or_looks_at_the_model_as_it_is(
    train: Run, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = train("looked at", do_train=False, do_eval=True, val_size=4)
    assert "eval_loss" in json.loads((folder / "eval_results.json").read_text())
    assert not [*folder.glob("*.safetensors")]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    capsys.readouterr()
    assert not train("planned", do_train=False).exists()
    said = capsys.readouterr().out
    assert "trained       544 tokens" in said and "Everything needed is there; nothing was loaded" in said
    assert not train("wrong", code=2, do_train=False, lora_target="q_porj").exists()


def test_a_model_s_folder_may_be_written_in_any_way_and_is_recorded(
    train: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "org"
    home.mkdir()
    (home / "name").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    for number, place in enumerate((tiny_model, "org/name", "./org/name", "~/name")):
        folder = train(f"run-{number}", model_name_or_path=place, max_steps=1)
        found = json.loads((folder / "run.json").read_text())["model"]
        assert (found["name"], found["hub"]) == (str(tiny_model.resolve()), "folder")


def test_as_many_processes_prepare_rows_as_are_asked_for(train: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(BaseException):
        pass

    def made(count: int, *_: Any) -> None:
        raise Asked(count)

    monkeypatch.setattr(prepare, "ProcessPoolExecutor", made)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    small = {"preprocessing_batch_size": 1, "disable_cache": True}
    for wanted, count in ((2, 2), (3, 3), ("auto", 3)):
        with pytest.raises(Asked) as asked:
            train("several", preprocessing_num_workers=wanted, **small)
        assert asked.value.args == (count,)
    train("alone", preprocessing_num_workers=1, **small)


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_each_method_trains_what_it_says(train: Run, tiny_model: Path, method: str) -> None:
    folder = train(finetuning_type=method, freeze_trainable_layers=1 if method == "freeze" else None)
    if method == "lora":
        assert all("lora_" in name for name in weights(folder))
        assert sorted(path.name for path in folder.glob("*.safetensors")) == ["adapter_model.safetensors"]
        return
    before, after = (load_file(each / "model.safetensors") for each in (tiny_model, folder))
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    if method == "full":
        assert moved >= {NORM, "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"}
    else:
        assert moved and all(name.startswith("model.layers.1.") for name in moved)


def test_attention_is_named(train: Run, capsys: Capture) -> None:
    losses = []
    for written, named in (
        ("auto", "attention within each row here, without padding"),
        ("sdpa", "sdpa here, rows padded to one length"),
        ("disabled", "eager here, rows padded to one length"),
    ):
        losses.append(first_loss(train(written, flash_attn=written, max_steps=1)))
        assert f"note: flash_attn: {written} means {named}" in capsys.readouterr().err
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_data_is_found_beside_the_yaml_file_and_needs_no_dataset_info(
    plan: Plan, data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    place = tmp_path / "beside"
    shutil.copytree(data, place / "rows")
    (place / "my.yaml").write_text(
        f"model_name_or_path: {tiny_model}\ndataset_dir: rows\ndataset:\n  - talk\n  - more#2\ntemplate: qwen\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "beside/my.yaml"]) == 0
    assert "rows read     26 (talk 24, more 2)" in capsys.readouterr().out
    (place / "rows" / "dataset_info.json").unlink()
    assert main(["plan", "beside/my.yaml"]) == 2
    capsys.readouterr()
    assert "rows read     5 (" in plan(dataset=place / "rows" / "more.json", dataset_dir="nowhere")


def test_prepared_rows_are_used_written_anew_or_left_alone(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))

    def told(**options: Any) -> str:
        capsys.readouterr()
        train("run", max_steps=1, overwrite_output_dir=True, **options)
        return capsys.readouterr().err

    assert "cache" not in told(disable_cache=True) and not (tmp_path / "cache").exists()
    told()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.bin")} or {
        path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()
    }
    assert kept
    assert "cache hit" in told()
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert "cache hit" not in told(overwrite_cache=True)
    assert any(path.stat().st_mtime_ns != then for path, then in kept.items())


def test_code_that_runs_is_named_and_hashed(train: Run, tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    model = with_code(tiny_model, tmp_path / "remote")
    folder = train(model_name_or_path=model, trust_remote_code=True, max_steps=1)
    assert f"these files of {model} run as you: theirs.py" in capsys.readouterr().err
    code = json.loads((folder / "run.json").read_text())["model"]["code"]
    assert code == {"theirs.py": sha256((model / "theirs.py").read_bytes()).hexdigest()}


# -- steps


def test_accumulated_micro_batches_are_one_large_batch(train: Run) -> None:
    found = [
        weights(train(f"{rows} rows", per_device_train_batch_size=rows, gradient_accumulation_steps=8 // rows, **SMALL))
        for rows in (8, 4, 2, 1)
    ]
    for other in found[1:]:
        for name, tensor in found[0].items():
            torch.testing.assert_close(other[name], tensor, atol=2e-6, rtol=1e-4)


SMALL: dict[str, Any] = {"learning_rate": 1e-3, "optim": "sgd", "max_steps": 4}


def test_rates_rise_and_fall_as_written(train: Run) -> None:
    four = {"max_steps": 4, "learning_rate": 0.01}
    for name, options, wanted in (
        ("constant", {"lr_scheduler_type": "Constant"}, [0.01] * 4),
        ("linear", {"lr_scheduler_type": "linear"}, [0.01, 0.0075, 0.005, 0.0025]),
        ("steps", {"warmup_steps": 2}, [0, 0.005, 0.01, 0.005]),
        ("share", {"warmup_ratio": 0.5}, [0, 0.005, 0.01, 0.005]),
        ("cosine", {"lr_scheduler_type": "cosine"}, [0.01, 0.00853553, 0.005, 0.001464466]),
    ):
        assert logged(train(name, **four, **options), "learning_rate") == pytest.approx(wanted), name


def test_gradients_are_scaled_down_to_max_grad_norm_and_their_length_before_is_logged(train: Run) -> None:
    lengths, moved = [], []
    for limit in (0, 100, 0.001):
        folder = train(f"up to {limit}", max_grad_norm=limit, optim="sgd", max_steps=1, learning_rate=1)
        lengths += logged(folder, "grad_norm")
        seconds = [tensor for name, tensor in weights(folder).items() if "lora_B" in name]  # which begin at zero
        moved.append(float(torch.stack([tensor.norm() for tensor in seconds]).norm()))
    assert lengths[0] == lengths[1] == lengths[2] > 0.001
    assert moved == pytest.approx([lengths[0], lengths[0], 0.001], rel=1e-4)


def test_packed_samples_see_each_other_only_when_contaminated(train: Run) -> None:
    step = {"max_steps": 1, "cutoff_len": 200, "per_device_train_batch_size": 24}
    apart, packed, mixed = (
        first_loss(train(str(packing), packing=packing, **step)) for packing in (False, True, "contaminated")
    )
    assert packed == pytest.approx(apart, rel=1e-5)
    assert mixed != pytest.approx(apart, rel=1e-5)


def test_weights_shrink_but_not_norms_and_biases(train: Run, tiny_model: Path) -> None:
    step = {"finetuning_type": "full", "max_steps": 1, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    before = load_file(tiny_model / "model.safetensors")
    plain, shrunk = (load_file(train(f"{rate}", weight_decay=rate, **step) / "model.safetensors") for rate in (0, 0.5))
    for name, tensor in before.items():
        decays = tensor.ndim == 2
        torch.testing.assert_close(plain[name] - shrunk[name], 1e-3 * 0.5 * tensor * decays, atol=2e-8, rtol=1e-3)


def test_adapters_and_what_is_trained_beside_them_have_rates_of_their_own(train: Run) -> None:
    def moved(**rates: float) -> tuple[float, float]:
        found = weights(train("-".join(rates), additional_target="lm_head", max_steps=1, **rates))
        head = next(tensor for name, tensor in found.items() if "lm_head" in name)
        adapters = max(float(tensor.abs().max()) for name, tensor in found.items() if "lora_B" in name)
        return adapters, float((head - start).abs().max())

    start = next(tensor for name, tensor in weights(
        train("start", additional_target="lm_head", max_steps=1, learning_rate=1e-12)).items() if "lm_head" in name)  # fmt: skip
    adapters, beside = moved(learning_rate=1e-9, lora_learning_rate=1e-2)
    assert adapters == pytest.approx(1e-2, rel=1e-2) and beside < 1e-7
    adapters, beside = moved(lora_learning_rate=1e-9)
    assert adapters < 1e-8 and beside == pytest.approx(1e-2, rel=1e-2)


def test_each_group_gets_adapters_where_it_says(train: Run) -> None:
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    feedforward = {"gate_proj", "up_proj", "down_proj"}
    for number, (options, wanted) in enumerate(
        [
            ({"lora_target": "all"}, attention | feedforward),
            ({"lora_modules": "attention"}, attention),
            ({"lora_target": "feedforward"}, feedforward),
            ({"lora_target": "q_proj,up_proj"}, {"q_proj", "up_proj"}),
            ({"lora_target": r".*layers\.1\..*v_proj"}, {"v_proj"}),
        ]
    ):
        names = weights(train(f"run-{number}", max_steps=1, **options))
        assert {re.findall(r"\.(\w+)\.lora_", name)[0] for name in names} == wanted


def test_every_start_is_the_base_model(train: Run, plain_run: Path) -> None:
    starts = {}
    for kind in ("kaiming", "normal", "gaussian", "orthogonal", "zero", "pissa", "olora"):
        folder = train(kind, lora_init=kind, max_steps=1)
        assert first_loss(folder) == pytest.approx(first_loss(plain_run), rel=1e-5), kind
        starts[kind] = torch.cat([each.flatten() for name, each in weights(folder).items() if "lora_A" in name])
    assert torch.equal(starts["normal"], starts["gaussian"]) and torch.equal(starts["zero"], starts["kaiming"])
    different = ("kaiming", "normal", "orthogonal", "pissa", "olora")
    for place, one in enumerate(different):
        assert not any(starts[one].shape == starts[other].shape and torch.equal(starts[one], starts[other])
                       for other in different[:place])  # fmt: skip


def test_checkpointing_takes_less_memory(train: Run, capsys: Capture) -> None:
    def activations(name: str, **options: Any) -> float:
        capsys.readouterr()
        train(name, per_device_train_batch_size=12, max_steps=1, **options)
        told = re.search(r"activations ([\d.]+) MiB", capsys.readouterr().out)
        assert told
        return float(told[1])

    plain = activations("plain", gradient_checkpointing=False)
    recomputed = activations("recomputed", gradient_checkpointing=True)
    assert recomputed < 0.6 * plain
    assert activations("disabled", disable_gradient_checkpointing=True) == plain
    assert activations("not disabled", disable_gradient_checkpointing=False) == recomputed


def test_deterministic_kernels_are_asked_for(train: Run) -> None:
    train("any", max_steps=1)
    assert not torch.are_deterministic_algorithms_enabled()
    train("the same", max_steps=1, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()


def test_a_rank_must_be_the_launcher_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    words = ["model_name_or_path=m", "dataset=d"]
    assert load([*words, "local_rank=1"], "train").config.train.local_rank == 1
    with pytest.raises(ValueError, match="local_rank: is 0, but the launcher's LOCAL_RANK is 1"):
        load([*words, "local_rank=0"], "train")


# -- the model that is held and grown


def test_few_bits_change_what_is_computed(
    train: Run, plan: Plan, plain_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for method, package in quantizers.PACKAGES.items():
        with monkeypatch.context() as patch:
            patch.setattr(quantizers.importlib.util, "find_spec", lambda _: None)
            said = plan(code=5, quantization_bit=4, quantization_method=method)
        assert f"quantization_bit needs a package: pip install 'tunesmith[{package}]'" in said
    pytest.importorskip("bitsandbytes")
    losses = {first_loss(plain_run)}
    for name, options in {
        "qlora": {"finetuning_type": "qlora"},
        "four": {"quantization_bit": 4, "quantization_type": "fp4"},
        "eight": {"quantization_bit": 8},
    }.items():
        losses.add(first_loss(train(name, max_steps=1, **options)))
        assert f"linear layers are held in {options.get('quantization_bit', 4)} bits" in capsys.readouterr().err
    assert len(losses) == 4


def test_new_tokens_get_rows_and_a_vocabulary_that_fits_stays(
    train: Run, tiny_model: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = train("added", add_tokens="flurbish", max_steps=1)
    assert "add_tokens: 1 new tokens, from id 600 on" in capsys.readouterr().err
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("flurbish") == 600
    assert any("embed_tokens" in name for name in weights(folder))
    train("fits", resize_vocab=True, max_steps=1)
    assert (
        "resize_vocab: has no effect: the tokenizer's 600 tokens fit into the model's 600 rows"
        in capsys.readouterr().err
    )
    larger = shutil.copytree(tiny_model, tmp_path / "larger")
    tokenizer = AutoTokenizer.from_pretrained(larger)
    tokenizer.add_tokens(["flurbish"])
    tokenizer.save_pretrained(larger)
    train("too small", code=2, model_name_or_path=larger)
    assert "resize_vocab" in capsys.readouterr().err
    train("grown", model_name_or_path=larger, resize_vocab=True, max_steps=1)
    assert "resize_vocab: the model's 600 rows became 640" in capsys.readouterr().err


# -- what is written and shown


def test_values_that_say_what_is_kept_and_shown_do(train: Run, tmp_path: Path, capsys: Capture) -> None:
    options: dict[str, Any] = {
        "max_steps": 4, "save_steps": 2, "val_size": 4, "eval_steps": 2, "metrics": "loss,ppl,accuracy", "plot_loss": True,
    }  # fmt: skip
    folder = train("run", log_dir=tmp_path / "logs", report_to="tensorboard", **options)
    assert (folder / "checkpoint-2").is_dir() and (folder / "training_loss.png").is_file()
    assert [row["step"] for row in history(folder) if "eval_loss" in row] == [2, 4]
    results = json.loads((folder / "eval_results.json").read_text())
    assert {"eval_loss", "eval_perplexity", "eval_accuracy"} <= results.keys()
    assert any(path.name.startswith("events.out") for path in (tmp_path / "logs" / "run").rglob("*"))
    assert history(folder)[0]["grad_norm"] > 0
    config = (folder / "config.yaml").read_text()
    assert "save_steps: 2.0  # command line" in config and "lora_rank: 8  # default" in config
    assert f'logging_dir: "{tmp_path / "logs"}"  # command line (log_dir)' in config
    capsys.readouterr()
    train("run", **options | {"max_steps": 6, "resume_from_checkpoint": "auto"})
    assert "going on from" in capsys.readouterr().err
    bare = train("bare", logging_steps=2)
    assert not (bare / "training_loss.png").exists() and not [*bare.rglob("events.out*")]
    assert [row["step"] for row in history(bare) if "loss" in row] == [2]
    train("by logging_dir", logging_dir=tmp_path / "elsewhere", report_to="tensorboard", max_steps=1)
    assert any(path.name.startswith("events.out") for path in (tmp_path / "elsewhere").rglob("*"))


def test_an_interrupted_run_goes_on_and_foreign_files_stay(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder, advance = tmp_path / "run", Session.advance

    def advance_and_stop(self: Session, step: Any) -> None:
        advance(self, step)
        if self.position.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "advance", advance_and_stop)
        train("run", code=130, max_steps=4)
    (folder / "notes.txt").write_text("mine")
    capsys.readouterr()
    train("run", max_steps=4)
    assert "going on from" in capsys.readouterr().err and len(logged(folder, "loss")) == 4
    train("run", max_steps=4, code=2)
    said = capsys.readouterr().err
    for way in ("overwrite_output_dir", "another output_dir", "num_train_epochs"):
        assert way in said
    train("run", max_steps=1, overwrite_output_dir=True)
    assert len(logged(folder, "loss")) == 1 and (folder / "notes.txt").read_text() == "mine"


def test_the_curve_is_drawn_after_an_abort_too(train: Run) -> None:
    failed = train("failed", plot_loss=True, loss_limit=0.1, code=1)
    assert (failed / "training_loss.png").is_file() and not (failed / "adapter_model.safetensors").exists()


def test_tokens_are_counted_only_when_asked_for(train: Run, plain_run: Path) -> None:
    counted = history(train(include_num_input_tokens_seen=True))[-2]
    assert counted["num_padded_tokens_seen"] >= counted["num_input_tokens_seen"] > counted["num_loss_tokens_seen"] > 0
    assert "num_loss_tokens_seen" not in history(plain_run)[0]


def test_both_formats_are_written_and_load_elsewhere(train: Run, tiny_model: Path) -> None:
    ids = torch.arange(3, 40)[None]
    for method, opened in (
        ("lora", lambda place: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), place)),
        ("full", AutoModelForCausalLM.from_pretrained),
    ):
        said = []
        for form, ending in (("huggingface", ".safetensors"), ("pytorch", ".bin")):
            folder = train(f"{method} {form}", finetuning_type=method, save_format=form)
            assert {path.suffix for path in folder.iterdir() if "model" in path.name and path.suffix != ".json"} == {
                ending
            }
            said.append(opened(folder)(input_ids=ids).logits)
        assert torch.equal(*said)


def test_errors_show_where_they_come_from_when_debugging(plan: Plan) -> None:
    assert "Traceback" not in plan(code=2, lora_target="q_porj")
    assert "Traceback" in plan(code=2, lora_target="q_porj", debug=True)


def test_a_display_is_drawn_unless_it_is_switched_off(train: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(progress, "_on_terminal", lambda: True)
    monkeypatch.setattr(progress._screen, "add", lambda line: drawn.append(line.kind))
    monkeypatch.setattr(progress._screen, "remove", lambda line: None)
    train("off", disable_tqdm=True, max_steps=1)
    train("off too", disable_tqdm=None, disable_progress_bar=True, max_steps=1)
    assert not drawn
    train("on", disable_tqdm=None, max_steps=1)
    assert "training" in drawn
