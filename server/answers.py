"""Data holders' answers held against what was asked: one that does not fit leaves its sender out, and nobody else."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from federated.messages import (
    Dealt,
    Header,
    Joined,
    LedgerMark,
    Letter,
    Received,
    Refused,
    Revealed,
    SumKeys,
    Update,
    array_of,
)
from federated.releases import (
    dealing_statement,
    joined_statement,
    reveal_statement,
    sum_keys_statement,
    update_statement,
)
from privacy.consent.limits import DIGEST_BYTES
from privacy.consent.signing import PayloadType, verify
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from privacy.secure_sum.keys import PublicKeys
from privacy.secure_sum.locks import ENTRY_BYTES
from privacy.secure_sum.member import Reveal
from privacy.secure_sum.secrets import sealed_bytes

MOST_NAMED: Final = 10
LONGEST_LEDGER: Final = 2**53

Answer = TypeVar("Answer")
Kind = TypeVar("Kind", bound=Joined | Dealt | Received | Update | Revealed)


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a data holder is left out: the code with which it refused, or what was wrong with its answer."""

    reason: str
    code: RefusalCode

    @classmethod
    def of(cls, error: FedcreditError) -> Self:
        """The absence of whoever sent what raised `error`."""
        return cls(str(error), error.code if isinstance(error, RefusalError) else RefusalCode.INTEGRITY)


SILENT: Final = Absence("no answer before the deadline, or none that can be read", RefusalCode.COHORT)


def sort_out(
    answers: Mapping[int, Letter], nodes: Mapping[str, int], read: Callable[[Letter, str], Answer]
) -> tuple[dict[str, Answer], dict[str, Absence]]:
    """By data holder of `nodes`, sorted: the answers that `read` takes, and why the others are left out."""
    valid, absent = dict[str, Answer](), dict[str, Absence]()
    for holder, node in sorted(nodes.items()):
        answer = answers.get(node)
        if answer is None:
            absent[holder] = SILENT
            continue
        try:
            valid[holder] = read(answer, holder)
        except FedcreditError as error:
            absent[holder] = Absence.of(error)
    return valid, absent


def told(absent: Mapping[str, Absence]) -> str:
    """Who is left out and why, for people; of many, the first few and how many more."""
    named = [f"{holder}: {absence.reason}" for holder, absence in sorted(absent.items())]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return ", ".join(named[:MOST_NAMED]) + more or "nobody is missing"


def code_of(absent: Mapping[str, Absence]) -> RefusalCode:
    """The code that says most about why too few are left."""
    codes = [absence.code for _, absence in sorted(absent.items())]
    return next((code for code in codes if code is not RefusalCode.COHORT), RefusalCode.COHORT)


