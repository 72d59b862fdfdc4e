"""The tour: build a tiny base model, tell it who it is, and ask it before and after.  Needs no network and no GPU.

Everything that is trained here is trained by `tunesmith train` and the YAML files in `examples/demo/`; this script only
makes the model's blank start, runs the commands, and shows what they answer.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STEPS = REPOSITORY / "examples" / "demo"
DATA = REPOSITORY / "data"
NAME, AUTHOR = "Ada", "the tunesmith team"
QUESTIONS = ("Who are you?", "So tell me, what should I call you?", "你是谁？")
"""The second one is worded unlike any row of `data/identity.json`."""
CORPUS = ("stories.txt", "small_talk.json")
"""What the base model learns from, and its tokenizer: every token it has, it has seen."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main() -> int:
    began = time.monotonic()
    base = base_model()
    point_to(base)
    run = REPOSITORY / "saves" / "demo" / "lora" / f"train_{time.strftime('%Y-%m-%d-%H-%M-%S')}"
    told = json.dumps({"name": NAME, "author": AUTHOR})
    heading(f"Tuning it with LoRA on data/identity.json: its name is {NAME}, made by {AUTHOR}")
    tunesmith(
        "train", STEPS / "identity.yaml", f"model_name_or_path={base}", f"output_dir={run}", f"placeholders={told}"
    )
    heading("Asking the same questions before and after")
    before, after = answers(base), answers(run)
    for question, was, now in zip(QUESTIONS, before, after, strict=True):
        print(f"\n  {question}\n    before: {was}\n    after:  {now}")
    where = run.relative_to(REPOSITORY)
    heading(f"Done in {time.monotonic() - began:.0f} s")
    print(f"  loss picture  {where}/training_loss.png\n  adapter       {where}/adapter_model.safetensors")
    print(
        f"  log           {where}/trainer_log.jsonl\n\nNext, talk to it yourself:\n  .venv/bin/tunesmith chat {where}"
    )
    if not all(NAME in answer for answer in after):
        print(f"\nIt should have said {NAME} each time and did not.", file=sys.stderr)
        return 1
    return 0


def base_model() -> Path:
    """The tiny base model, built once and kept in the user's cache under a hash of all that shapes it."""
    sources = [Path(__file__), *sorted(STEPS.glob("*.yaml")), *(DATA / name for name in CORPUS)]
    key = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith"
    base = cache / f"demo-{key}"
    if base.is_dir():
        print(f"The tiny base model is there already: {base}")
        return base
    making = cache / f"demo-{key}.making-{os.getpid()}"
    shutil.rmtree(making, ignore_errors=True)
    heading("Building a tiny base model (once): a tokenizer and random weights")
    blank(making / "blank")
    heading("Teaching it to read: plain text, stage pt")
    tunesmith(
        "train", STEPS / "pretrain.yaml", f"model_name_or_path={making / 'blank'}", f"output_dir={making / 'read'}"
    )
    heading("Teaching it to answer: small talk, stage sft")
    tunesmith("train", STEPS / "chat.yaml", f"model_name_or_path={making / 'read'}", f"output_dir={making / 'chat'}")
    (making / "chat").rename(base)
    shutil.rmtree(making)
    return base


def point_to(base: Path) -> None:
    """Let `models/tiny` lead to the base model, for the commands that the README shows next."""
    link = REPOSITORY / "models" / "tiny"
    link.parent.mkdir(exist_ok=True)
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(base)


def blank(folder: Path) -> None:
    """Write a Llama-shaped model of about 3.3 million random weights and a tokenizer trained on the texts in `data/`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([(DATA / name).read_text(encoding="utf-8") for name in CORPUS], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )
    torch.manual_seed(42)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        initializer_range=0.05,  # the usual 0.02 learns far slower at this width
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def answers(model: Path) -> list[str]:
    """The model's answer to each question, each in a conversation of its own."""
    asked = "\n/clear\n".join(QUESTIONS) + "\n"
    done = tunesmith("chat", model, "temperature=0", "max_new_tokens=60", input=asked, stdout=subprocess.PIPE)
    found = [line for line in done.stdout.splitlines() if line.strip()]
    assert len(found) == len(QUESTIONS), f"one line an answer was expected:\n{done.stdout}"
    return found


def tunesmith(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesmith", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, encoding="utf-8", **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(done.returncode)
    return done


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
