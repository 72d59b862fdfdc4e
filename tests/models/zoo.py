"""Tiny random models of several architectures, saved as their users would find them.  Knows nothing of tunesmith."""

from pathlib import Path

import tiny
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

SHAPE = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
ARCHITECTURES = {
    "qwen2": (transformers.Qwen2Config, GROUPED),
    "qwen3_tied": (transformers.Qwen3Config, {**GROUPED, "head_dim": 8, "tie_word_embeddings": True}),
    "llama": (transformers.LlamaConfig, GROUPED),
    "mistral": (transformers.MistralConfig, GROUPED),
    "gemma2": (transformers.Gemma2Config, {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "phi3": (transformers.Phi3Config, GROUPED),
    "gpt_neox": (transformers.GPTNeoXConfig, SHAPE),
    "gpt2": (
        transformers.GPT2Config,
        {"vocab_size": tiny.VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "eos_token_id": 2},
    ),
    "opt": (
        transformers.OPTConfig,
        {**SHAPE, "ffn_dim": 64, "word_embed_proj_dim": 32},
    ),
    "mixtral": (transformers.MixtralConfig, {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
}


def build(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Save the architecture with random weights and the shared tokenizer into `folder`."""
    cls, shape = ARCHITECTURES[name]
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(cls(**shape)).to(dtype).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def logits(model: PreTrainedModel) -> torch.Tensor:
    """[2, 12, vocabulary] for fixed random tokens, without dropout."""
    ids = torch.randint(3, tiny.VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(5))
    training = model.training
    model.eval()
    with torch.no_grad():
        found = model(input_ids=ids, use_cache=False).logits.float()
    model.train(training)
    return found


def shake(model: torch.nn.Module, by: float = 0.05) -> None:
    """Change every trained weight, as training would."""
    torch.manual_seed(11)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += by * torch.randn_like(weight)
