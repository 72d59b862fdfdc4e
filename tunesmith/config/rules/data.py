"""What may not go together about rows: which are read, split off, streamed and answered."""

from collections.abc import Iterator

from tunesmith.config.rules.asked import Asked, Finding

GENERATED = ("exact_match", "f1", "rouge", "bleu")
"""Metrics that rows are answered for."""

ANSWERING = ("assistant", "function")
"""Roles whose messages are answers."""


def two_evaluation_sets(asked: Asked) -> Iterator[Finding]:
    """Splitting rows off while other rows are named for evaluation leaves open which are meant."""
    if asked.config.data.val_size and asked.config.data.eval_dataset:
        text = "rows are split off, but eval_dataset names evaluation data already; leave one out"
        yield Finding("error", ("val_size", "eval_dataset"), text)


def stream(asked: Asked) -> Iterator[Finding]:
    """Of a stream nobody knows the length, nor any row but those that were read."""
    data, train = asked.config.data, asked.config.train
    if not data.streaming or asked.command == "lint":
        return
    if train.max_steps in (None, -1):
        yield Finding("error", ("streaming", "max_steps"), "needs max_steps")
    if 0 < data.val_size < 1:
        text = f"{data.val_size:g} is a share of rows whose number is not known; give a number of rows"
        yield Finding("error", ("val_size", "streaming"), text)
    if data.max_samples and data.sample_strategy == "random":
        text = "random needs to read all rows first; first takes the first ones"
        yield Finding("error", ("sample_strategy", "streaming"), text)
    if data.batching == "length_grouped":
        text = "length_grouped needs the lengths of all rows; padded and token_budget go with streaming"
        yield Finding("error", ("batching", "streaming"), text)
    if data.tokenized_path:
        yield Finding("error", ("tokenized_path", "streaming"), "nothing is prepared beforehand; leave one out")
    for name in ("save_strategy", "eval_strategy"):
        if asked.flat[name] == "epoch":
            text = "an epoch's end is not known beforehand; choose steps"
            yield Finding("error", (name, "streaming"), text)


def sets_of_a_stream(asked: Asked) -> Iterator[Finding]:
    """Rows that are held out of a stream come as they are read."""
    data = asked.config.data
    if data.eval_on_each_dataset and data.streaming and data.val_size:
        text = "has no effect on rows that val_size holds out of a stream; name eval_dataset instead"
        yield Finding("warning", ("eval_on_each_dataset", "streaming"), text)


def evaluation_without_data(asked: Asked) -> Iterator[Finding]:
    """Evaluation needs rows."""
    if asked.command != "train" or asked.config.data.val_size or asked.config.data.eval_dataset:
        return
    for name in ("eval_steps", "eval_strategy", "eval_on_start", "eval_delay", "do_eval"):
        if asked.wrote(name) and asked.flat[name] != "no":
            text = "has no effect without evaluation data: set val_size or eval_dataset"
            yield Finding("warning", (name, "eval_dataset"), text)


def answers(asked: Asked) -> Iterator[Finding]:
    """Rows are answered that have a question, and of which it is known where their answer begins."""
    train, data = asked.config.train, asked.config.data
    generated = [name for name in train.metrics if name in GENERATED]
    options = [("do_predict", train.do_predict), ("predict_with_generate", train.predict_with_generate)]
    written = [name for name, is_set in [*options, ("metrics", bool(generated))] if is_set]
    if asked.command != "train" or not written:
        return
    if not (data.val_size or data.eval_dataset):
        yield Finding(
            "error", (written[0], "eval_dataset"), "there are no rows to answer: set eval_dataset or val_size"
        )
    if train.stage == "pt":
        yield Finding(
            "error", (written[0], "stage"), "plain text, as in the stage pt, asks nothing that can be answered"
        )
    if data.train_on_prompt or not set(data.train_roles) <= set(ANSWERING):
        option = "train_on_prompt" if data.train_on_prompt else "train_roles"
        text = (
            f"where an answer begins is not known when prompts are trained too ({option}); answer in a run of its own"
        )
        yield Finding("error", (written[0], option), text)
