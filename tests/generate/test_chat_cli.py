"""`tunesmith chat` as a user runs it: whole processes over a pipe, on tiny models, a run's folder, and mistakes."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.config.data import DataConfig
from tunesmith.config.model import ModelConfig
from tunesmith.generate import chat
from tunesmith.generate.load import load_engine
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.transformers import TransformersEngine
from tunesmith.models.load import find, find_adapters, load_tokenizer
from tunesmith.templates.conversation import Conversation, Message

GREEDY = Sampling(max_new_tokens=8)
FLAGS = ["--do_sample", "false", "--max_new_tokens", "8", "--compute_type", "fp32"]


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory) -> Path:
    """A run's folder: an adapter with weights that matter, the tokenizer, and what the run was told."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    get_peft_model(model, config).save_pretrained(folder)
    told = {
        "model_name_or_path": str(tiny_model),
        "adapter_name_or_path": [],
        "template": "vicuna",
        "default_system": "You are Ada.",
        "learning_rate": 1e-4,
    }
    lines = (f"{name}: {json.dumps(value)}  # run.yaml:{line}" for line, (name, value) in enumerate(told.items()))
    (folder / "config.yaml").write_text("\n".join(lines), encoding="utf-8")
    return folder


def engine_of(data: DataConfig, base: Path, *adapters: Path) -> tuple[TransformersEngine, str]:
    cfg = ModelConfig(
        model_name_or_path=str(base), adapter_name_or_path=[str(one) for one in adapters], compute_type="fp32"
    )
    return load_engine(find(cfg), find_adapters(cfg), cfg, data)


def expected(model: torch.nn.Module, folder: Path, prompt: str) -> str:
    """What transformers' own `generate` makes of a prompt's text."""
    tokenizer = load_tokenizer(find(ModelConfig(model_name_or_path=str(folder))), ModelConfig())
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
    return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_conversation_over_a_pipe(run_warm, tiny_model):
    engine, _ = engine_of(DataConfig(), tiny_model)
    first = engine.answer(Conversation([Message("user", "Hello 你好")]), GREEDY)
    turns = [Message("user", "Hello 你好"), Message("assistant", first), Message("user", "And now?")]
    second = engine.answer(Conversation(turns), GREEDY)
    assert second != engine.answer(Conversation(turns[2:]), GREEDY), "else this could not tell a history from none"
    lines = ["Hello 你好", "And now?", "/clear", "Hello 你好", "/wrong"]
    done = run_warm("chat", tiny_model, *FLAGS, input="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{text}\n" for text in (first, second, first))
    assert f"note: chat: {tiny_model.resolve()}, template " in done.stderr
    assert ", on cpu in float32\n" in done.stderr
    assert "there is no /wrong; there are " in done.stderr


def test_a_runs_folder_answers_in_the_form_it_was_trained_in(run_warm, tiny_model, adapter):
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    prompt = "You are Ada.USER: Hello ASSISTANT:"
    plain = expected(base, tiny_model, prompt)
    tuned = PeftModel.from_pretrained(base, adapter)
    whole = expected(tuned, tiny_model, prompt)
    assert whole != plain
    done = run_warm("chat", adapter, "--prompt", "Hello", *FLAGS)
    assert (done.returncode, done.stdout) == (0, whole + "\n"), done.stderr
    assert f"{tiny_model.resolve()} with {adapter.resolve()}, template vicuna" in done.stderr


def test_what_is_written_wins_over_the_runs_folder(tiny_model, adapter, tmp_path):
    """The same adapter beside its base, with another chat format, as `chat BASE --adapter_name_or_path RUN` has it."""
    engine, facts = engine_of(DataConfig(template="chatml", default_system="Be brief."), tiny_model, adapter)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), adapter)
    prompt = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert engine.answer(Conversation([Message("user", "Hello")]), GREEDY) == expected(tuned, tiny_model, prompt)
    assert "template chatml" in facts
    end = AutoTokenizer.from_pretrained(tiny_model).convert_tokens_to_ids("<|im_end|>")
    assert end in engine.stops.tokens


def test_an_adapters_own_tokenizer_is_used(tiny_model, adapter, tmp_path):
    """Its chat template is the one the adapter was trained with; so are its end tokens."""
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for message in messages %}Q: {{ message['content'] }} A:{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 599]}')
    engine, _ = engine_of(DataConfig(template="auto"), tiny_model, tmp_path)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), adapter)
    answer = engine.answer(Conversation([Message("user", "Hello")]), GREEDY)
    assert answer == expected(tuned, tiny_model, "Q: Hello A:")
    assert engine.stops.tokens == {2, 599}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "model_name_or_path: is missing"),
        (["MODEL", "--temprature", "1"], "unknown option '--temprature'; did you mean '--temperature'?"),
        (["MODEL", "--prompt", " "], "prompt: is empty"),
        (["MODEL", "--template", "chatmll"], "did you mean 'chatml'"),
    ],
)
def test_mistakes_are_sentences(run_warm, tiny_model, arguments, says):
    done = run_warm("chat", *(str(tiny_model) if word == "MODEL" else word for word in arguments), input="Hello\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr and "Traceback" not in done.stderr


def test_options_and_files_are_checked_before_torch_is_imported(repo, tmp_path):
    """By an interpreter in which torch can't be imported."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tunesmith.generate.chat import chat_command\n"
        "from tunesmith.log import TunesmithError\n"
        f"for words in (['x', '--tempratur', '1'], ['./nowhere'], [{str(tmp_path)!r}]):\n"
        "    try: chat_command(words)\n"
        "    except TunesmithError as problem: print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True)
    assert "--temperature" in done.stdout and "no folder nowhere" in done.stdout
    assert f"{tmp_path}: " in done.stdout


def test_end_tokens_that_are_no_numbers_are_passed_over(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": ["y", 2, null, true]}')
    engine, _ = engine_of(DataConfig(template="qwen"), folder)
    assert engine.stops.tokens == {2}


def test_bytes_that_are_no_text_cost_no_conversation(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(chat.Talk, "say", lambda self, text: said.append(text))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfehi\nyou\n"), encoding="utf-8"))
    assert chat.chat_command([str(tiny_model), "--template", "qwen"]) == 0
    assert said == ["\ufffd\ufffdhi", "you"]
