"""Bytes alive are those of storages that were made, as long as something holds them."""

import torch

from tunesmith.estimate.live import Live


def test_views_and_what_was_there_count_nothing() -> None:
    old = torch.zeros(1000)
    with Live() as live:
        assert (old.view(10, 100).t() is not None, live.now) == (True, 0)
        made = old + 1
        views = made[:10], made.view(-1, 2)
        assert (live.now, live.peak) == (4000, 4000)
        made = made.double()
        assert (live.now, live.peak) == (12000, 12000)
        del views
        assert (live.now, live.peak) == (8000, 12000)
    del made
    assert live.now == 0


def test_what_the_backward_pass_needs_is_alive() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with Live() as live:
        result = (weight * weight).exp().sum()
        assert live.now == 4004  # exp keeps its result, its input is gone
        result.backward()
        del result
        assert live.now == 4000  # the gradient
        assert live.peak >= 12000
