"""The grammar of the command line, and the exact line for everything that breaks it."""

from pathlib import Path

import pytest

from tunesmith.config.load import load
from tunesmith.log import OptionError

RIGHT = [
    (["--lora_rank=4"], "lora_rank", 4),
    (["lora-rank=4"], "lora_rank", 4),
    (["--lora-rank", "+4"], "lora_rank", 4),
    (["--plot_loss"], "plot_loss", True),
    (["--plot_loss", "--seed", "1"], "plot_loss", True),
    (["--plot_loss", "YES"], "plot_loss", True),
    (["--plot_loss", "1"], "plot_loss", True),
    (["--do_train", "0"], "do_train", False),
    (["--no-do_train"], "do_train", False),
    (["--no_do-train"], "do_train", False),
    (["--plot_loss", "seed=3"], "seed", 3),
    (["--length_penalty", "-1e-3"], "length_penalty", -0.001),
    (["--max_steps", "-1"], "max_steps", -1),
    (["--prompt", "-x"], "prompt", "-x"),
    (["--prompt=--x=y"], "prompt", "--x=y"),
    (["--run_name", 'Zoë\'s "run" 一 = 1'], "run_name", 'Zoë\'s "run" 一 = 1'),
    (["--eval_dataset", "a", "b", "c"], "eval_dataset", ["a", "b", "c"]),
    (["--eval_dataset", "a, b", "seed=1"], "eval_dataset", ["a", "b"]),
    (["--eval_dataset", '["a,b", "c"]'], "eval_dataset", ["a,b", "c"]),
    (["--lora_target", "q_proj,v_proj"], "lora_target", ["q_proj", "v_proj"]),
    (["--lora_target", r".*\.(q|k){1,2}_proj"], "lora_target", [r".*\.(q|k){1,2}_proj"]),
    (
        ["--optim_args", "momentum=0.9,nesterov=true,note=x y"],
        "optim_args",
        {"momentum": 0.9, "nesterov": True, "note": "x y"},
    ),
    (["--template_args", '{"stop_words": ["</s>"]}'], "template_args", {"stop_words": ["</s>"]}),
    (["--resume_from_checkpoint"], "resume_from_checkpoint", True),
    (["--resume_from_checkpoint", "a/checkpoint-3"], "resume_from_checkpoint", "a/checkpoint-3"),
    (["--enable_thinking", "null"], "enable_thinking", None),
    (["--default_system="], "default_system", ""),
]

