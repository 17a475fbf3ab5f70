"""This data holder's part in the secure sums of its runs: keys, shares of its secrets, masks, and their removal.

The mathematics is `privacy.secure_sum`. Here is what one party must not be talked into: another introduction, another
delivery, or another set of survivors for the same release. The first of each is pinned in the privacy ledger, durable
before an answer leaves, and is the only one that is ever answered.
"""

from collections.abc import Callable, Collection, Sequence

import msgspec

from clients.holder.keys import HolderKeys
from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_chain import LedgerHead
from clients.holder.run import Run
from federated.messages import (
    Dealt,
    Delivery,
    Header,
    Introduction,
    Joined,
    LedgerMark,
    Received,
    Revealed,
    SumKeys,
    Unmasking,
    decode_header,
    encode_header,
)
from federated.releases import (
    dealing_statement,
    joined_statement,
    release_name,
    reveal_statement,
    stages_of,
    sum_keys_statement,
)
from privacy.consent.signing import PayloadType, verify
from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.grid import Words
from privacy.secure_sum.keys import PublicKeys
from privacy.secure_sum.member import Member
from privacy.secure_sum.secrets import Secrets


class Sums:
    """The secure sums of all runs of one data holder. Opened shares are kept in memory and re-opened after a start."""

    def __init__(
        self, holder: str, keys: HolderKeys, ledger: PrivacyLedger, remember: Callable[[LedgerHead], None]
    ) -> None:
        """`remember` keeps the ledger's head outside the ledger, durable on return."""
        self._holder, self._keys, self._ledger, self._remember = holder, keys, ledger, remember
        self._secrets: dict[str, Secrets] = {}
        self._members: dict[str, Member] = {}

    def keys(self, run: Run) -> SumKeys | None:
        """This data holder's signed keys of a run; None where nothing is masked."""
        if not run.plan.trust.is_masked:
            return None
        public = self._secrets_of(run).public
        statement = sum_keys_statement(run.name, self._holder, public.channel, public.stages, public.seeds)
        signature = self._keys.identity.sign(PayloadType.SUM_KEYS, statement)
        return SumKeys(public.channel, list(public.stages), list(public.seeds), signature)

    def joined(self, run: Run, ledger: LedgerMark) -> Joined:
        """Our signed word that we take part in a run, with the ledger as it is."""
        unsigned = Joined(self._holder, run.name, self.keys(run), ledger, b"")
        signature = self._keys.identity.sign(PayloadType.JOINED, joined_statement(unsigned))
        return msgspec.structs.replace(unsigned, signature=signature)

    def deal(self, run: Run, introduction: Introduction) -> Dealt:
        """Shares of all our secrets of the run for everybody introduced, whose keys are theirs by signature.

        RefusalError for an introduction of too few, or of others than before; TamperingError for replaced keys.
        """
        self._require_masked(run)
        self._require_introduction(run, introduction)
        # Computed first: an introduction that cannot be dealt to is no first one.
        sealed = self._secrets_of(run).deal(_public_keys(introduction), threshold=_threshold(run, introduction))
        self._pin_once(f"{run.name}/introduction", encode_header(introduction), "introduced other data holders or keys")
        statement = dealing_statement(run.name, self._holder, sealed)
        return Dealt(self._holder, run.name, dict(sealed), self._keys.identity.sign(PayloadType.DEALING, statement))

    def receive(self, run: Run, delivery: Delivery) -> Received:
        """The others' shares, every one opened now. Of whom they do not open is told, and the delivery is then none:
        nothing is pinned, and the coordinator may deliver again, without those dealers.

        RefusalError for too few members or another delivery than before.
        """
        self._require_masked(run)
        introduction = self._introduction(run)
        members, joined = delivery.members, introduction.joined
        _require_named(members, self._holder, joined, _threshold(run, introduction))
        if delivery.sealed.keys() != set(members) - {self._holder}:
            raise RefusalError(
                "The delivery lacks a member's shares or holds somebody else's. The coordinator should relay the "
                "shares of all members.",
                RefusalCode.PLAN,
            )
        # With some shares missing we could not help to take masks off, so we would be no member.
        public, threshold = _public_keys(introduction), _threshold(run, introduction)
        if faulty := self._secrets_of(run).faulty(public, delivery.sealed, threshold=threshold):
            return Received(self._holder, run.name, faulty)
        member = self._opened(run, introduction, delivery)
        self._pin_once(f"{run.name}/delivery", encode_header(delivery), "delivered other shares or other members'")
        self._members[run.name] = member
        return Received(self._holder, run.name, [])

    def require_cohort(self, run: Run, cohort: Sequence[str]) -> None:
        """RefusalError unless this release may be made with `cohort`: us, and enough others of the run's members."""
        if run.plan.trust.is_masked:
            introduction, delivery = self._introduction(run), self._delivery(run)
            _require_named(cohort, self._holder, delivery.members, _threshold(run, introduction))
        else:
            _require_named(cohort, self._holder, run.identities, run.plan.minimum_holders)

    def noise_variance(self, run: Run, stage: int, cohort: Sequence[str]) -> int:
        """Of the noise that we add to each of our numbers in a release, in squared grid steps."""
        # Shares were dealt to all who joined, and so many may be in a sum: fewer would make our part too large, never
        # too small.
        members = len(self._introduction(run).joined) if run.plan.trust.is_masked else len(cohort)
        tolerated = run.plan.dropouts_tolerated
        return run.shape(stage).holder_variance(run.plan.trust, members=members, dropouts_tolerated=tolerated)

    def masked(self, run: Run, stage: int, cohort: Sequence[str], words: Words) -> Words:
        """`words` under our masks of that release; as they are where the plan lets them be seen."""
        if not run.plan.trust.is_masked:
            return words
        masked: Words = words + self._member(run).mask(stage, cohort, len(words))
        return masked

    def reveal(self, run: Run, unmasking: Unmasking, cohort: Sequence[str] | None) -> Revealed:
        """Our shares that take the masks off the sum of the survivors, the first set of them that was asked for.

        `cohort` is the one that we made the release with, None if we did not. RefusalError for a release that we did
        not make, for survivors outside its cohort, without us or too few, and for others than before.
        """
        self._require_masked(run)
        name = release_name(run.name, unmasking.stage)
        if cohort is None:
            raise RefusalError(
                "This release was not made here, so its masks are not ours to take off. The coordinator should ask "
                "those who made it.",
                RefusalCode.PLAN,
            )
        _require_named(unmasking.survivors, self._holder, cohort, _threshold(run, self._introduction(run)))
        self._pin_once(f"{name}/unmasking", encode_header(unmasking), "named other survivors")
        reveal = self._member(run).reveal(unmasking.stage, cohort, unmasking.survivors)
        seeds, keys = dict(reveal.seeds), dict(reveal.keys)
        statement = reveal_statement(name, self._holder, seeds, keys)
        return Revealed(self._holder, name, seeds, keys, self._keys.identity.sign(PayloadType.REVEAL, statement))

    def _require_introduction(self, run: Run, introduction: Introduction) -> None:
        joined, identities = introduction.joined, run.identities
        _require_named(sorted(joined), self._holder, identities, run.plan.minimum_holders)
        stages = stages_of(run.recipe)
        for name, keys in joined.items():
            if not len(keys.stages) == len(keys.seeds) == stages:
                raise MalformedError(
                    f"The keys of {name} are not for the {stages} releases of this run. The coordinator should "
                    "introduce those whose keys are."
                )
            statement = sum_keys_statement(run.name, name, keys.channel, keys.stages, keys.seeds)
            verify(identities[name], PayloadType.SUM_KEYS, statement, keys.signature)

    def _pin_once(self, name: str, content: bytes, told: str) -> None:
        pinned = self._ledger.pin(name, content)
        self._remember(self._ledger.head)
        if pinned != content:
            raise RefusalError(
                f"The coordinator has {told} before, and one answer is all there is. It should repeat the letter that "
                "it sent first.",
                RefusalCode.REPLAY,
            )

    def _introduction(self, run: Run) -> Introduction:
        header = self._pinned(f"{run.name}/introduction")
        if not isinstance(header, Introduction):
            raise _missing("This run's data holders were not introduced to each other here")
        return header

    def _delivery(self, run: Run) -> Delivery:
        header = self._pinned(f"{run.name}/delivery")
        if not isinstance(header, Delivery):
            raise _missing("The shares of this run's members were not delivered here")
        return header

    def _pinned(self, name: str) -> Header | None:
        content = self._ledger.pinned(name)
        return None if content is None else decode_header(content)

    def _secrets_of(self, run: Run) -> Secrets:
        if run.name not in self._secrets:
            self._secrets[run.name] = Secrets(
                self._keys.sum_secret(run.name), run=run.name, holder=self._holder, stages=stages_of(run.recipe)
            )
        return self._secrets[run.name]

    def _member(self, run: Run) -> Member:
        if run.name not in self._members:
            self._members[run.name] = self._opened(run, self._introduction(run), self._delivery(run))
        return self._members[run.name]

    def _opened(self, run: Run, introduction: Introduction, delivery: Delivery) -> Member:
        return self._secrets_of(run).member(
            _public_keys(introduction), delivery.members, delivery.sealed, threshold=_threshold(run, introduction)
        )

    @staticmethod
    def _require_masked(run: Run) -> None:
        if not run.plan.trust.is_masked:
            raise RefusalError(
                f"Nothing is masked under {run.plan.trust}, so there are no shares. The coordinator should go on with "
                "the rounds.",
                RefusalCode.PLAN,
            )


