"""How the coordinator reaches data holders, whatever carries the messages."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from federated.messages import Letter


class Act(StrEnum):
    """What a letter asks for, in Flower's words: its category decides which handler of the app runs."""

    QUERY = "query"
    TRAIN = "train"
    EVALUATE = "evaluate"


class Channel(Protocol):
    """Letters out, letters back."""

    def nodes(self) -> list[int]:
        """The nodes that are online now, sorted."""
        ...

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        """The answers that came before the deadline, by node. A node that failed or stayed silent is not in it."""
        ...
