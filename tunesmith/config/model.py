"""Which model, from where, and in which form it is held."""

from typing import Literal

from tunesmith.config.section import Below1, Section


class ModelConfig(Section):
    model_name_or_path: str = ""
    """Base model: a folder (absolute, relative or `~`) or a hub name. An existing folder wins over a hub name."""

    model_revision: str = "main"
    """Branch, tag or commit of the model on its hub; recorded in `run.json`."""

    adapter_name_or_path: list[str] = []
    """LoRA adapters to load, comma-separated. All but the last are merged into the base; the last one is trained on, or
    merged too with `create_new_adapter`."""

    cache_dir: str | None = None
    """Folder for downloads from hubs. Default: the hub library's own."""

    use_modelscope: bool = False
    """Take hub names from ModelScope instead of Hugging Face. Needs the extra `modelscope`."""

    hf_hub_token: str | None = None
    """Token for private models on Hugging Face; never written to disk. The environment's HF_TOKEN works too."""

    trust_remote_code: bool = False
    """Allow a model folder to bring its own Python code. It runs with your rights; the files are named and hashed in
    `run.json`. Not needed for architectures that transformers knows."""

    use_fast_tokenizer: bool = True
    """Use the fast (Rust) tokenizer. The slow ones lack offsets and are about ten times slower."""

    flash_attn: Literal["auto", "disabled", "sdpa", "fa2", "fa3", "flex"] = "auto"
    """Attention: `auto` takes the best that is installed and right for the device, `disabled` the plain one, `sdpa`
    torch's, `fa2` and `fa3` FlashAttention, `flex` torch's FlexAttention. An unavailable choice is an error."""

    compute_type: Literal["auto", "bf16", "fp16", "fp32", "pure_bf16", "fp8"] = "auto"
    """Arithmetic of the forward and backward pass. `auto`: bf16 where the device has it, else fp32. `bf16` and `fp16`
    keep trained weights in fp32; `pure_bf16` holds everything in bf16 (half the memory, less exact).
    `fp8`: products of linear layers in 8 bits with a scale for each row, the rest in bf16; beside LoRA frozen weights are
    held so, in half the memory of bf16. About 4 % noise in each product; needs a GPU of compute capability 8.9 or more."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on. `auto`: the GPU when there is one."""

    gradient_checkpointing: bool | Literal["auto", "selective", "offload"] = False
    """Recompute activations in the backward pass: about 1.3 times the work for a fraction of the memory. `auto`: only in
    as many layers as are needed for a step to fit into the free memory. `selective`: matrix products are kept, what lies
    between them is made again. `offload`: layers' inputs wait in the CPU's memory."""

    enable_liger_kernel: bool | Literal["auto"] = "auto"
    """Liger's kernels on a GPU. `auto`: where the extra `liger` is installed, for norms, gated activations and rotary
    positions that a trial finds to compute the same. `true`: also for the loss, and an error where they can't run.
    `false`: never."""

    loss_kernel: Literal["auto", "tunesmith", "liger", "torch"] = "auto"
    """What computes cross-entropy from hidden states. `auto`: on a GPU the fastest of those that are installed and agree with
    this program's own in a trial before the first step, which a run that goes on keeps; on a CPU its own. `liger` needs
    a GPU and the extra `liger`, `torch` torch 2.13."""

    torch_compile: bool | Literal["auto"] = "auto"
    """Compile norms, gated activations and the loss into one pass each. `auto`: when the run is long enough to earn back
    the time that takes, by an estimate from its tokens that is printed. Needs a C++ compiler on a CPU."""

    cuda_graphs: bool = False
    """Record what a GPU does for a micro-batch of each size and have it done again in one launch: for models so small that
    the GPU waits for Python. Micro-batches are filled up to few sizes, starts are not shared, and memory is taken twice at
    the most. Left out, with a note, on a CPU, in several processes, and where rows are padded or the model itself waits for the GPU."""

    tf32: bool = False
    """Let a GPU multiply fp32 numbers in TensorFloat-32: several times as fast, with 10 bits of each number in place of 23.
    Matters where products are made of fp32 numbers, as with `compute_type: fp32`. Needs compute capability 8.0."""

    disable_speedups: list[
        Literal[
            "no_padding",
            "fused_loss",
            "fused_adapters",
            "merged_batches",
            "shared_prefix",
            "even_sizes",
            "fp32_products",
            "onednn_products",
            "lighter_layers",
            "kept_memory",
            "loading_ahead",
        ]
    ] = []
    """Ways to train faster that are left out, comma-separated. `no_padding`: rows lie behind one another instead of being
    padded to one length; `fused_loss`: the loss comes from hidden states, without whole logits; `fused_adapters`: LoRA and
    the frozen product beside it are one step; `merged_batches`: without padding, as many rows are computed at once as
    padded ones would have taken room; `shared_prefix`: without padding, what rows computed at once begin with alike is
    computed once; `even_sizes`: on a CPU in 16 bits, a few tokens nobody looks at make numbers of tokens repeat;
    `fp32_products`: products of bf16 are made in fp32 on a CPU that has no instructions for them; `onednn_products`: products
    of fp32 are made by oneDNN on a CPU with AVX-512 that is not Intel's, of which torch's own library uses half;
    `lighter_layers`: norms and gated activations keep less for the way back; `kept_memory`: on a CPU,
    memory that is freed stays with the process for what comes next; `loading_ahead`: a thread builds the next step's
    batches. They change a result by rounding alone."""

    train_from_scratch: bool = False
    """Begin with random weights of the model's shape, drawn by `seed`, in place of its own, as for pre-training: of its folder
    `config.json` and the tokenizer are read. Needs `finetuning_type: full`."""

    rope_scaling: Literal["linear", "dynamic", "yarn", "llama3"] | None = None
    """Stretch the model's rotary positions where `cutoff_len` exceeds them, by the factor that is needed, rounded up to a
    whole number. The saved model's config has it; `chat` and `export` find it in an adapter's run. Each way costs nothing
    but what longer rows cost; `yarn` and `llama3` disturb short rows least."""

    dropout_rate: Below1 | None = None
    """Set every dropout that the model itself has to this rate while training; a note lists them, and a model without
    one is an error. Not written: the model's own. Never touches `lora_dropout`."""

    quantization_bit: Literal[2, 3, 4, 5, 6, 8] | None = None
    """Hold the frozen linear weights in this many bits while LoRA is trained (QLoRA): a quarter of the memory of bf16 with
    4, for slower steps and rounded weights. `chat` holds the base so again; `export` merges into the whole base. bnb: 4
    and 8; hqq: 2 to 8."""

    quantization_method: Literal["bnb", "hqq", "eetq"] = "bnb"
    """Library that quantizes the frozen weights when `quantization_bit` is set: `bnb` is bitsandbytes (the extra
    `bitsandbytes`), `hqq` HQQ (the extra `hqq`)."""

    quantization_type: Literal["nf4", "fp4"] = "nf4"
    """Which 16 values 4 bits stand for in bnb: `nf4` lie as normally distributed weights do, `fp4` as short floats."""

    double_quantization: bool = True
    """Hold the scales of 4-bit weights in 8 bits too (bnb): 0.4 bits a weight less."""

    resize_vocab: bool = False
    """Grow the embeddings and the head to the tokenizer's size where it is larger, rounded up to a multiple of 64. New tokens
    do so by themselves."""

    add_tokens: list[str] = []
    """Words to add to the vocabulary, comma-separated. LoRA trains their rows of the embeddings and the head beside itself
    and saves them with the adapter."""

    add_special_tokens: list[str] = []
    """Control tokens to add to the vocabulary, comma-separated: text from data never becomes one."""

    new_special_tokens_config: str | None = None
    """A YAML file with control tokens to add and a description of each, `<token>: what it means`."""

    init_special_tokens: Literal["desc_init", "noise_init", "desc_init_w_noise"] = "desc_init"
    """How the rows of new tokens begin: `desc_init` as the mean of the tokens of their description, or of their own text;
    `noise_init` as the mean of all rows with noise; `desc_init_w_noise` as the first, with noise."""
