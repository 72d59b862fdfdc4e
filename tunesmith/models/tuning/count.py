"""How many weights are trained, of how many.  Knows nothing else."""

from torch import nn


def trainable(model: nn.Module) -> tuple[int, int]:
    """`(trained, total)` weights; a tied weight counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
