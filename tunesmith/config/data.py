"""Which rows are read, how they become tokens, and which of the tokens are trained."""

from typing import Literal

from tunesmith.config.section import Count, Mapping, NonNegativeFloat, Positive, Section


class DataConfig(Section):
    dataset: list[str] = []
    """Training data, comma-separated: names of `dataset_info.json`, file paths, `hf:NAME` or `ms:NAME`. `name#100`
    takes 100 rows of one."""

    eval_dataset: list[str] = []
    """Evaluation data, written like `dataset`."""

    dataset_dir: str = "data"
    """Folder with `dataset_info.json`: relative to the working directory, then to the YAML file's folder. Not needed
    when `dataset` names files."""

    media_dir: str | None = None
    """Folder of the images, audio and video that rows name. Default: `dataset_dir`."""

    template: str | Mapping = "auto"
    """Chat template: a name (`tunesmith explain template` lists them), `auto` (the tokenizer's own), `default`,
    `jinja:PATH`, `custom` with `template_args`, or a mapping (JSON on the command line) of its parts."""

    template_args: Mapping = {}
    """Changes to the chat template, as a mapping or JSON: user, assistant, system, observation, function, stop_words,
    default_system, enable_thinking, tool_format, date_string. Stored with the model."""

    default_system: str | None = None
    """System prompt for conversations that have none, in training and in chat. Default: the template's own."""

    tool_format: str | None = None
    """Dialect in which tools and calls are written. Default: the template's own."""

    enable_thinking: bool | None = True
    """For templates of thinking models: whether a turn without a thought gets an empty one in the prompt (false) or in
    the answer (true), as the reference does; null leaves the rows as they are."""

    thinking: Literal["as_data", "strip_history", "empty_masked", "strip"] | None = None
    """What happens to thoughts in assistant turns: `as_data` leaves them as they are, `strip_history` takes out those before the
    last answer, `strip` all; `empty_masked` writes an empty one, which is not trained, where there is none. Default: as
    `enable_thinking` says."""

    allow_special_tokens: bool = False
    """Let text in data become control tokens. Off, `<|im_end|>` in a row stays plain text."""

    cutoff_len: Positive = 2048
    """Most tokens of one rendered sample, prompt and answer together."""

    overflow: Literal["truncate", "drop", "split", "error"] = "truncate"
    """What happens to samples over `cutoff_len`. Whatever it is, it is counted and reported."""

    train_on_prompt: bool = False
    """Train the prompt's tokens too, not only the answers'."""

    mask_history: bool = False
    """Train only the last turn of each conversation."""

    train_roles: list[Literal["assistant", "function", "user", "system", "observation"]] = ["assistant", "function"]
    """Roles whose text is trained."""

    streaming: bool = False
    """Read rows while training instead of before it, in memory that does not grow with them. Needs `max_steps`."""

    buffer_size: Positive = 16384
    """Rows among which the next one of a stream is drawn. They are held in memory."""

    mix_strategy: Literal["concat", "interleave_under", "interleave_over", "interleave_once"] = "concat"
    """How several datasets are joined: one after another, or interleaved until the first (under) or the last (over, the
    others begin anew) is used up, or until all are (once, each row once)."""

    interleave_probs: list[NonNegativeFloat] | None = None
    """Probability of each dataset when interleaving, comma-separated; they are made to sum up to 1. `name@0.3` in
    `dataset` says the same. Default: they take turns."""

    max_samples: Positive | None = None
    """Most rows taken of each dataset. Default: all."""

    sample_strategy: Literal["first", "random"] = "first"
    """Which rows `max_samples` takes: the first ones, or a seeded random choice."""

    val_size: NonNegativeFloat = 0.0
    """Rows split off for evaluation: a fraction below 1, or a number of rows (with `streaming`, only that). Seeded; the
    same prompt is never on both sides."""

    eval_on_each_dataset: bool = False
    """Report evaluation for each dataset by itself."""

    packing: bool | Literal["contaminated"] = False
    """Fill rows with several samples that never see each other. `contaminated`: they do, as older tools let them."""

    batching: Literal["padded", "length_grouped", "token_budget"] = "padded"
    """How rows become micro-batches: as they come, rows of like length together, or as many as fit into a number of
    tokens."""

    preprocessing_num_workers: Positive | Literal["auto"] | None = None
    """Processes that prepare the data, at most one per core; `auto`: one per core. 1, the default, prepares in the
    main process."""

    preprocessing_batch_size: Positive = 1000
    """Rows prepared at once by one process."""

    disable_shuffling: bool = False
    """Train rows in the order of the data instead of a seeded random order."""

    overwrite_cache: bool = False
    """Prepare the data anew and replace what was prepared before."""

    disable_cache: bool = False
    """Neither read nor write prepared data."""

    tokenized_path: str | None = None
    """Folder of prepared data: read when it is there and fits the options, written when not."""

    strict: bool = False
    """Turn everything that is dropped, emptied or shortened into an error."""

    placeholders: Mapping = {}
    """Text for `{{key}}` in the rows of datasets that use them, as a mapping or JSON: `{"name": "Ada"}` replaces
    `{{name}}`. Other braces stay as they are."""

    data_augmentation: bool = False
    """Train seeded variations of prompts besides the rows themselves, with the same answers (docs/augmentation.md). Never for
    rows that are evaluated on."""

    augment: Mapping = {}
    """Which variations `data_augmentation` makes, as a mapping or JSON: copies, paraphrase, spaces, case, options,
    drop_system."""

    max_reported_rows: Count = 5
    """Rows named when some are dropped or cut; the rest is counted."""
