"""Runs in processes whose memory is limited by the system: each ends with a sentence and exit code 4, or is through."""

import json
import random
from pathlib import Path

import pytest
from exact import assert_equal
from faulty import Fault, Faulty

from tunesmith.jobs import checkpoints

MIB = 1 << 20
LIMITS = [mib * MIB for mib in (4, 16, 64, 128, 256, 420, 800)]
"""Bytes beyond those that a process with all its libraries has: from too little to read a row to enough for a step."""


@pytest.fixture(scope="module")
def long_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder with `long`: 64 rows of up to a few hundred tokens."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("long")
    rows = [{"instruction": f"say {n}", "output": "la " * draw.randint(2, 300)} for n in range(64)]
    (folder / "long.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "dataset_info.json").write_text('{"long": {"file_name": "long.json"}}', encoding="utf-8")
    return folder


def words(model: Path, rows: Path, **changes: object) -> list[str]:
    options = {
        "model_name_or_path": model, "dataset": "long", "dataset_dir": rows, "template": "qwen", "output_dir": "run",
        "max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 64, "compute_type": "fp32", "disable_tqdm": True,
        "finetuning_type": "full", "val_size": 8,
    }  # fmt: skip
    return ["train", *(f"{name}={value}" for name, value in (options | changes).items())]


@pytest.mark.parametrize("compute_type", ["fp32", pytest.param("bf16", marks=pytest.mark.reliability)])
@pytest.mark.parametrize("limits", [LIMITS[::2], pytest.param(LIMITS[1::2], marks=pytest.mark.reliability)])
def test_a_run_is_through_or_says_what_takes_less(
    faulty: Faulty, tiny_model: Path, long_rows: Path, tmp_path: Path, limits: list[int], compute_type: str
) -> None:
    """However little there is.  With room again, the same command ends as a run that always had it."""
    options = words(tiny_model, long_rows, compute_type=compute_type)
    straight = tmp_path / "straight"
    straight.mkdir()
    assert faulty.run(straight, *options).code == 0
    codes, told_of_changes = [], 0
    for limit in limits:
        place = tmp_path / str(limit)
        place.mkdir()
        ended = faulty.run(place, *options, fault=Fault(memory=limit))
        codes.append(ended.code)
        assert ended.code in (0, 4), (limit, ended.said)
        assert "Traceback" not in ended.said and "internal error" not in ended.said, (limit, ended.said)
        if ended.code == 4:
            told = [line for line in ended.said.splitlines() if line.startswith("out of memory")]
            assert len(told) == 1, ended.said
            told_of_changes += "would take" in told[0]
            assert not any(checkpoints.damage(saved) for saved in checkpoints.every(place / "run"))
            if "step" in told[0]:
                assert faulty.run(place, *options).code == 0
        if (place / "run" / "model.safetensors").is_file():
            assert_equal(straight / "run", place / "run")
    assert codes[0] == 4 and (codes[-1] == 0 or limits[-1] < LIMITS[-1])
    # In 16 bits what oneDNN builds for a product may have no room either, so that no change can be measured.
    assert told_of_changes or compute_type == "bf16"


@pytest.mark.parametrize("limit", [4 * MIB, 16 * MIB])
@pytest.mark.parametrize("command", ["chat", "export"])
def test_other_commands_end_with_a_sentence(
    faulty: Faulty, tiny_model: Path, tmp_path: Path, command: str, limit: int
) -> None:
    more = ["--prompt", "Hello", "--template", "qwen"] if command == "chat" else ["--export_dir", "made/model"]
    ended = faulty.run(tmp_path, command, str(tiny_model), *more, fault=Fault(memory=limit))
    assert ended.code in (0, 4), ended.said
    assert "Traceback" not in ended.said and "internal error" not in ended.said, ended.said
    if ended.code == 4:
        assert "out of memory" in ended.said
        assert not list(tmp_path.glob("made/*"))
