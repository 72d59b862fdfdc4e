"""Many prompts answered as fast as the model can: rows that end leave the batch, waiting ones take their places.

A row's answer does not depend on the rows beside it: what is drawn comes from its own number, and padding is masked.  A
trial decides whether a model can be asked so; one that cannot, such as one with a recurrent state, is asked by its own
`generate`, in batches of equally long prompts.  Knows models and tokens; knows no rows of data.
"""

import dataclasses
import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tunesmith.generate.draw import chances, next_tokens
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.slots import Slots
from tunesmith.generate.text import AnswerText
from tunesmith.generate.transformers import TransformersEngine, evaluating
from tunesmith.models.predict import ROUNDING

ROOM = {"cpu": 256 << 20, "cuda": 1 << 30}
"""Bytes of keys and values for which one row of `per_device_eval_batch_size` stands."""

ROWS = {"cpu": 8, "cuda": 32}
"""Rows answered at once for each one of it, at most: beyond, rows cost as much as they bring."""

PREFILL_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Tokens of prompts, with padding, that are read at once."""

REFILLED = 8
"""An eighth of the places is free before waiting rows are read: one by one they would hold the others up."""

CHANGING_ROPE = ("dynamic", "longrope")
"""Kinds of RoPE by which a long row changes what the model says of the rows beside it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """`number` decides what is drawn for it, and names it in what comes back."""

    number: int
    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """`tokens`: how many were made, a stop token among them."""

    number: int
    text: str
    tokens: int


@dataclass(slots=True)
class _Row:
    """An answer in the making."""

    prompt: Prompt
    limit: int
    text: AnswerText
    chances: np.ndarray
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def add(self, token: int) -> bool:
        """Take a token; True when the answer has ended."""
        self.tokens.append(token)
        self.pieces.append(self.text.add(token))
        return self.text.ended or len(self.tokens) == self.limit

    def answer(self) -> Answer:
        return Answer(self.prompt.number, "".join([*self.pieces, self.text.end()]), len(self.tokens))


def answers(
    engine: TransformersEngine, prompts: Sequence[Prompt], sampling: Sampling, *, batch_size: int
) -> Iterator[Answer]:
    """Answers as they are done, in any order.  `batch_size` (`per_device_eval_batch_size`) bounds memory.

    A prompt that fills all that the model reads is answered with nothing.
    """
    room = {prompt.number: _limit(engine, prompt, sampling) for prompt in prompts}
    for prompt in prompts:
        if not prompt.ids or room[prompt.number] < 1:
            yield Answer(prompt.number, "", 0)
    waiting = [prompt for prompt in prompts if prompt.ids and room[prompt.number] >= 1]
    # The longest first: what needs the most memory is there at once, and those that join later are shorter.
    waiting.sort(key=lambda prompt: len(prompt.ids), reverse=True)
    if not waiting:
        return
    with evaluating(engine.model):
        bytes_per_token = trial(engine.model) if sampling.num_beams == 1 else None
        if bytes_per_token is None:
            yield from _plainly(engine, waiting, sampling, batch_size)
            return
        tokens = max(len(prompt.ids) + room[prompt.number] for prompt in waiting)
        kind = engine.model.device.type
        fitting = batch_size * ROOM.get(kind, ROOM["cuda"]) // (bytes_per_token * tokens)
        rows = min(len(waiting), max(fitting, 1), batch_size * ROWS.get(kind, ROWS["cuda"]))
        yield from _Batch(engine, sampling, rows, tokens).answer(waiting, room)


def _limit(engine: TransformersEngine, prompt: Prompt, sampling: Sampling) -> int:
    """Most tokens of an answer."""
    room = sampling.max_new_tokens if engine.longest is None else engine.longest - len(prompt.ids)
    return min(sampling.max_new_tokens, room)


