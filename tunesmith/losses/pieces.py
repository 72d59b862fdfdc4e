"""In which pieces the loss is computed from hidden states, and what that takes.  Knows numbers; imports no torch."""

CHUNK = {"cpu": 1 << 26, "cuda": 1 << 28}
"""Bytes of logits held at once, by device."""

BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Logits turned into probabilities at once: what fits into a CPU's cache; on a GPU so many that a
call costs less than its work."""


PART = 1 << 13
"""Rows of a head's gradient that are made at once where it is held in another format than it is computed in."""


EVEN = 32
"""Of what numbers of tokens are made multiples where a product has to be built for each number, and then the pieces too."""


def at_once(tokens: int, vocabulary: int, kind: str, itemsize: int) -> int:
    """Tokens whose logits, of so many bytes each, are held at once: all pieces of one size, for a small rest would cost as much as a whole one."""
    pieces = -(-tokens // max(1, CHUNK[kind] // (vocabulary * itemsize)))
    size = -(-tokens // max(1, pieces))
    return size if tokens % EVEN else -(-size // EVEN) * EVEN


def most_bytes(
    tokens: int,
    vocabulary: int,
    width: int,
    *,
    kind: str,
    itemsize: int,
    held: int,
    trained: bool,
    softcap: bool = False,
    anchored: bool = False,
) -> int:
    """Bytes that the loss of so many tokens takes at the most on a device of this kind, its gradients included.  `itemsize`:
    bytes of a number as computed; `held`: of one of the head's, which may be `trained`.  `anchored`: it is a TokenLoss that
    compares with logits from before."""
    numbers = vocabulary * width
    chunk = at_once(tokens, vocabulary, kind, itemsize)
    block = min(chunk, max(1, BLOCK[kind] // vocabulary)) * vocabulary
    # Exact logits; probabilities, or what a TokenLoss makes of them (its own logarithms and differences where it compares).
    beside = 20 if anchored else 4
    shares = block * (4 + (8 if softcap else 0) + beside)
    if anchored:  # all logits from before, made in the format that is computed in
        cast = 0 if itemsize == 4 else chunk * vocabulary * itemsize
        shares = max(shares, cast) + 4 * chunk * vocabulary + tokens * width * itemsize
    head = 0 if held == itemsize else numbers * itemsize * (2 if anchored else 1)
    gradient = numbers * held if trained else 0
    product = min(PART, vocabulary) * width * itemsize if trained and held != itemsize else 0
    return head + gradient + tokens * width * itemsize + chunk * vocabulary * itemsize + max(shares, product)
