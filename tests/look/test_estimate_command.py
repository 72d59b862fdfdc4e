"""`tunesmith estimate`: steps are the trainer's, what does not fit is told with a diff, methods stand against devices."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from surroundings import clean_environment

from tunesmith import cli
from tunesmith.estimate import devices, history
from tunesmith.train.foretelling import machine


@pytest.fixture
def words(tiny_model: Path, tmp_path: Path) -> list[str]:
    rows = [
        {"instruction": f"say {number} " + "word " * (number % 7), "output": "yes " * (number % 5 + 1)}
        for number in range(50)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    return [
        f"model_name_or_path={tiny_model}", f"dataset={tmp_path / 'rows.json'}", "template=qwen", "disable_tqdm=true",
        "per_device_train_batch_size=4", "gradient_accumulation_steps=2", "num_train_epochs=2", "compute_type=fp32",
    ]  # fmt: skip


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command prints; of an option that is given twice the last counts."""
    last = {word.partition("=")[0]: word for word in arguments if "=" in word and not word.startswith("--")}
    others = [word for word in arguments if word not in last.values() and word.partition("=")[0] not in last]
    assert cli.main(["estimate", *last.values(), *others]) == code
    shown = capsys.readouterr()
    return shown.out if code == 0 else shown.err


def test_what_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, *words)
    assert "steps         14 of 8 rows (4 a device x 2 accumulated x 1 process), 7 steps an epoch" in text
    for part in ("lora trains 8,192", "fit           yes", "time          about", "money         no price is known"):
        assert part in text


def test_as_json_with_a_price(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(told(capsys, *words, "--json", "price=3.6", "currency=CNY"))
    assert (found["steps"], found["by"], found["fits"]) == (14, "formula", True)
    assert found["memory_bytes"]["total"] < found["memory_bytes"]["needed"] < found["device_bytes"]
    cost, seconds = found["money"][0], found["seconds"]["total"]
    assert cost["currency"] == "CNY"
    assert cost["likely"] == pytest.approx(seconds["likely"] * 3.6 / 3600)
    power = json.loads(told(capsys, *words, "--json", "price_per_kwh=0.5", "watts=2000"))[0]["money"][0]
    assert power["likely"] == pytest.approx(seconds["likely"] / 3600, rel=0.9)


def test_electricity_is_watts_times_hours_times_its_price(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, *words, "--json", "--devices", "4090,a100-80", "price_per_kwh=0.6", "currency=CNY"))
    for each, watts in zip(found, (450, 400), strict=True):
        hours = each["seconds"]["total"]["likely"] / 3600
        (power,) = each["money"]
        assert power["currency"] == "CNY" and power["likely"] == pytest.approx(watts / 1000 * hours * 0.6)
        assert power["price"].startswith(f"electricity, {watts} W at CNY 0.6 a kWh")


