"""Which rows each optimizer step trains, and how they fall into micro-batches and ranks.  Knows rows' numbers and lengths;
knows no token."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

FILLER = -1
"""The number of a row that only fills up a rank; nothing in it is trained."""

NEIGHBOURS = 64
"""Windows among whose rows those of like length are looked for: more would group better and shuffle less."""

FEWEST_TOKENS = {"cpu": 1 << 10, "cuda": 1 << 11}
"""Device -> tokens that rows without padding are computed together up to in any case, as far as `batch_size` rows of
`row_tokens` might take as much room: fewer leave it waiting."""

Way = Literal["padded", "length_grouped", "token_budget"]


@dataclass(frozen=True, slots=True)
class Order:
    """The order of `rows` rows in each epoch: the same on every machine, whatever came before."""

    rows: int
    seed: int
    shuffle: bool = True

    def epoch(self, number: int) -> np.ndarray:
        """Rows' numbers in the order of epoch `number` (from 0), int64 [rows]."""
        if not self.shuffle:
            return np.arange(self.rows)
        return np.random.default_rng([self.seed, number]).permutation(self.rows)


@dataclass(frozen=True, slots=True)
class Division:
    """How rows become windows (one optimizer step over all ranks) and those micro-batches.

    Which rows a window holds depends on `batch_size * accumulation * ranks` alone, however that is divided; every
    epoch has equally many windows and holds every row once."""

    batch_size: int
    accumulation: int
    ranks: int
    seed: int
    shuffle: bool
    way: Way = "padded"
    row_tokens: int = 0
    """Most tokens of a row.  With `token_budget` a micro-batch has room for `batch_size` such rows, padding included."""
    padded: bool = True
    """Rows of a micro-batch are padded to the longest; otherwise only their own tokens take room."""
    merged: int = 0
    """Not 0: a micro-batch holds as many rows as have room where `batch_size` padded ones as long as the window's longest
    would lie, or so many tokens; nothing is padded."""
    whole: bool = False
    """The last rows of an epoch's order that fill no micro-batch on every rank are left out; not with `token_budget`."""

    @property
    def window_rows(self) -> int:
        """Rows of a window; with `token_budget`, so many rows of `row_tokens` tokens have room in one."""
        return self.batch_size * self.accumulation * self.ranks

    def per_epoch(self, lengths: np.ndarray) -> int:
        """Windows of an epoch over rows of `lengths` tokens; the last may be short."""
        if self.way == "token_budget":
            return max(1, int(lengths.sum(dtype=np.int64)) // (self.window_rows * self.row_tokens))
        return windows_per_epoch(self.used(len(lengths)), self.window_rows)

    def used(self, rows: int) -> int:
        """How many of so many rows an epoch trains."""
        return rows // (self.batch_size * self.ranks) * (self.batch_size * self.ranks) if self.whole else rows

    def epoch(self, lengths: np.ndarray, number: int, start: int = 0) -> Iterator[np.ndarray]:
        """The rows of each window of epoch `number`, from window `start` on."""
        order = Order(len(lengths), self.seed, self.shuffle).epoch(number)
        if self.way == "token_budget":
            ends = _equal_tokens(order, lengths, self.per_epoch(lengths))
        else:
            order = order[: self.used(len(order))]
            if self.way == "length_grouped":
                order = self._grouped(order, lengths, number)
            ends = np.arange(0, len(order), self.window_rows)[1:]
        bounds = np.concatenate([[0], ends, [len(order)]])[start:]
        return (order[first:last] for first, last in pairwise(bounds))

    def micro_batches(self, rows: np.ndarray, lengths: np.ndarray, rank: int) -> list[list[int]]:
        """One rank's share of a window's rows; all ranks get equally many micro-batches, FILLER alone where nothing is
        left for one."""
        if self.way == "token_budget":
            order = _longest_first(rows, lengths)
            batches = _within(order, lengths, self.batch_size * self.row_tokens, padded=self.padded)
            shares = [batches[each :: self.ranks] for each in range(self.ranks)]
        elif self.merged:
            room = self.room(int(lengths[rows].max()))
            shares = [_level(rows[each :: self.ranks], lengths, room) for each in range(self.ranks)]
        else:
            return divide(rows, self.batch_size, self.ranks, rank)
        return shares[rank] + [[FILLER]] * (max(map(len, shares)) - len(shares[rank]))

    def room(self, longest: int) -> int:
        """Most tokens of a micro-batch, padding included, in a window whose longest row has `longest`."""
        if self.way == "token_budget":
            return self.batch_size * self.row_tokens
        own = self.batch_size * longest
        return max(own, min(self.merged, self.batch_size * self.row_tokens)) if self.merged else own

    def _grouped(self, order: np.ndarray, lengths: np.ndarray, number: int) -> np.ndarray:
        """An epoch's order in which rows of a window are of like length, the longest first; the windows in random order,
        the short last one of any lengths.  Without shuffling each window keeps its rows."""
        size = self.window_rows
        reach = size * (NEIGHBOURS if self.shuffle else 1)
        whole = len(order) // size * size
        piece = np.arange(whole) // reach
        # Sorted by piece, in a piece by length: in one call, as there may be very many pieces.
        windows = order[np.lexsort((-lengths[order[:whole]].astype(np.int64), piece))].reshape(-1, size)
        if self.shuffle:
            windows = windows[np.random.default_rng([self.seed, number, *b"windows"]).permutation(len(windows))]
        return np.concatenate([windows.reshape(-1), _longest_first(order[whole:], lengths)])


def windows_per_epoch(rows: int, window_rows: int) -> int:
    """Windows in an epoch of `rows` rows, `window_rows` in each; the last may be short."""
    return -(-rows // window_rows)


def divide(rows: np.ndarray, batch_size: int, ranks: int, rank: int) -> list[list[int]]:
    """One rank's share of a window's rows as micro-batches; FILLER alone where nothing is left for it."""
    turns = -(-len(rows) // (batch_size * ranks))
    starts = ((turn * ranks + rank) * batch_size for turn in range(turns))
    return [rows[start : start + batch_size].tolist() or [FILLER] for start in starts]


def _longest_first(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-lengths[rows].astype(np.int64), kind="stable")]


def _equal_tokens(order: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    """Where to cut `order` into `count` windows of about equally many tokens, int64 [count - 1]: a row belongs to the window
    in which its middle lies.

    In whole numbers, so that it is the same everywhere.  None is empty as long as no row is longer than a window."""
    sizes = lengths[order].astype(np.int64)
    ends = np.cumsum(sizes)
    window_of = (2 * ends - sizes) * count // (2 * int(ends[-1]))
    return np.searchsorted(window_of, np.arange(1, count))


def _within(rows: np.ndarray, lengths: np.ndarray, budget_tokens: int, *, padded: bool) -> list[list[int]]:
    """Micro-batches of rows in their order, whose tokens stay within the budget; `padded`: those of padding too."""
    batches: list[list[int]] = []
    longest = taken = 0
    for row in rows.tolist():
        tokens = int(lengths[row])
        longest, taken = max(longest, tokens), taken + tokens
        if not batches or (longest * (len(batches[-1]) + 1) if padded else taken) > budget_tokens:
            batches.append([])
            longest = taken = tokens
        batches[-1].append(row)
    return batches


def _level(rows: np.ndarray, lengths: np.ndarray, room_tokens: int) -> list[list[int]]:
    """As few micro-batches as can be found whose tokens have room, of about equally many tokens each: the longest row
    first, each into the one that holds least."""
    in_order = _within(rows, lengths, room_tokens, padded=False)
    fewest = -(-int(lengths[rows].sum()) // room_tokens)
    for count in range(fewest, len(in_order) + 1):
        batches: list[list[int]] = [[] for _ in range(count)]
        taken = [0] * count
        for row in _longest_first(rows, lengths).tolist():
            least = taken.index(min(taken))
            batches[least].append(row)
            taken[least] += int(lengths[row])
        if max(taken, default=0) <= room_tokens and all(batches):
            return batches
    return in_order
