"""What differs between stages: how a row is encoded, and the objective.  Everything else is the same loop."""

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.train.objectives import NextToken, Objective


@dataclass(frozen=True, slots=True)
class Stage:
    """`objective` makes the cost of a batch; `chats`: rows are conversations, written in a chat format."""

    objective: Callable[[], Objective]
    chats: bool


pt = Stage(NextToken, chats=False)
sft = Stage(NextToken, chats=True)
