"""The local engine: answers with a transformers model in this process.  Knows tokens; knows no option and no terminal."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from tunesmith.generate.sampling import Sampling
from tunesmith.generate.stops import stops
from tunesmith.generate.text import AnswerText
from tunesmith.log import OptionError
from tunesmith.models import positions
from tunesmith.templates.conversation import Conversation

WORKER = "answer"
"""Name of the thread in which a streamed answer is made."""


class TransformersEngine:
    """Answers with `model`, which may be in training: mode and random states are left as they were found.

    `encode` gives the ids of a conversation up to where the answer begins.  An answer ends at `stop_tokens` and at the
    end tokens of tokenizer and model, and at `stop_words`: those the tokenizer has as control tokens, else as text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        encode: Callable[[Conversation], Sequence[int]],
        stop_words: Sequence[str] = (),
        stop_tokens: Iterable[int] = (),
    ):
        self.model = model
        self.tokenizer = tokenizer
        self._encode = encode
        self.stops = stops(model, tokenizer, stop_words, stop_tokens)
        self.longest: int | None = positions.reach(model.config)
        """Most tokens that the model reads, where it says so."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        """The answer in pieces.  Beam search decides at the end only, so its answer comes in one."""
        if sampling.num_beams > 1:
            yield self.answer(conversation, sampling)
            return
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        cancelled = threading.Event()
        prompt = self._prompt(conversation)

        def work() -> None:
            try:
                watch = _Watch([self.text(sampling)], pieces.put, cancelled)
                self.generate([prompt], sampling, watch)
                pieces.put(watch.texts[0].end())
                pieces.put(None)
            except BaseException as problem:  # raised again where the pieces are read
                pieces.put(problem)

        worker = threading.Thread(target=work, name=WORKER, daemon=True)
        worker.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                if piece:
                    yield piece
        finally:
            cancelled.set()
            worker.join()

    def answer(self, conversation: Conversation, sampling: Sampling) -> str:
        """The whole answer."""
        return self.answer_many([conversation], sampling)[0]

    def answer_many(self, conversations: Sequence[Conversation], sampling: Sampling, *, rows: int = 8) -> list[str]:
        """One answer per conversation, in their order.  Prompts of like length share a batch, padded on the left."""
        prompts = [self._prompt(conversation) for conversation in conversations]
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            watch = None
            if self.stops.texts and sampling.num_beams == 1:  # beams trade places, so their text can't be followed
                watch = _Watch([self.text(sampling) for _ in batch])
            made = self.generate([prompts[row] for row in batch], sampling, watch)
            for row, tokens in zip(batch, made, strict=True):
                text = self.text(sampling)
                answers[row] = "".join([*map(text.add, tokens), text.end()])
        return answers

    def _prompt(self, conversation: Conversation) -> Sequence[int]:
        ids = self._encode(conversation)
        if not ids:
            raise OptionError("prompt: there is nothing to answer; the template makes no token of it")
        if self.longest is not None and len(ids) >= self.longest:
            raise OptionError(f"prompt: the conversation has {len(ids)} tokens; the model reads at most {self.longest}")
        return ids

    def text(self, sampling: Sampling) -> AnswerText:
        """An answer that grows by tokens."""
        decode = partial(
            self.tokenizer.decode,
            skip_special_tokens=sampling.skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
        return AnswerText(decode, self.stops.tokens, self.stops.texts, show_stop=not sampling.skip_special_tokens)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, watch: "_Watch | None" = None
    ) -> list[list[int]]:
        """New tokens of each prompt, with the stop token and whatever fills up the batch after it."""
        device, pad = self.model.device, self.pad_token()
        width = max(map(len, prompts))
        input_ids = torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
        cuda = [device] if device.type == "cuda" else []
        with evaluating(self.model), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(sampling.seed)
            made = self.model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                generation_config=self._how(sampling, width),
                stopping_criteria=StoppingCriteriaList([watch] if watch else []),
            )
        return made[:, width:].tolist()

    def _how(self, sampling: Sampling, prompt_tokens: int) -> GenerationConfig:
        """The sampling in transformers' words.  All of it is written out, since what is not would come from the model's
        own `generation_config.json`; that file's end tokens are among ours already."""
        room = sampling.max_new_tokens if self.longest is None else self.longest - prompt_tokens
        how = {
            "max_new_tokens": min(sampling.max_new_tokens, room),
            "do_sample": not sampling.greedy,
            "num_beams": sampling.num_beams,
            "repetition_penalty": sampling.repetition_penalty,
            "eos_token_id": sorted(self.stops.tokens) or None,
            "pad_token_id": self.pad_token(),
            "use_cache": True,
        }
        if sampling.num_beams > 1:
            how["length_penalty"] = sampling.length_penalty
        if not sampling.greedy:
            how |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        return GenerationConfig(**how)

    def pad_token(self) -> int:
        """A token to fill rows up with; it is masked, so any will do where the tokenizer names none."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else min(self.stops.tokens, default=0)


class _Watch(StoppingCriteria):
    """Sees each token as it is made: hands text on, and stops rows whose answer has ended."""

    def __init__(
        self,
        texts: Sequence[AnswerText],
        on_text: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ):
        self.texts = texts
        self._on_text = on_text
        self._cancelled = cancelled

    def __call__(self, input_ids: Tensor, scores: object, **unused: object) -> Tensor:
        """`input_ids`: [rows, tokens so far].  Returns [rows], True where the answer has ended."""
        for text, token in zip(self.texts, input_ids[:, -1].tolist(), strict=True):
            piece = text.add(token)
            if self._on_text is not None:
                self._on_text(piece)
        stopped = self._cancelled is not None and self._cancelled.is_set()
        return torch.tensor([stopped or text.ended for text in self.texts], device=input_ids.device)


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, and then the mode that was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
