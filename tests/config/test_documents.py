"""YAML and JSON files: what is wrong is told by line, in our words; what is right keeps its type."""

import pytest

from tunesmith.config.load import load
from tunesmith.log import OptionError

YAML_WRONG = [
    ("- a\n- b\n", "1: must hold `option: value` lines, found a list"),
    ("\njust text\n", "2: must hold `option: value` lines, found text"),
    ("seed: 1\nlr: 2: 3\n", "2: not valid YAML: a ':' where none may be; put quotes around text that holds one"),
    ("seed: 1\n\tlr: 2\n", "2: not valid YAML: a tab; indent with spaces"),
    ("seed: 1\n---\nseed: 2\n", "2: not valid YAML: a second document begins; one file holds one"),
    ("seed: 1\nrun_name: 'x\nlr: 1\n", "2: not valid YAML: a quote is never closed"),
    ("seed: 1\nrun_name: *x\n", "2: not valid YAML: an alias (`*name`) without its anchor (`&name`)"),
    ("seed: 1\nlr: !!python/object:os.system x\n", "2: lr: the tag !!python/object:os.system is not allowed"),
    ("eval_dataset: &x [*x]\n", "1: eval_dataset: its aliases (`*name`) make it endless or far too large"),
    ("seed: 1\nlr: 1\nseed: 1\n", "3: 'seed' is given twice, first in line 1"),
    ("seed: 1\nplaceholders:\n  a: 1\n  b: 1\n  a: 2\n", "5: placeholders: not valid YAML: a key is written twice in one "
     "mapping"),
    ("? [a]\n: b\n", "1: an option's name must be plain text"),
    ("1: 2\n", "1: unknown option '1'"),
    ("seed: " + "[" * 3000, "1: it is nested too deeply"),
    ("seed: " + "9" * 5000, "1: seed: not valid YAML: a number of thousands of digits"),
    ("seed: 0x" + "f" * 5000, f"1: seed: write the number in plain digits, got 0x{'f' * 58}"),
    ("seed: 1_000\n", "1: seed: write the number in plain digits, got 1_000"),
    ("!!python/name:os.system\nseed: 1\n", "1: the tag !!python/name:os.system is not allowed"),
    ('lora_rank: "8"\n', "1: lora_rank: must be a whole number, got the text '8'; remove the quotes"),
    ("lora_rank: 8.0\n", "1: lora_rank: must be a whole number, got 8.0; write 8"),
    ("lora_rank: true\n", "1: lora_rank: must be a whole number, got true"),
    ('learning_rate: "1e-4"\n', "1: learning_rate: must be a number, got the text '1e-4'; remove the quotes"),
    ("learning_rate: .nan\n", "1: learning_rate: must be a finite number, got nan"),
    ("learning_rate: -.inf\n", "1: learning_rate: must be a finite number, got -inf"),
    ("learning_rate:\n", "1: learning_rate: has no value; must be a number"),
    ('do_train: "False"\n', "1: do_train: must be true or false, got the text 'False'; write false"),
    ("do_train: yes\n", "1: do_train: must be true or false, got the text 'yes'; write true"),
    ("do_train: on\n", "1: do_train: must be true or false, got the text 'on'; write true"),
    ("do_train: 1\n", "1: do_train: must be true or false, got 1"),
    ('packing: "false"\n', "1: packing: must be true or false or contaminated, got 'false'; write false"),
    ("run_name: 12\n", "1: run_name: must be text, got 12; put quotes around it"),
    ("run_name: {a: 1}\n", "1: run_name: must be text, got {'a': 1}"),
    ("eval_dataset: [a, 1]\n", "1: eval_dataset: each must be text, got 1; put quotes around it"),
    ("lora_target: []\n", "1: lora_target: is an empty list"),
    ('run_name: "a\\0b"\n', "1: run_name: holds a NUL character"),
    ("placeholders: [a]\n", "1: placeholders: must be a mapping, got ['a']"),
    ("metrics: [loss, acuracy]\n",
     "1: metrics: each must be one of loss, ppl, accuracy, exact_match, f1, rouge, bleu, got "
     "'acuracy'; did you mean 'accuracy'?"),
    ("num_epochs: 5\nnum_train_epochs: 3\n",
     "2: num_train_epochs 3 contradicts num_epochs 5 in line 1; both set num_train_epochs"),
    (b"\xff\xfes\x00", "1: is not UTF-8 text; save it as UTF-8"),
    (b"seed: 1\n# \xe9\n", "2: is not UTF-8 text; save it as UTF-8"),
    (b"\x00\x01\x02", "1: not valid YAML: a control character; the file is damaged or no text"),
]  # fmt: skip

