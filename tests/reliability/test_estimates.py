"""Every architecture with formulas x full, LoRA, QLoRA x recomputed or not x three lengths: within 3 % of its trace."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "estimate"))

from agreement import LENGTHS, METHODS, both
from architectures import ARCHITECTURES

pytestmark = pytest.mark.reliability


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_formula_and_trace_agree(name: str, method: str, recomputed: bool, lengths: tuple[int, ...]) -> None:
    both(name, method, lengths, recomputed=recomputed).check()
