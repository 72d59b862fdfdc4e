"""Values travel from defaults over files to the command line; every problem is told at once, in one line each."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config import compat, rules
from tunesmith.config.load import load
from tunesmith.config.schema import Config, fields
from tunesmith.config.shapes import shape_of
from tunesmith.log import OptionError

GUIDE_COMMAND = (
    "--stage sft --do_train True --model_name_or_path deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B "
    "--preprocessing_num_workers 16 --finetuning_type lora --template deepseek3 --flash_attn auto --dataset_dir data "
    "--dataset identity --cutoff_len 2048 --learning_rate 5e-05 --num_train_epochs 3.0 --max_samples 100000 "
    "--per_device_train_batch_size 2 --gradient_accumulation_steps 8 --lr_scheduler_type cosine --max_grad_norm 1.0 "
    "--logging_steps 5 --save_steps 100 --warmup_steps 0 --packing False --report_to none "
    "--output_dir saves\\DeepSeek-R1-1.5B-Distill\\lora\\train_2025-03-26-09-56-13 --bf16 True --plot_loss True "
    "--trust_remote_code True --ddp_timeout 180000000 --include_num_input_tokens_seen True --optim adamw_torch "
    "--lora_rank 8 --lora_alpha 16 --lora_dropout 0 --lora_target all"
)
GUIDE = GUIDE_COMMAND.split()
PAIRS = list(zip(GUIDE[::2], GUIDE[1::2], strict=True))


def pasted(program: str = "llamafactory-cli train", comment: str = "# {}", end: str = " \\\n") -> str:
    lines = [program]
    for index, (name, value) in enumerate(PAIRS):
        lines += [comment.format(f"about {name} \\")] if index % 5 == 0 and comment else []
        lines.append(f"    {name} {value}")
    return "\n".join(line + ("" if line.startswith("#") else end.rstrip("\n")) for line in lines) + "\n"


def yaml_of_the_guide() -> str:
    numbers = {
        name: value for name, value in PAIRS if shape_of(compat.canonical(name[2:])).scalars & {int, float, bool}
    }
    lines = []
    for name, value in PAIRS:
        plain = name in numbers or name == "--bf16"
        lines.append(f"{name[2:]}: {value.lower() if plain else json.dumps(value)}")
    return "\n".join(lines) + "\n"


WAYS = {
    "separate words": lambda: GUIDE,
    "equals signs": lambda: [f"{name}={value}" for name, value in PAIRS],
    "assignments": lambda: [f"{name[2:]}={value}" for name, value in PAIRS],
    "dashes": lambda: [word.replace("_", "-") if word.startswith("--") else word for word in GUIDE],
    "flags": lambda: [
        word
        for name, value in PAIRS
        for word in {"True": [name], "False": [f"--no-{name[2:]}"]}.get(value, [name, value])
    ],
    "yaml": lambda: written("x.yaml", yaml_of_the_guide()),
    "json": lambda: written("x.json", json.dumps({name[2:]: typed(value) for name, value in PAIRS}, indent=1)),
    "pasted command": lambda: written("x.txt", pasted()),
    "pasted, windows line ends": lambda: written("x.txt", pasted().replace("\n", "\r\n")),
    "pasted, spaces after backslashes": lambda: written("x.sh", pasted(end=" \\  \n")),
    "pasted, variables in front": lambda: written("x.txt", pasted("TUNESMITH_TEST_X=0 llamafactory-cli train")),
    "pasted, own name": lambda: written("x.txt", pasted("tunesmith train")),
    "pasted, no program": lambda: written("x.txt", " ".join(GUIDE)),
    "pasted, powershell": lambda: written("x.txt", pasted(end=" `\n")),
    "pasted, fenced": lambda: written("x.md", "```bash\n" + pasted() + "```\n"),
    "pasted, no line ends": lambda: written("x.txt", pasted(end="\n")),
    "pasted, as yaml by name": lambda: written("x.yaml", pasted()),
}


def typed(value: str) -> object:
    try:
        return json.loads(value.lower())
    except ValueError:
        return value


def written(name: str, text: str) -> list[str]:
    Path(name).write_bytes(text.encode())
    return [name]


@pytest.mark.parametrize("way", WAYS)
def test_the_guides_command_means_the_same_in_every_way_of_writing(way, monkeypatch):
    monkeypatch.setenv("TUNESMITH_TEST_X", "before")
    config = load(WAYS[way](), "train").config
    assert config == load(GUIDE, "train").config
    assert config.train.output_dir == "saves/DeepSeek-R1-1.5B-Distill/lora/train_2025-03-26-09-56-13"
    assert (config.model.compute_type, config.optim.learning_rate, config.tuning.lora_alpha) == ("bf16", 5e-5, 16.0)
    assert config.data.packing is False


def test_a_pasted_command_that_is_wrong_names_its_lines():
    for text, line in {
        "tunesmith train \\\n --seed '1": "x.txt:2: a ' is never closed",
        "tunesmith train \\\n --run_name two words": "x.txt:2: 'words' is no option; text with spaces needs quotes",
        "tunesmith train \\\n --seed 1 \\\n --seed 1": "x.txt:3: --seed: given twice, first in line 2",
        "tunesmith chat --seed 1": "x.txt:1: holds the command 'chat', not 'train'",
    }.items():
        with pytest.raises(OptionError) as caught:
            load([*written("x.txt", text), "--model", "m", "--dataset", "d"], "train")
        assert caught.value.problems == (line,)


def test_a_variable_in_front_of_a_pasted_command_is_set(monkeypatch, capsys):
    import os

    monkeypatch.setenv("TUNESMITH_TEST_X", "before")
    load(written("x.txt", pasted("TUNESMITH_TEST_X=7 llamafactory-cli train")), "train")
    assert os.environ["TUNESMITH_TEST_X"] == "7"
    assert "note: x.txt: TUNESMITH_TEST_X=7 is set for this run" in capsys.readouterr().err


def test_later_files_win_and_the_command_line_wins_over_all():
    first = written("a.yaml", "model: m\ndataset: d\nseed: 1\nlora_rank: 1\ncutoff_len: 1\n")
    second = written("b.yaml", "# two\nseed: 2\nlora_rank: 2\n")
    result = load([*first, "--seed", "3", *second], "train")
    assert (result.config.train.seed, result.config.tuning.lora_rank, result.config.data.cutoff_len) == (3, 2, 1)
    assert result.origins["seed"] == "command line"
    assert result.origins["lora_rank"] == "b.yaml:3"
    assert result.origins["cutoff_len"] == "a.yaml:5"
    assert result.origins["model_name_or_path"] == "a.yaml:1 (model)"
    assert result.origins["learning_rate"] == "default"
    assert set(result.origins) == set(fields())
    assert result.files == [Path("a.yaml"), Path("b.yaml")]
    assert result.given == {"model_name_or_path", "dataset", "seed", "lora_rank", "cutoff_len"}


def test_another_spelling_on_the_command_line_still_wins(loaded):
    assert (
        loaded("--batch_size", "4", yaml="per_device_train_batch_size: 2\n").config.train.per_device_train_batch_size
        == 4
    )


@pytest.mark.parametrize(
    ("yaml", "words", "expected"),
    [
        ("bf16: false\n", [], "fp32"),
        ("bf16: false\nfp16: false\n", [], "fp32"),
        ("bf16: false\nfp16: true\n", [], "fp16"),
        ("fp16: true\nbf16: false\n", [], "fp16"),
        ("bf16: true\n", ["--fp16"], "fp16"),
        ("bf16: true\n", ["--bf16", "False"], "fp32"),
        ("fp16: true\n", ["--no-bf16"], "fp16"),
        ("compute_type: fp16\n", ["--no-bf16"], "fp16"),
        ("pure_bf16: true\n", [], "pure_bf16"),
        ("", [], "auto"),
    ],
)
def test_a_false_precision_says_only_what_it_is_not(loaded, yaml, words, expected):
    assert loaded(*words, yaml=yaml).config.model.compute_type == expected


def test_problems_come_in_reading_order_with_a_count(refused):
    yaml = "learning_rte: 1\nseed: 1\n\n\n\n\n\n\ncutoff_len: 0\n"
    found = refused("--learning_rte", "1", "--template", "qwne", yaml=yaml)
    assert found == [
        "x.yaml:1: unknown option 'learning_rte'; did you mean 'learning_rate'?",
        "x.yaml:9: cutoff_len: must be at least 1, got 0",
        "command line: unknown option '--learning_rte'; did you mean '--learning_rate'?",
        found[3],
    ]
    assert found[3].startswith("command line: --template: unknown template 'qwne'; did you mean 'qwen'?")
    with pytest.raises(OptionError, match="2 problems; nothing was started") as caught:
        load(["--dataset", "d", "--seed", "x"], "train")
    assert caught.value.exit_code == 2


def test_nothing_else_is_said_when_something_is_wrong(refused, capsys):
    refused("--low_cpu_mem_usage", "True", "--seed", "x")
    assert capsys.readouterr().err == ""


def test_what_is_missing_is_told_by_command():
    with pytest.raises(OptionError) as caught:
        load([], "train")
    assert [line.split(":")[1].strip() for line in caught.value.problems] == ["model_name_or_path", "dataset"]
    with pytest.raises(OptionError, match="model_name_or_path: is missing"):
        load([], "chat")
    assert load(["some/model", "--prompt", "hi"], "chat").config.model.model_name_or_path == "some/model"
    assert load(["--no-do_train", "--do_eval", "--model", "m", "--eval_dataset", "e"], "train").config.train.do_eval


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("model_name_or_pth: m\ndataset: d\n", []),
        ("model_name_or_path: [m]\ndataset: d\n", []),
        ("model_name_or_path: 'm\ndataset: d\n", []),
        ("dataset: d\n", ["--model_name_or_path"]),
        ("dataset: d\n", ["–model", "m"]),
        ("dataset: d\n", ["-model", "m"]),
        ("dataset: d\n", ["model_nam=m"]),
        ("dataset: d\n", ["nothere.yaml"]),
    ],
)
def test_what_is_wrong_is_not_missing_too(yaml, words):
    with pytest.raises(OptionError) as caught:
        load([*written("x.yaml", yaml), *words], "train")
    assert len(caught.value.problems) == 1


def test_debug_reaches_processes_that_are_started_later(loaded, monkeypatch):
    import os

    monkeypatch.setenv("TUNESMITH_DEBUG", "")
    loaded("--debug")
    assert os.environ["TUNESMITH_DEBUG"] == "1"


def test_a_missing_file_names_its_neighbours():
    written("train.yaml", "seed: 1\n")
    with pytest.raises(OptionError, match=r"there is no file 'trian.yaml'; did you mean 'train.yaml'\?"):
        load(["trian.yaml"], "train")
    with pytest.raises(OptionError, match=r"there is no file 'other.json'; '.' holds train.yaml"):
        load(["other.json"], "train")
    with pytest.raises(OptionError, match="no folder 'nowhere'"):
        load(["nowhere/x.yaml"], "train")
    Path("folder.yaml").mkdir()
    with pytest.raises(OptionError, match=r"'folder.yaml' is a folder"):
        load(["folder.yaml"], "train")


WRITABLE = [name for name in fields() if name not in rules.NOT_BUILT_AT_ALL]


def any_value(name: str) -> st.SearchStrategy:
    """Values the field may hold, of every kind it declares."""
    shape = shape_of(name)
    if shape.item:
        numbers = st.floats(0, 9) if float in shape.item.scalars else PLAIN
        inner = st.sampled_from(shape.item.choices) if shape.item.choices else numbers
        return st.lists(inner, min_size=1, max_size=3, unique=True)
    if shape.mapping:
        return st.dictionaries(PLAIN, st.none() | st.booleans() | st.integers() | st.floats(-9, 9) | PLAIN, min_size=1)
    kinds = [st.sampled_from(shape.choices)] if shape.choices else []
    low, high = shape.bounds.get("ge", shape.bounds.get("gt", 0)), shape.bounds.get("le", shape.bounds.get("lt", 2**31))
    inside = {"exclude_min": "gt" in shape.bounds, "exclude_max": "lt" in shape.bounds}
    if int in shape.scalars:
        kinds.append(st.integers(int(low), int(high) - 1))
    if float in shape.scalars:
        kinds.append(st.floats(low, high, allow_nan=False, **inside))
    if bool in shape.scalars:
        kinds.append(st.booleans())
    if str in shape.scalars:
        kinds.append(PLAIN)
    return st.one_of(kinds)


PLAIN = st.text(st.characters(codec="utf-8", categories=("L", "N", "S")), min_size=1, max_size=12).filter(
    lambda text: text.lower() not in ("true", "false", "yes", "no", "none", "null", "0", "1")
)


def words_of(value: object) -> str:
    """A value as it is typed on a command line."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if isinstance(value, dict) else str(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_value_is_the_same_from_yaml_json_and_the_command_line(data):
    name = data.draw(st.sampled_from(WRITABLE))
    value = data.draw(any_value(name))
    flat = json.dumps(value, ensure_ascii=False)
    written("x.yaml", f"{name}: {flat}\n")
    written("x.json", json.dumps({name: value}))
    results = []
    for arguments in (["x.yaml"], ["x.json"], [f"--{name}={words_of(value)}"], [f"{name}={words_of(value)}"]):
        try:
            results.append(load(arguments, "help").config.flat()[name])
        except OptionError as problem:
            # A rule's refusal (not built, an unknown name) must be the same sentence wherever the value came from.
            results.append([line.split(f"{name}: ")[-1] for line in problem.problems])
    assert results.count(results[0]) == len(results), results