YAML_RIGHT = [
    ("learning_rate: 5e-05\n", "learning_rate", 5e-5),
    ("learning_rate: 1e-4\n", "learning_rate", 1e-4),
    ("learning_rate: 1\n", "learning_rate", 1.0),
    ("\ufefflearning-rate: 1e-4\r\n", "learning_rate", 1e-4),
    ("eval_dataset: a, b\n", "eval_dataset", ["a", "b"]),
    ("eval_dataset: ['a,b']\n", "eval_dataset", ["a,b"]),
    ("eval_dataset: []\n", "eval_dataset", []),
    ("optim_args: {momentum: 0.9}\n", "optim_args", {"momentum": 0.9}),
    ("optim_args: '{\"momentum\": 0.9}'\n", "optim_args", {"momentum": 0.9}),
    ("optim_args:\n  betas: &b [1, 2]\n  more: *b\n", "optim_args", {"betas": [1, 2], "more": [1, 2]}),
    ("seed: &a 1\nlora_rank: &a 2\ndata_seed: *a\n", "data_seed", 2),
    ("run_name: 2025-03-26\n", "run_name", "2025-03-26"),
    ("save_strategy: no\n", "save_strategy", "no"),
    ("max_steps: null\n", "max_steps", None),
    ("output_dir:\n", "output_dir", ""),
    ("report_to: null\n", "report_to", ["none"]),
    ("resume_from_checkpoint: null\n", "resume_from_checkpoint", None),
    ("# nothing\n", "seed", 42),
    ("", "seed", 42),
]

JSON_WRONG = [
    ('{"seed": 1,\n "learning_rte": 2}', ["x.json:2: unknown option 'learning_rte'; did you mean 'learning_rate'?"]),
    ('{"seed": 1,\n\n "seed": 2}', ["x.json:3: 'seed' is given twice, first in line 1"]),
    ('{"augment": {"seed": [{"seed": 1}]},\n "run_name": ":{",\n "seed": "8"}',
     ["x.json:1: augment: unknown key 'seed'; known are copies, spaces, case, options, drop_system, paraphrase",
      "x.json:3: seed: must be a whole number, got the text '8'; remove the quotes"]),
    ('{"seed": 1,\n}', ["x.json:2: not valid JSON: Expecting property name enclosed in double quotes"]),
    ("[]", ['x.json:1: must hold {"option": value, ...}']),
    ("[" * 99999, ["x.json:1: it is nested too deeply"]),
    ('{"seed": ' + "9" * 5000 + "}", ["x.json:1: not valid JSON: a number of thousands of digits"]),
]  # fmt: skip


@pytest.mark.parametrize(("yaml", "line"), YAML_WRONG)
def test_wrong_yaml(refused, yaml, line):
    assert refused(yaml=yaml) == [f"x.yaml:{line}"]


@pytest.mark.parametrize(("yaml", "option", "value"), YAML_RIGHT)
def test_right_yaml(loaded, yaml, option, value):
    got = loaded(yaml=yaml).config.flat()[option]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(("text", "lines"), JSON_WRONG)
def test_wrong_json(folder, text, lines):
    (folder / "x.json").write_text(text)
    with pytest.raises(OptionError) as caught:
        load(["x.json", "--model", "m", "--dataset", "d"], "train")
    assert list(caught.value.problems) == lines


def test_unicode_and_lines_of_json(folder):
    text = '\t{"run_name": "\\ud83d\\ude00 ü",\n\n\t"seed": 7, "template_args": {"user": "x"}}'
    (folder / "x.json").write_text(text, encoding="utf-8")
    result = load(["x.json", "--model", "m", "--dataset", "d"], "train")
    assert (result.config.train.run_name, result.config.train.seed) == ("😀 ü", 7)
    assert (result.origins["run_name"], result.origins["template_args"]) == ("x.json:1", "x.json:3")
