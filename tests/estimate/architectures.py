"""Architectures whose steps are traced beside the formulas: small ones of real proportions.  Data only."""

import transformers

SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
}
ARCHITECTURES = {
    "llama": (transformers.LlamaConfig, SHAPE),
    "mistral": (transformers.MistralConfig, SHAPE),
    "qwen2": (transformers.Qwen2Config, {**SHAPE, "tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {**SHAPE, "head_dim": 128, "tie_word_embeddings": True}),
    "gemma": (transformers.GemmaConfig, {**SHAPE, "head_dim": 64}),
    "gemma3_text": (transformers.Gemma3TextConfig, {**SHAPE, "head_dim": 64}),
    "phi3": (transformers.Phi3Config, SHAPE),
    "olmo2": (transformers.Olmo2Config, SHAPE),
    "granite": (transformers.GraniteConfig, SHAPE),
    "smollm3": (transformers.SmolLM3Config, SHAPE),
}


def config(name: str) -> transformers.PreTrainedConfig:
    """The architecture's configuration."""
    made, shape = ARCHITECTURES[name]
    return made(**shape)