def test_a_run_at_home_is_told_that_watts_are_not_known(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "money         no price is known for it: give watts=..." in told(capsys, *words, "price_per_kwh=0.6")
    assert "at electricity, 90 W at USD 0.6 a kWh" in told(capsys, *words, "price_per_kwh=0.6", "watts=90")


def test_prices_of_the_table_are_told_in_the_currency_that_is_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told(capsys, *words, "--devices", "a100-40", "currency=CNY").splitlines()
    first = next(line for line in lines if line.startswith("money"))
    assert first.startswith("money         CNY ") and "on demand, of 2026-08-26 (second-hand: aws-gpu)" in first


def test_starts_that_rows_share_take_less_and_are_counted_all_the_same(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shared, each = (
        json.loads(told(capsys, *words, "finetuning_type=full", "--json", f"disable_speedups={left_out}"))[0]
        for left_out in ("[]", "shared_prefix")
    )
    assert shared["tokens"] == each["tokens"] and shared["memory_bytes"]["total"] < each["memory_bytes"]["total"]
    lines = [
        next(line for line in told(capsys, *words, f"disable_speedups={left_out}").splitlines() if "largest" in line)
        for left_out in ("[]", "shared_prefix")
    ]
    assert lines[0] == lines[1]


def test_devices_and_methods(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, *words, "--compare", "full,lora,qlora,full+zero3", "--devices", "a100-80,4090")
    lines = text.splitlines()[-5:]
    assert "a100-80 (80.00 GiB)" in lines[0] and "4090 (24.00 GiB)" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["full", "lora", "qlora", "full+zero3"]


def test_what_does_not_fit_is_told_with_a_diff(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = devices.Device("small", "cpu", 2_700_000, 1e12, 1e12, 0, taken=0)
    monkeypatch.setattr(machine, "here", lambda cfg: small)
    text = told(
        capsys, *words, "finetuning_type=full", "per_device_train_batch_size=16", "gradient_accumulation_steps=1"
    )
    assert "fit           no: " in text
    assert "- per_device_train_batch_size: 16\n" in text
    assert "the same is learned" in text


def test_an_architecture_without_formulas_is_traced(
    words: list[str], capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "neox"
    folder.mkdir()
    for file in tiny_model.iterdir():
        if (file.name != "config.json" and file.suffix == ".json") or file.suffix == ".jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    shape = {
        "model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "vocab_size": 600, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    text = told(capsys, *words, f"model_name_or_path={folder}")
    assert "traced, as there are no formulas" in text
    assert "time          about" in text
    usual = json.loads(told(capsys, *words, f"model_name_or_path={folder}", "--json"))[0]
    assert usual["by"] == "trace" and usual["seconds"]["training"]["likely"] > 0


@pytest.mark.parametrize("optim", ["adafactor", "muon"])
def test_an_optimizer_without_formulas_is_tried(
    words: list[str], capsys: pytest.CaptureFixture[str], optim: str
) -> None:
    (found,) = json.loads(told(capsys, *words, f"optim={optim}", "--json"))
    plain = json.loads(told(capsys, *words, "optim=adamw_torch", "--json"))[0]["memory_bytes"]["optimizer"]
    assert found["by"] == "trace" and 0 < found["memory_bytes"]["optimizer"] < plain


def test_a_few_steps_calibrate_this_estimate_and_later_ones(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(history.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    usual = json.loads(told(capsys, *words, "--json"))[0]
    (found,) = json.loads(told(capsys, *words, "--json", "--calibrate"))
    assert "calibrated" not in usual
    measured = found["calibrated"]
    assert measured["steps"] == 3 and measured["tokens_per_second"] > 0 and measured["peak_bytes"] > 100 << 20
    (line,) = (tmp_path / "cache" / history.NAME).read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["share"] > 0
    assert found["seconds"]["training"] != usual["seconds"]["training"]
    assert not list((tmp_path / "temporary").iterdir()) and not (tmp_path / "saves").exists()
    text = told(capsys, *words)
    assert "as in 1 finished run here" in text and "calibrated" not in text


def test_without_a_cache_what_is_measured_is_only_told(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(history.VARIABLE, str(tmp_path / "cache"))
    text = told(capsys, *words, "disable_cache=true", "--calibrate", "val_size=10", "save_best_model=true")
    assert re.search(r"calibrated    [\d,]+ tokens a second in 3 steps, memory .* \(estimate .*\)", text)
    assert not (tmp_path / "cache" / history.NAME).exists()


def test_calibrating_needs_weights(
    words: list[str], capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "no_weights").mkdir()
    for file in tiny_model.iterdir():
        if file.suffix in (".json", ".jinja"):
            (tmp_path / "no_weights" / file.name).write_bytes(file.read_bytes())
    model = f"model_name_or_path={tmp_path / 'no_weights'}"
    assert "weights" in told(capsys, *words, model, "--calibrate", code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--devices", "a100-8"], "--devices: unknown device 'a100-8'; did you mean 'a100-80'?"),
        (["--calibrate", "--devices", "a100-80"], "--calibrate: steps can be made on this machine (CPU"),
        (["--compare", "full,lorra"], "--compare: unknown method 'lorra'; did you mean 'lora'?"),
        (["--compare", "full+zero4"], "--compare: unknown way to share 'zero4'; did you mean 'zero"),
        (["--device", "a100-80"], "must be one of"),
        (["dataset=nobody"], "'nobody'"),
        (["price=-1"], "price: must be at least 0"),
    ],
)
def test_mistakes(words: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert said in told(capsys, *words, *arguments, code=2)


def test_fp8_is_estimated_where_there_is_some(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def weights(kind: str, device: str) -> float:
        text = told(capsys, *words, f"compute_type={kind}", "--devices", device, "--json")
        return json.loads(text)[0]["memory_bytes"]["weights"]

    assert weights("fp8", "h100-80") < weights("bf16", "h100-80")
    text = told(capsys, *words, "compute_type=fp8", "--devices", "a100-80", code=2)
    assert "fp8 needs a GPU of compute capability 8.9 or more, which a100-80 is not" in text


@pytest.mark.parametrize("command", ["estimate", "plan"])
def test_the_rate_is_measured_as_training_computes(command: str, words: list[str]) -> None:
    script = "import os, sys, tunesmith.cli as c; c.main(sys.argv[1:]); print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run(
        [sys.executable, "-c", script, command, *words], capture_output=True, encoding="utf-8", env=clean_environment()
    )
    assert done.stdout.splitlines()[-1] in ("1000", "4000"), done.stderr


def test_records_of_a_gpu_s_work_take_memory_of_their_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    plain, recorded = (
        {each["device"].split()[0]: each["memory_bytes"] for each in json.loads(told(capsys, *words, "--json", *more))}
        for more in (["--devices", "4090"], ["--devices", "4090", "cuda_graphs=true"])
    )
    ((name, one),) = plain.items()
    assert recorded[name]["workspace"] == one["workspace"] + one["activations"] + one["loss"] > 0
