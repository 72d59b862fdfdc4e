"""A message's weight reaches each of its tokens, through encoding, cutting, the store, packing and batches; without one
nothing changes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_formats import ChatML
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.batching.collate import join, pad
from tunesmith.data.batching.pack import Packed
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.keeping import store
from tunesmith.data.keeping.arrays import ArraySamples, Rows, joined
from tunesmith.data.keeping.prepare import Preparer
from tunesmith.data.reading.files import Row
from tunesmith.data.reading.formats import Reader
from tunesmith.data.reading.sources import Columns, Shape, Tags
from tunesmith.data.sample import IGNORED
from tunesmith.templates.conversation import Conversation, Message

SHAPE = Shape("sharegpt", Columns(messages="conversations"), Tags())


def talk(*losses: Any) -> dict[str, Any]:
    """Questions and answers; each answer says its loss unless that is None."""
    messages: list[dict[str, Any]] = []
    for number, loss in enumerate(losses):
        messages.append({"from": "human", "value": f"question {number}"})
        messages.append({"from": "gpt", "value": f"answer {number}"} | ({} if loss is None else {"loss": loss}))
    return {"conversations": messages}


def prepared(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]], **options: Any) -> Rows:
    encoder = Encoder(tokenizer, ChatML(), DataConfig(**options))
    numbered = [Row(values, "a.json", number) for number, values in enumerate(rows, start=1)]
    return Preparer(encoder, "conversation", strict=False)(Reader(SHAPE), numbered).rows


def trained_weights(samples: ArraySamples) -> list[list[float] | None]:
    """Of each sample the different weights of its trained tokens, in order; None for a sample without."""
    found: list[list[float] | None] = []
    for number in range(len(samples)):
        sample = samples[number]
        weights = sample.weights
        if weights is not None:
            assert weights.dtype == np.float32 and ((weights == 0) == (sample.labels == IGNORED)).all()
        found.append(None if weights is None else list(dict.fromkeys(weights[weights != 0].tolist())))
    return found


def test_only_rows_with_fractions_have_weights(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    rows = prepared(tiny_tokenizer, [talk(None), talk(0.5, 2, None), talk(0, 1), talk(0.25, False), talk(0.0)])
    assert rows.trained.dtype == np.bool_ and rows.weights is not None and rows.weights.dtype == np.float32
    assert trained_weights(ArraySamples(rows)) == [None, [0.5, 2, 1], None, [0.25]]  # the last has nothing to train


def test_whole_weights_are_truth_values_to_the_bit(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    numbers = prepared(tiny_tokenizer, [talk(1.0, 0.0, 1), talk(None, 1)])
    truths = prepared(tiny_tokenizer, [talk(True, False, True), talk(None, True)])
    assert numbers.weights is None and truths.weights is None
    assert ArraySamples(numbers).fingerprint() == ArraySamples(truths).fingerprint()


def test_weights_are_in_the_fingerprint(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    prints = {ArraySamples(prepared(tiny_tokenizer, [talk(loss)])).fingerprint() for loss in (1, 0.5, 0.25)}
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("options", "weights"),
    [({"mask_history": True}, [0.25]), ({"train_on_prompt": True}, [1, 0.5, 0.25]), ({"train_roles": ["user"]}, [1, 0.5, 0.25])],
)  # fmt: skip
def test_options_of_the_mask_widen_and_narrow_weights_as_truth_values(
    tiny_tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], weights: list[float]
) -> None:
    weighted = prepared(tiny_tokenizer, [talk(0.5, 0.25)], **options)
    assert trained_weights(ArraySamples(weighted)) == [weights]
    assert (weighted.trained == prepared(tiny_tokenizer, [talk(True, True)], **options).trained).all()


def test_a_long_row_keeps_the_weights_of_what_stays(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = Encoder(tiny_tokenizer, ChatML(), DataConfig(cutoff_len=40))
    messages = (Message("user", "word " * 40), Message("assistant", "answer " * 3, 0.5))
    ((ids, weights),) = encoder.encode([[Conversation(messages)]]).samples[0]
    assert len(ids) == len(weights) <= 40 and set(weights.tolist()) == {0, 0.5}


def parts(tokenizer: PreTrainedTokenizerBase) -> list[Rows]:
    return [prepared(tokenizer, [talk(loss)]) for loss in (None, True, 0.5, None, 0.25)]


def test_the_store_holds_weights_from_the_first_to_the_last_token(
    tiny_tokenizer: PreTrainedTokenizerBase, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ONES", 3)

    def prepare() -> Iterator[Rows | dict[str, Any]]:
        yield from parts(tiny_tokenizer)
        yield {}

    written = ArraySamples(store.cached("mine", {"a": 1}, prepare, anew=False).rows)
    together = ArraySamples(joined(parts(tiny_tokenizer)))
    at_once = ArraySamples(prepared(tiny_tokenizer, [talk(loss) for loss in (None, True, 0.5, None, 0.25)]))
    for samples in (written, together, at_once):
        assert trained_weights(samples) == [None, None, [0.5], None, [0.25]]
    assert written.rows.weights.tolist() == together.rows.weights.tolist() == at_once.rows.weights.tolist()
    assert written.fingerprint() == together.fingerprint() == at_once.fingerprint()
    next(own_cache.rglob("weights.bin")).unlink()
    again = ArraySamples(store.cached("mine", {"a": 1}, prepare, anew=False).rows)
    assert trained_weights(again) == trained_weights(written)


def test_a_store_without_fractions_has_no_weights(tiny_tokenizer: PreTrainedTokenizerBase, own_cache: Path) -> None:
    stored = store.cached("mine", {"a": 1}, lambda: iter([prepared(tiny_tokenizer, [talk(1.0)]), {}]), anew=False)
    assert stored.rows.weights is None and not list(own_cache.rglob("weights.bin"))


def test_batches_weigh_the_same_padded_packed_and_in_one_row(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    samples = ArraySamples(joined(parts(tiny_tokenizer)))
    padded = pad([samples[row] for row in range(5)], range(5), pad_id=0, multiple_of=64)
    assert padded.target_weights is not None and set(padded.target_weights.tolist()) == {0.25, 0.5, 1.0}
    tokens = [int((samples[row].labels[1:] != IGNORED).sum()) for row in range(5)]
    expected = sum(w * n for w, n in zip((1, 1, 0.5, 1, 0.25), tokens, strict=True))
    assert padded.loss_weight == expected and padded.loss_tokens == sum(tokens)
    packed = Packed(samples, 64, seed=0)
    rows = range(len(packed))
    for batch in (pad([packed[row] for row in rows], rows, pad_id=0), join([packed[row] for row in rows], rows)):
        assert batch.packed and batch.loss_weight == expected and batch.target_weights is not None
    assert join([samples[row] for row in range(5)], range(5)).loss_weight == expected


def test_a_batch_without_fractions_has_no_weights(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    samples = ArraySamples(joined(parts(tiny_tokenizer)))
    batch = pad([samples[0], samples[3]], (0, 3), pad_id=0)
    assert batch.target_weights is None and batch.loss_weight == batch.loss_tokens
    packed = Packed(samples.choose(np.array([0, 1, 3])), 512, seed=0)
    assert packed[0].weights is None