def test_every_default_survives_being_written_down():
    """A run's config.yaml, all options with their values, loads again as the same config."""
    config = load(["--model", "m", "--dataset", "d,e", "--learning_rate", "1e-7"], "train").config
    text = "\n".join(f"{name}: {json.dumps(value)}" for name, value in config.flat().items())
    assert load(written("config.yaml", text), "train").config == config


@pytest.mark.parametrize("name", list(fields()))
def test_values_outside_the_bounds_are_refused(name, refused):
    shape = shape_of(name)
    step = 1 if int in shape.scalars else 1e-6
    wrong = {"ge": lambda n: n - step, "gt": lambda n: n, "le": lambda n: n * 2, "lt": lambda n: n}
    for kind, limit in shape.bounds.items():
        value = wrong[kind](limit)
        found = refused(f"--{name}={value}")
        assert len(found) == 1
        assert found[0].startswith(f"command line: --{name}: must be ") and found[0].endswith(f"got {value}")
    if float in shape.scalars:
        for value in ("nan", "inf", "-inf"):
            assert "must be" in refused(f"--{name}={value}")[0]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from(["x.yaml", "x.json", "x.txt"]))
def test_any_bytes_as_a_file_give_a_config_or_one_line_per_problem(content, name):
    Path(name).write_bytes(content)
    _never_a_traceback([name])


