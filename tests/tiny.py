"""Builds the tiny random models and the tokenizer that tests share.  Knows transformers; knows nothing of tunesmith."""

from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 600
"""Entries of the tokenizer and rows of the models' embeddings."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "seven", "small", "blue", "birds", "over", "one", "sea"]
"""What rows of tests are made of at random."""

TEXT = """
Hello, how are you today? I am fine, thank you. What is your name? My name is Ada, and I am a small language model.
The quick brown fox jumps over the lazy dog, while the river runs slowly through the green valley towards the sea.
A user asks a question, the assistant answers it. The system says how the assistant should behave, in one sentence.
Please write a short story about a lighthouse keeper who finds a letter in a bottle and decides to answer every day.
Bread needs flour, water, salt and time; the oven should be hot before the loaf goes in, and cool before it comes out.
Numbers such as 1, 2, 3, 10, 42, 100 and 2024 are read as digits; fractions such as 0.5 or 3.14 have a point.
def add(a, b):
    return a + b
Mountains are older than people remember, and every stone in the stream has been somewhere else before it was here.
你好，请问你是谁？我是一个小小的语言模型，很高兴认识你。今天天气很好，我们一起去公园散步吧。
请写一个关于灯塔的短故事。从前有一座灯塔，灯塔里住着一位老人，他每天晚上都点亮灯，等待远方的船。
用户提出问题，助手回答问题。系统说明助手应该怎样回答。学习使人进步，时间就是生命。
人工智能正在改变世界，语言模型可以翻译、写作和回答问题。谢谢你的帮助，再见。
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 600 entries: `<|endoftext|>` pads, `<|im_end|>` ends a turn, ChatML is its
    template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        _lines(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    assert bpe.get_vocab_size() == VOCABULARY, "the text is too short for the vocabulary"
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def qwen2(folder: Path) -> Path:
    """Save a random Qwen2-shaped model with the tokenizer into `folder`."""
    return _save(Qwen2ForCausalLM(Qwen2Config(**_shape())), folder)


def llama(folder: Path) -> Path:
    """Save a random Llama-shaped model with the tokenizer into `folder`."""
    return _save(LlamaForCausalLM(LlamaConfig(**_shape())), folder)


def _shape() -> dict:
    torch.manual_seed(7)
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def _save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def _lines() -> Iterator[str]:
    yield from TEXT.strip().splitlines(keepends=True)