WRONG = [
    (["--learn", "1"], "unknown option '--learn'; did you mean '--learning_rate'?"),
    (["learning_rte=1"], "unknown option 'learning_rte'; did you mean 'learning_rate'?"),
    (["--xyzzy"], "unknown option '--xyzzy'"),
    (["--rank_lora", "1"], "unknown option '--rank_lora'; did you mean '--lora_rank'?"),
    (["--seed", "1", "--seed", "1"], "--seed: given twice"),
    (["--seed", "1", "seed=2"], "seed: given twice"),
    (["--batch_size", "1", "--per_device_train_batch_size", "2"],
     "--per_device_train_batch_size 2 contradicts --batch_size 1; both set per_device_train_batch_size"),
    (["--bf16", "--fp16"], "--fp16 true contradicts --bf16 true; both set compute_type"),
    (["--compute_type", "fp32", "--bf16"], "--bf16 true contradicts --compute_type fp32; both set compute_type"),
    (["--lora_modules", "attention", "--lora_target", "all"],
     "--lora_target all contradicts --lora_modules attention; both set lora_target"),
    (["--pissa_init", "--lora_init", "normal"], "--lora_init normal contradicts --pissa_init true; both set lora_init"),
    (["--packing=True", "--neat_packing=False"], "--neat_packing False contradicts --packing True; both set packing"),
    (["--seed", "1", "stray"], "'stray' is no option and no file"),
    (["--seed", "1", "lora_rank"], "'lora_rank' is no option and no file; did you mean '--lora_rank'?"),
    (["–seed", "1"], "'–seed' begins with a typographic dash; write '--seed'"),
    (["—seed=1"], "'—seed=1' begins with a typographic dash; write '--seed'"),
    (["-seed", "1"], "'-seed': options begin with two dashes; write '--seed'"),
    (["--seed"], "--seed: needs a value"),
    (["--seed", "--plot_loss"], "--seed: needs a value"),
    (["--prompt", "--plot_loss"], "--prompt: needs a value; write --prompt=... for text that begins with dashes"),
    (["--seed="], "--seed: is empty; write a value"),
    (["--output_dir", ""], "--output_dir: is empty; write a value"),
    (["--eval_dataset", "a,,b"], "--eval_dataset: must be a list, or text with commas, got 'a,,b'; there is nothing "
     "before or after one of its commas"),
    (["--seed", "8.0"], "--seed: must be a whole number, got '8.0'; write 8"),
    (["--seed", "1e3"], "--seed: must be a whole number, got '1e3'; write 1000"),
    (["--seed", "1.5"], "--seed: must be a whole number, got '1.5'"),
    (["--seed", "٣"], "--seed: must be a whole number, got '٣'"),
    (["--seed", "1_000"], "--seed: must be a whole number, got '1_000'"),
    (["--seed", "9" * 5000], f"--seed: must be a whole number, got '{'9' * 55}...'"),
    (["--learning_rate", "1,5"], "--learning_rate: must be a number, got '1,5'; write the decimal point as '.'"),
    (["--learning_rate", "nan"], "--learning_rate: must be a finite number, got nan"),
    (["--learning_rate", "1e999"], "--learning_rate: must be a finite number, got 1e999"),
    (["--learning_rate", "0"], "--learning_rate: must be above 0, got 0"),
    (["--lora_dropout", "1"], "--lora_dropout: must be below 1, got 1"),
    (["--warmup_ratio", "1"], "--warmup_ratio: must be at least 0 and below 1, got 1"),
    (["--plot_loss", "on"], "--plot_loss: must be true or false, got 'on'; write true"),
    (["--plot_loss", "maybe"], "--plot_loss: must be true or false, got 'maybe'"),
    (["--no-seed", "3"], "--no-seed: seed is no switch; write --seed VALUE"),
    (["--no-plot_loss=1"], "--no-plot_loss: takes no value"),
    (["--finetuning_type", "lra"],
     "--finetuning_type: must be one of lora, qlora, freeze, full, oft, llamapro, got 'lra'; did you mean 'lora'?"),
    (["--metrics", "lss"],
     "--metrics: must be a list: each one of loss, ppl, accuracy, exact_match, f1, rouge, bleu, got 'lss'; "
     "did you mean 'loss'?"),
    (["--optim_args", '{"a": 1'],
     "--optim_args: must be a mapping, got '{\"a\": 1'; it is not valid JSON: Expecting ',' delimiter: line 1 column 8 "
     "(char 7)"),
    (["--optim_args", "a=1,a=2"], "--optim_args: must be a mapping, got 'a=1,a=2'; it has the key 'a' twice"),
    (["--optim_args", "a"], "--optim_args: must be a mapping, got 'a'; write JSON, or key=value,key=value"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "option", "value"), RIGHT)
def test_what_may_be_written(loaded, words, option, value):
    assert loaded(*words).config.flat()[option] == value


@pytest.mark.parametrize(("words", "line"), WRONG)
def test_what_may_not(refused, words, line):
    assert refused(*words) == [f"command line: {line}"]


def test_a_model_is_the_word_of_chat():
    config = load(["--trust_remote_code", "./model", "--prompt", "hello you"], "chat").config
    assert (config.model.model_name_or_path, config.generate.prompt) == ("./model", "hello you")
    with pytest.raises(OptionError, match="'two' is no option and no file"):
        load(["one", "two"], "chat")


def test_a_file_whose_name_looks_like_an_assignment_is_a_file():
    Path("seed=1.yaml").write_text("cutoff_len: 7\n")
    assert load(["seed=1.yaml", "--model", "m", "--dataset", "d"], "train").config.data.cutoff_len == 7


def test_a_mistake_is_one_problem_not_two(refused):
    """The value of an option that does not exist is no stray word, and an unknown option hides no other."""
    found = refused("--lerning_rate", "1e-4", "-bf16", "True", "--seed", "x")
    assert [line.split("'")[1] for line in found] == ["--lerning_rate", "-bf16", "x"]