def _missing(what: str) -> RefusalError:
    return RefusalError(f"{what}. The coordinator should do so before the rounds.", RefusalCode.PLAN)


def _threshold(run: Run, introduction: Introduction) -> int:
    """How many data holders must be in every sum of the run, and reveal their shares."""
    return len(introduction.joined) - run.plan.dropouts_tolerated


def _public_keys(introduction: Introduction) -> dict[str, PublicKeys]:
    return {
        name: PublicKeys(keys.channel, tuple(keys.stages), tuple(keys.seeds))
        for name, keys in introduction.joined.items()
    }


def _require_named(names: Sequence[str], us: str, known: Collection[str], fewest: int) -> None:
    """RefusalError unless `names` are ascending, hold `us`, nobody who is not `known`, and at least `fewest`."""
    if list(names) != sorted(set(names)) or not set(names) <= set(known) or us not in names:
        raise RefusalError(
            "A list of data holders lacks us, holds somebody who is not in this run, or is not ascending. The "
            "coordinator should send the right one.",
            RefusalCode.PLAN,
        )
    if len(names) < fewest:
        raise RefusalError(
            f"{len(names)} data holders are too few; {fewest} are needed. The coordinator should wait for more, or end "
            "the run.",
            RefusalCode.COHORT,
        )