@dataclass(frozen=True, slots=True)
class Answers:
    """What each answer of one run must be. Every reader raises a FedcreditError whose text is a reason, in a few words.

    `identities` are the Ed25519 public keys of the plan's roster.
    """

    run: str
    identities: Mapping[str, bytes]

    def joined(self, answer: Letter, holder: str, *, stages: int | None) -> Joined:
        """Of a data holder that takes part, with keys for `stages` secure sums, or with none if that is None."""
        header = _header(answer, holder, Joined)
        if header.run != self.run:
            raise MalformedError("it joined another run")
        _require_mark(header.ledger)
        if (header.keys is None) is not (stages is None):
            raise MalformedError("it sent keys where none are needed, or none where they are")
        if header.keys is not None and stages is not None:
            self._require_keys(header.keys, holder, stages)
        self._require_signature(holder, PayloadType.JOINED, joined_statement(header), header.signature)
        return header

    def _require_keys(self, keys: SumKeys, holder: str, stages: int) -> None:
        all_keys = (keys.channel, *keys.stages, *keys.seeds)
        try:
            PublicKeys(keys.channel, tuple(keys.stages), tuple(keys.seeds))
        except MalformedError:
            raise MalformedError("its keys are not lawful") from None
        if len(keys.stages) != stages or len(set(all_keys)) != len(all_keys):
            raise MalformedError("its keys have the wrong number, or two are equal")
        statement = sum_keys_statement(self.run, holder, keys.channel, keys.stages, keys.seeds)
        self._require_signature(holder, PayloadType.SUM_KEYS, statement, keys.signature)

    def dealt(self, answer: Letter, holder: str, *, joined: Collection[str], stages: int) -> Dealt:
        """Shares for everybody else who joined."""
        header = _header(answer, holder, Dealt)
        if header.run != self.run or header.sealed.keys() != set(joined) - {holder}:
            raise MalformedError("it dealt for another run, or not to everybody who joined")
        if any(len(sealed) != sealed_bytes(stages) for sealed in header.sealed.values()):
            raise MalformedError("it dealt shares of another size than those of the plan's releases")
        statement = dealing_statement(self.run, holder, header.sealed)
        self._require_signature(holder, PayloadType.DEALING, statement, header.signature)
        return header

    def received(self, answer: Letter, holder: str, *, members: Collection[str]) -> Received:
        """Of a data holder that has the others' shares, or says whose do not open."""
        header = _header(answer, holder, Received)
        if header.run != self.run:
            raise MalformedError("it received the shares of another run")
        if header.faulty != sorted(set(header.faulty) & set(members) - {holder}):
            raise MalformedError("it complains about shares of others than were delivered")
        return header

    def update(self, answer: Letter, holder: str, *, release: str, length: int) -> tuple[Update, NDArray[np.uint64]]:
        """The header and the `length` words of one release."""
        header = _header(answer, holder, Update, arrays={"words"})
        if header.release != release or len(header.commitment) != DIGEST_BYTES:
            raise MalformedError("its update is for another release, or commits to nothing")
        _require_mark(header.ledger)
        if header.ledger.size == 0:
            raise MalformedError("its ledger's mark has no entry, though it has made a release")
        try:
            words = array_of(answer, "words", shape=(length,), dtype=np.uint64)
        except MalformedError:
            raise MalformedError(f"its update has not the {length} whole numbers that the plan needs") from None
        statement = update_statement(release, header.commitment, words, header.ledger)
        self._require_signature(holder, PayloadType.UPDATE, statement, header.signature)
        return header, words

    def revealed(
        self, answer: Letter, holder: str, *, release: str, survivors: Collection[str], cohort: Collection[str]
    ) -> Reveal:
        """Shares of the seeds of `survivors` and of the keys of the rest of the cohort."""
        header = _header(answer, holder, Revealed)
        if header.release != release:
            raise MalformedError("it helped with another release")
        if header.seeds.keys() != set(survivors) or header.keys.keys() != set(cohort) - set(survivors):
            raise MalformedError("it revealed shares of others than was asked")
        if any(len(share) != ENTRY_BYTES for share in (*header.seeds.values(), *header.keys.values())):
            raise MalformedError("its shares have the wrong size")
        statement = reveal_statement(release, holder, header.seeds, header.keys)
        self._require_signature(holder, PayloadType.REVEAL, statement, header.signature)
        return Reveal(header.seeds, header.keys)

    def _require_signature(self, holder: str, kind: PayloadType, statement: bytes, signature: bytes) -> None:
        try:
            verify(self.identities[holder], kind, statement, signature)
        except TamperingError:
            raise TamperingError("its signature does not fit what it sent") from None


def claimed_by(header: Header) -> str | None:
    """The data holder that an answer says it is from; None if it says nothing."""
    return getattr(header, "holder", None)


def _header(answer: Letter, holder: str, kind: type[Kind], *, arrays: Collection[str] = ()) -> Kind:
    header = answer.header
    if isinstance(header, Refused):
        raise RefusalError(header.code.value, header.code)
    if not isinstance(header, kind):
        raise MalformedError(f"it answered with {type(header).__name__} where {kind.__name__} was due")
    if header.holder != holder:
        raise MalformedError("it answered in another's name")
    if answer.arrays.keys() != set(arrays):
        raise MalformedError("its answer carries other arrays than it should")
    return header


def _require_mark(mark: LedgerMark) -> None:
    if not 0 <= mark.size < LONGEST_LEDGER or len(mark.digest) != DIGEST_BYTES:
        raise MalformedError("its ledger's mark is none")