SCALARS = st.sampled_from(
    ["", "~", "yes", ".inf", "-.nan", "0x" + "f" * 999, "2025-03-26", "[1, [a]]", "{a: {b: 1}}", "|\n  x", "!!binary eA==",
     "&a b", "'", "9" * 400, "1e999", "-0", "true", "[]", "{}", "\t", "0o17", "=", "<<"]
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([*fields(), *compat.SWITCHES, *compat.RATIOS]), SCALARS | st.text(max_size=9)))
)
def test_any_value_in_a_file_gives_a_config_or_one_line_per_problem(lines):
    Path("x.yaml").write_bytes("\n".join(f"{name}: {value}" for name, value in lines).encode())
    _never_a_traceback(["x.yaml"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["--", "–", "-", ""]), min_size=1, max_size=4), st.data())
def test_any_words_give_a_config_or_one_line_per_problem(dashes, data):
    names = st.sampled_from(list(fields())) | st.sampled_from(list(compat.SWITCHES)) | st.text(max_size=5)
    values = st.text(st.characters(exclude_characters="\0"), max_size=8) | st.sampled_from(["1", "true", "a=b", "[1]"])
    words = []
    for dash in dashes:
        words += [dash + data.draw(names), data.draw(values)]
    _never_a_traceback([word.replace("\0", "") for word in words])