class _Batch:
    """Rows in the making, and the cache that has their places in the same order."""

    def __init__(self, engine: TransformersEngine, sampling: Sampling, rows: int, tokens: int):
        self.engine, self.sampling = engine, sampling
        self.model = _Asked(engine.model)
        self.live: list[_Row] = []
        self.places = rows
        self.slots = Slots(rows, tokens, self.model.device)
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(rows, self.model.vocabulary, dtype=torch.bool, device=self.model.device)

    def answer(self, prompts: Sequence[Prompt], room: dict[int, int]) -> Iterator[Answer]:
        """All answers; `room`: most tokens of each."""
        waiting = deque(prompts)
        while waiting or self.live:
            free = self.places - len(self.live)
            if waiting and (not self.live or free >= min(len(waiting), max(self.places // REFILLED, 1))):
                yield from self._take(len(self.live), self._read([*self._next(waiting, free)], room))
            else:
                yield from self._take(0, self._step())

    def _next(self, waiting: deque[Prompt], free: int) -> Iterator[Prompt]:
        """The prompts to read at once: the first is the longest, so its length is the width."""
        most = max(PREFILL_TOKENS.get(self.model.device.type, PREFILL_TOKENS["cuda"]) // len(waiting[0].ids), 1)
        for _ in range(min(free, most, len(waiting))):
            yield waiting.popleft()

    def _read(self, prompts: list[Prompt], room: dict[int, int]) -> Tensor:
        """Let prompts join as the last rows; what the model says at their ends, [rows, vocabulary]."""
        first = len(self.live)
        for prompt in prompts:
            drawn = np.zeros(0) if self.sampling.greedy else chances(self.sampling, prompt.number, room[prompt.number])
            self.live.append(_Row(prompt, room[prompt.number], self.engine.text(self.sampling), drawn))
        if self.seen is not None:
            for row, prompt in enumerate(prompts, start=first):
                self.seen[row] = False
                self.seen[row, torch.tensor(prompt.ids, device=self.seen.device)] = True
        return self.model.read([prompt.ids for prompt in prompts], self.slots, self.engine.pad_token())

    def _step(self) -> Tensor:
        """What the model says after each row's last token, [rows, vocabulary]."""
        return self.model.step([row.tokens[-1] for row in self.live], self.slots)

    def _take(self, first: int, logits: Tensor) -> Iterator[Answer]:
        """Choose a token of each row from `first` on; rows that end leave."""
        rows = self.live[-len(logits) :]
        first = len(self.live) - len(rows)
        chance = None
        if not self.sampling.greedy:
            chance = torch.tensor([row.chances[len(row.tokens)] for row in rows], dtype=torch.float32).to(logits.device)
        seen = None if self.seen is None else self.seen[first : len(self.live)]
        chosen = next_tokens(logits, self.sampling, chance, seen)
        if seen is not None:
            seen.scatter_(1, chosen[:, None], True)
        ended = [first + place for place, token in enumerate(chosen.tolist()) if rows[place].add(token)]
        for row in reversed(ended):
            yield self.live[row].answer()
            self._remove(row)

    def _remove(self, row: int) -> None:
        self.slots.remove(row)
        if self.seen is not None:
            self.seen[row] = self.seen[len(self.live) - 1]
        self.live[row] = self.live[-1]
        self.live.pop()


class _Asked:
    """A causal model's forward, with a cache, for the logits at the end of each row."""

    def __init__(self, model: PreTrainedModel | PeftModel):
        self.model = model.get_base_model() if isinstance(model, PeftModel) else model
        self.device: torch.device = self.model.device
        known = inspect.signature(self.model.forward).parameters
        self._positions = "position_ids" in known
        self._also = {name: 1 for name in ("logits_to_keep", "num_logits_to_keep") if name in known}
        self.vocabulary = int(self.model.config.get_text_config().vocab_size)

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]], slots: Slots, pad: int) -> Tensor:
        """Let prompts into the cache; logits [rows, vocabulary]."""
        lengths = [len(ids) for ids in prompts]
        width = max(lengths)
        ids = torch.tensor([[pad] * (width - len(each)) + list(each) for each in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths], device=self.device)
        cache = DynamicCache()
        logits = self._said(ids, mask, (mask.cumsum(1) - 1).clamp_min(0), cache)
        slots.add(cache, lengths)
        return logits

    @torch.no_grad()
    def step(self, tokens: Sequence[int], slots: Slots) -> Tensor:
        """One more token of each row; logits [rows, vocabulary]."""
        mask, positions = slots.step()
        logits = self._said(torch.tensor(tokens, device=self.device)[:, None], mask, positions, slots)
        slots.stepped()
        return logits

    def _said(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache | Slots) -> Tensor:
        also = self._also | ({"position_ids": positions} if self._positions else {})
        said = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **also)
        logits: Tensor = said.logits[:, -1]
        return logits


@torch.no_grad()
def trial(model: PreTrainedModel | PeftModel) -> int | None:
    """Bytes of keys and values of one token, when rows of different lengths that join and leave get the logits that each
    gets alone; None when they do not."""
    asked = _Asked(model)
    config = asked.model.config.get_text_config().to_dict()
    if config.get("attention_chunk_size") or any(kind in str(config.get("rope_parameters")) for kind in CHANGING_ROPE):
        return None
    first, second = [2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5]
    try:
        truth = [asked.model(input_ids=torch.tensor([ids], device=asked.device)).logits[0] for ids in (first, second)]
        slots = Slots(2, 8, asked.device)
        found = [asked.read([first[:4]], slots, 0)[0], asked.step(first[4:5], slots)[0]]
        found += [asked.read([second[:3]], slots, 0)[0], *asked.step([first[5], second[3]], slots)]
        slots.remove(0)
        found += [asked.step(second[4:], slots)[0]]
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, NotImplementedError):
        return None  # what models raise that keep something else than keys and values
    wanted = [truth[0][3], truth[0][4], truth[1][2], truth[0][5], truth[1][3], truth[1][4]]
    apart = (torch.stack(found).float() - torch.stack(wanted).float()).abs().max()
    if not bool(apart <= ROUNDING[truth[0].dtype] * torch.stack(truth[:1]).float().std()):
        return None
    kept = [each for layer in slots.layers for each in (layer.keys, layer.values)]
    return sum(each.shape[1] * each.shape[3] * each.element_size() for each in kept)


def _plainly(
    engine: TransformersEngine, prompts: Sequence[Prompt], sampling: Sampling, batch_size: int
) -> Iterator[Answer]:
    """Answers by the model's own `generate`: of equally long prompts together, or one by one when tokens are drawn."""
    size = batch_size if sampling.greedy else 1
    start = 0
    while start < len(prompts):
        length = len(prompts[start].ids)
        batch = [prompt for prompt in prompts[start : start + size] if len(prompt.ids) == length]
        start += len(batch)
        own = dataclasses.replace(sampling, seed=_seed(sampling, batch[0]))
        made = engine.generate([prompt.ids for prompt in batch], own)
        for prompt, tokens in zip(batch, made, strict=True):
            row = _Row(prompt, len(tokens), engine.text(sampling), np.zeros(0))
            for token in tokens:
                if row.add(token):
                    break
            yield row.answer()


def _seed(sampling: Sampling, prompt: Prompt) -> int:
    """A seed of the row's own."""
    return int(np.random.default_rng([sampling.seed, prompt.number]).integers(2**63))
