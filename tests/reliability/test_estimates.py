"""Every architecture with formulas x full, LoRA, QLoRA x recomputed or not x three lengths: within 3 % of its trace.  Runs of
three models on this CPU: as many steps as estimated, and within 10 % of the memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "estimate"))

from agreement import LENGTHS, METHODS, both
from architectures import ARCHITECTURES

pytestmark = pytest.mark.reliability


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_formula_and_trace_agree(name: str, method: str, recomputed: bool, lengths: tuple[int, ...]) -> None:
    both(name, method, lengths, recomputed=recomputed).check()


WIDTHS = {"tiny": (32, 2), "small": (256, 6), "middle": (512, 8)}
"""Name -> width and layers."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models of three sizes."""
    torch.manual_seed(0)
    found = {}
    for name, (width, layers) in WIDTHS.items():
        shape = LlamaConfig(
            vocab_size=tiny.VOCABULARY,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=4,
            eos_token_id=2,
            pad_token_id=0,
            bos_token_id=None,
        )
        found[name] = tmp_path_factory.mktemp("models") / name
        LlamaForCausalLM(shape).save_pretrained(found[name])
        tiny.tokenizer().save_pretrained(found[name])
    return found


@pytest.mark.parametrize("method", ["full", "lora", "freeze"])
@pytest.mark.parametrize("name", WIDTHS)
def test_a_run_takes_what_was_estimated(
    models: dict[str, Path],
    name: str,
    method: str,
    repo: Path,
    tmp_path: Path,
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    words = [
        f"model_name_or_path={models[name]}", "dataset=identity", f"dataset_dir={repo / 'data'}", "template=qwen",
        f"finetuning_type={method}", "per_device_train_batch_size=8", "num_train_epochs=0.2", "compute_type=fp32",
    ]  # fmt: skip
    foretold = run_cli("estimate", *words, "--json")
    assert foretold.returncode == 0, foretold.stderr
    (said,) = json.loads(foretold.stdout)
    done = run_cli("train", *words, f"output_dir={tmp_path / 'run'}", "save_strategy=no", "disable_tqdm=true")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert said["steps"] == facts["estimate"]["steps"] == facts["fact"]["steps"]
    assert said["peak_bytes"] == pytest.approx(facts["fact"]["peak_bytes"], rel=0.1)
    assert facts["estimate"]["peak_bytes"] == pytest.approx(facts["fact"]["peak_bytes"], rel=0.1)
