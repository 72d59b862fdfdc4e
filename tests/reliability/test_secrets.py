"""Tokens and passwords never reach the disk or the screen, whichever way they come."""

from pathlib import Path

import pytest

from tunesmith import log

SECRET = "hf_SECRETVALUE123"
VARIABLES = ("HF_TOKEN", "WANDB_API_KEY", "SWANLAB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(autouse=True)
def secret_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(log, "_hidden", set())


def holding(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"hf_hub_token": SECRET, "report_to": "tensorboard", "plot_loss": "true", "disable_cache": "false"}, 0),
        ({"hub_token": SECRET, "debug": "true"}, 0),
        ({"hf_hub_token": SECRET, "learning_rate": "x"}, 2),
        ({"hf_hub_token": SECRET, "hub_token": SECRET + "x"}, 2),
        ({"hf_hub_token": SECRET + "\x1b"}, 2),
        ({"hf_hub_token": SECRET, "model_name_or_path": "no/model", "debug": "true"}, 2),
        ({"swanlab_api_key": SECRET}, 0),
        ({"dataset": f"https://me:{SECRET}@localhost:1/x.json"}, 5),
        ({"model_name_or_path": f"https://me:{SECRET}@localhost:1/x", "debug": "true"}, 2),
    ],
)
def test_a_secret_is_neither_written_nor_said(given, code, train, tmp_path):
    ended = train(save_strategy="steps", save_steps=1, **given)
    assert SECRET not in ended.said
    assert ended.code in ((code, 3) if code == 5 else (code,)), ended
    assert not holding(tmp_path)


def test_a_pasted_command_shows_no_token(train, command, tmp_path, tiny_model, rows):
    Path("x.sh").write_text(f"HF_TOKEN={SECRET} llamafactory-cli train --hf_hub_token {SECRET} --cutoff_len 0\n")
    ended = command("train", "x.sh", f"--model_name_or_path={tiny_model}", f"--dataset_dir={rows}", "--dataset=talk")
    assert ended.code == 2 and SECRET not in ended.said


@pytest.mark.parametrize(
    "text", [f"hf_hub_token: [{SECRET}]\n", f"hf_hub_token: {SECRET}: x\n", f"hub_token: {{a: {SECRET}}}\n"]
)
def test_a_token_of_the_wrong_kind_is_not_shown(text, command):
    Path("x.yaml").write_text(text)
    ended = command("train", "x.yaml")
    assert ended.code == 2 and "x.yaml:1" in ended.err and SECRET not in ended.said


def test_what_is_redacted():
    log.hide(SECRET)
    log.hide("short")
    assert log.redacted(f"a {SECRET} b short") == "a *** b short"
    assert log.redacted("s3://me:pass@host/x and https://host:80/x@y") == "s3://***@host/x and https://host:80/x@y"
