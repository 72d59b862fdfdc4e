"""What optimizers keep about each weight, by name.  Knows numbers; knows no tensor."""

COUNTER = 4
"""Bytes of a step counter."""

KEPT: dict[str, tuple[int, int]] = {
    "adamw_torch": (2, 1),
    "adamw_torch_fused": (2, 1),
    "adamw": (2, 1),
    "adam": (2, 1),
    "adamax": (2, 1),
    "nadam": (2, 2),
    "radam": (2, 1),
    "adagrad": (1, 1),
    "adadelta": (2, 1),
    "rmsprop": (1, 1),
    "rprop": (2, 1),
    "sgd": (0, 0),
}
"""Optimizer -> copies of each trained weight in its own format, and single numbers beside each tensor."""

IN_ONE_PASS = ("adamw_torch", "adamw_torch_fused", "adamw", "adam", "adagrad", "sgd")
"""Those that pass over weights and moments in one kernel, and need nothing besides."""


def kept_bytes(optimizer: str, numbers: int, tensors: int, itemsize: int) -> int:
    """Bytes between steps.  Raises KeyError for an optimizer that is not in the table."""
    copies, counters = KEPT[optimizer]
    return copies * numbers * itemsize + counters * COUNTER * tensors


def moving_bytes(optimizer: str, numbers: int, itemsize: int, kind: str) -> int:
    """Bytes that a step needs beyond those: on a GPU a list of tensors as large as all that is trained."""
    return 0 if kind == "cpu" or optimizer in IN_ONE_PASS else numbers * itemsize
