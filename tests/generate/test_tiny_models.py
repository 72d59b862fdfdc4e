"""The shared tiny models are what every other test takes them for."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.mark.parametrize("fixture", ["tiny_model", "tiny_llama"])
def test_folder_loads_with_plain_transformers(fixture, request):
    folder = request.getfixturevalue(fixture)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings == 600
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi 你好 🙂"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHi 你好 🙂<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>") and tokenizer.decode(ids) == text
