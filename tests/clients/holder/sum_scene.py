"""Four data holders in one run that tolerates one drop-out, and a coordinator that may say anything to them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from clients.holder.node import Holder
from experiments.session import Session
from federated.messages import (
    Dealt,
    Delivery,
    Introduction,
    Joined,
    Letter,
    Received,
    Revealed,
    SumKeys,
    Unmasking,
    Update,
    encode_header,
)
from privacy.grid import Words
from tests.ready import ASTER, AT, BIRCH, CEDAR, Ready, first_instruction, joined_by

DAHLIA = "dahlia-stores"
FOUR = (ASTER, BIRCH, CEDAR, DAHLIA)


def refused_with(letter: Letter) -> str | None:
    """The code of a refusal; None for any other answer."""
    return getattr(letter.header, "code", None)


class SumScene:
    """Everybody is there; nothing was said yet."""

    def __init__(self, ready: Ready) -> None:
        self.ready = ready
        self.session: Session = ready.session()
        self.opening = ready.opening()

    def restart(self) -> None:
        self.session.close()
        self.session = self.ready.session()

    def holder(self, name: str = ASTER) -> Holder:
        return self.session.holders[name]

    def ask(self, header: Any, name: str = ASTER, *, at: int = AT) -> Letter:
        return self.holder(name).answer(Letter(header), at=at)

    def joined(self) -> dict[str, Joined]:
        return {name: holder.join(self.opening, at=AT) for name, holder in self.session.holders.items()}

    def introduction(self, **replaced: SumKeys) -> Introduction:
        joined = self.joined()
        keys = {name: header.keys for name, header in joined.items() if header.keys is not None}
        return Introduction(joined[ASTER].run, keys | replaced)

    def dealt(self, introduction: Introduction) -> dict[str, Dealt]:
        answers = {name: self.ask(introduction, name).header for name in introduction.joined}
        return {name: header for name, header in answers.items() if isinstance(header, Dealt)}

    def delivery(self, dealt: dict[str, Dealt], members: Sequence[str] = FOUR, to: str = ASTER) -> Delivery:
        sealed = {name: dealt[name].sealed[to] for name in members if name != to}
        return Delivery(dealt[ASTER].run, list(members), sealed)

    def begun(self) -> Letter:
        """The instruction of round 1, once everybody holds everybody's shares."""
        return first_instruction(self.ready, joined_by(self.session.holders, self.opening))

    def update(self, letter: Letter, name: str = ASTER) -> Update:
        header = self.holder(name).answer(letter, at=AT).header
        assert isinstance(header, Update), header
        return header

    def words(self, letter: Letter, name: str = ASTER) -> Words:
        answer = self.holder(name).answer(letter, at=AT)
        assert isinstance(answer.header, Update), answer.header
        return np.asarray(answer.arrays["words"])

    def reveal(self, letter: Letter, survivors: Sequence[str] = FOUR, name: str = ASTER, *, stage: int = 1) -> Letter:
        return self.ask(Unmasking(run_named(letter), stage, list(survivors)), name)

    def entries(self, name: str = ASTER) -> int:
        return self.holder(name).ledger.head.size


def run_named(letter: Letter) -> str:
    run: str = msgspec.structs.asdict(letter.header)["run"]
    return run


def revealed(letter: Letter) -> Revealed:
    assert isinstance(letter.header, Revealed), letter.header
    return letter.header


def received(letter: Letter) -> Received:
    assert isinstance(letter.header, Received), letter.header
    return letter.header


def as_bytes(letter: Letter) -> bytes:
    return encode_header(letter.header) + b"".join(array.tobytes() for _, array in sorted(letter.arrays.items()))