def _never_a_traceback(arguments: list[str]) -> None:
    try:
        result = load([*arguments, "--model=m", "--dataset=d"], "train")
    except OptionError as problem:
        assert problem.problems
        assert all("\n" not in line and len(line) < 700 for line in problem.problems)
    else:
        assert isinstance(result.config, Config)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "config.json",
            {"model_type": "qwen2"},
            "is a model's config.json, not an options file; write --model_name_or_path .",
        ),
        ("tokenizer_config.json", {"tokenizer_class": "x"}, "belongs to a model's tokenizer, not an options file"),
        ("adapter_config.json", {"peft_type": "LORA", "r": 8}, "write --adapter_name_or_path ."),
        ("any.json", {"mine": {"file_name": "a"}}, "is a list of datasets, not an options file; write --dataset_dir ."),
    ],
)
@pytest.mark.parametrize("command", ["train", "chat", "export", "estimate", "lint"])
def test_a_file_of_something_else_is_told_in_one_line(tmp_path, monkeypatch, name, content, said, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(OptionError) as told:
        load([name], command=command)
    assert said in told.value.problems[0] and len(told.value.problems) <= 2  # and the count


def test_a_config_json_with_options_is_a_file_of_options(tmp_path):
    (tmp_path / "config.json").write_text('{"model_name_or_path": "m", "dataset": "d"}')
    assert load([str(tmp_path / "config.json")], command="train").config.model.model_name_or_path == "m"
