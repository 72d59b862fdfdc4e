"""Which texts say nearly the same as an earlier one, in time that grows with their number only.  Knows words; knows no row.

MinHash (Broder, "On the resemblance and containment of documents", 1997): a text is the set of its runs of three words;
the share of equal minima of many hash functions over two sets estimates the sets' resemblance |A & B| / |A | B|.  Texts
are compared only where some band of their minima is equal (locality-sensitive hashing), so not each with each.
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np

HASHES, BANDS = 128, 16
RUN_WORDS = 3
FEWEST_RUNS = 10
"""Texts with fewer runs of words are never near duplicates: short answers resemble one another by nature."""

LIKENESS = 0.8
"""Share of equal minima from which texts are near duplicates."""

_WORD = re.compile(r"[㐀-鿿぀-ヿ가-힯]|[^\W㐀-鿿぀-ヿ가-힯]+")
_MOST_WORDS_KEPT = 1_000_000
_random = np.random.default_rng(1997)
_FACTORS = _random.integers(0, 2**32, HASHES, dtype=np.uint32) | np.uint32(1)
_OFFSETS = _random.integers(0, 2**32, HASHES, dtype=np.uint32)
_POSITIONS = _random.integers(0, 2**64, RUN_WORDS, dtype=np.uint64) | np.uint64(1)
_BAND_FACTORS = _random.integers(0, 2**64, HASHES // BANDS, dtype=np.uint64) | np.uint64(1)


@dataclass(frozen=True, slots=True)
class Likeness:
    """Text number `later` resembles `earlier`.  `share`: of equal minima, from LIKENESS to 1."""

    earlier: int
    later: int
    share: float


class _Hashes(dict[str, int]):
    """Words' hashes, remembered."""

    def __missing__(self, word: str) -> int:
        if len(self) > _MOST_WORDS_KEPT:
            self.clear()
        self[word] = crc32(word.encode("utf-8", "surrogatepass"))
        return self[word]


class Texts:
    """Texts as their minima, 512 bytes each, in the order they are added."""

    def __init__(self) -> None:
        self._hashes = _Hashes()
        self._parts: list[np.ndarray] = []
        self._numbers = array("q")
        self._count = 0

    def add(self, texts: Iterable[str]) -> None:
        """Take the next texts, best hundreds at a time."""
        words, lengths = array("L"), list[int]()
        for text in texts:
            found = [self._hashes[word] for word in _WORD.findall(text.lower())]
            if len(found) >= FEWEST_RUNS + RUN_WORDS - 1:
                words.extend(found)
                lengths.append(len(found))
                self._numbers.append(self._count)
            self._count += 1
        if lengths:
            self._parts.append(minima(np.array(words, dtype=np.uint64), np.array(lengths)))

    def alike(self) -> Iterator[Likeness]:
        """Each text that resembles an earlier one, once, with the earliest found, in order."""
        if not self._parts:
            return
        found = np.concatenate(self._parts)
        best: dict[int, tuple[int, float]] = {}
        for band in np.split(found, BANDS, axis=1):
            for earlier, later in _equal(_keys(band)):
                shares = (found[earlier] == found[later]).mean(axis=1)
                for one, other, share in zip(earlier, later, shares, strict=True):
                    if share >= LIKENESS and (other not in best or one < best[other][0]):
                        best[int(other)] = (int(one), float(share))
        for number in sorted(best):
            first, likeness = best[number]
            yield Likeness(self._numbers[first], self._numbers[number], likeness)


def minima(words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each text's minima, uint32 [texts, HASHES].  `words` uint64 [all words]; `lengths` [texts], each at least RUN_WORDS."""
    ends = np.cumsum(lengths)
    count = len(words) - RUN_WORDS + 1
    mixed = sum((words[at : at + count] * _POSITIONS[at] for at in range(RUN_WORDS)), np.zeros(count, np.uint64))
    mixed ^= mixed >> np.uint64(29)
    mixed *= _POSITIONS[0]
    inside = np.ones(len(words), dtype=bool)
    for at in range(1, RUN_WORDS):
        inside[ends - at] = False  # a run may not reach into the next text
    runs = (mixed >> np.uint64(32)).astype(np.uint32)[inside[:count]]
    starts = np.concatenate([[0], np.cumsum(lengths - RUN_WORDS + 1)[:-1]])
    found = np.empty((len(lengths), HASHES), dtype=np.uint32)
    for number in range(HASHES):
        found[:, number] = np.minimum.reduceat(runs * _FACTORS[number] + _OFFSETS[number], starts)
    return found


def _keys(band: np.ndarray) -> np.ndarray:
    """One number for each text's minima in a band, uint64 [texts]."""
    return (band.astype(np.uint64) * _BAND_FACTORS).sum(axis=1, dtype=np.uint64)


def _equal(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of texts with equal keys: each with the first of its kind, and with the one right before it."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    same = np.flatnonzero(sorted_keys[1:] == sorted_keys[:-1]) + 1
    if len(same):
        first = np.searchsorted(sorted_keys, sorted_keys[same], side="left")
        yield order[first], order[same]
        yield order[same - 1], order[same]
