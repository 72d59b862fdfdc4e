"""Token ids of one growing answer in, text out that never has to be taken back.  Knows no model and no template."""

from collections.abc import Callable, Iterable

BROKEN = "\ufffd"
"""What decoding gives for bytes that are no character, or not one yet."""


class AnswerText:
    """Turns an answer's tokens into text piece by piece.

    A piece is given out when its characters are whole and no part of it can belong to a stop text.  An answer ends at a
    stop token or before a stop text; tokens added after that are ignored.  The stop token itself is text only with
    `show_stop`.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stop_tokens: Iterable[int] = (),
        stop_texts: Iterable[str] = (),
        *,
        show_stop: bool = False,
    ):
        self.ended = False
        self._show_stop = show_stop
        self._decode = decode
        self._stop_tokens = frozenset(stop_tokens)
        self._stop_texts = tuple(stop_texts)
        self._ids: list[int] = []
        self._context = 0  # tokens from here on are decoded, so that a token's text may depend on the one before it
        self._given = 0  # tokens up to here have been turned into text
        self._held = ""  # text that may yet turn out to be the start of a stop text

    def add(self, token: int) -> str:
        """The text that is certain once `token` is there, often empty."""
        if self.ended:
            return ""
        if token in self._stop_tokens and not self._show_stop:
            return self.end()
        self._ids.append(token)
        if token in self._stop_tokens:
            return self.end()
        text = self._decode(self._ids[self._context :])
        return "" if text.endswith(BROKEN) else self._fresh()

    def end(self) -> str:
        """What is left when no token follows; a character cut off in its middle becomes one mark for broken
        text."""
        if self.ended:
            return ""
        self.ended = True
        return self._fresh() + self._release()

    def _fresh(self) -> str:
        """Text of the tokens not yet given out, less what the stop texts hold back."""
        known = self._decode(self._ids[self._context : self._given])
        fresh = self._decode(self._ids[self._context :])[len(known) :]
        if fresh:  # tokens without text stay, so that the context never consists of them alone
            self._context, self._given = self._given, len(self._ids)
        return self._before_stop(self._held + fresh)

    def _before_stop(self, text: str) -> str:
        found = [place for stop in self._stop_texts if (place := text.find(stop)) >= 0]
        if found:
            self.ended, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._stop_texts), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _release(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` begins with, fewer than all of it."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
