"""One data holder's secrets of one run, from which it deals shares before the first release."""

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privacy.errors import MalformedError, TamperingError
from privacy.secure_sum.derivation import KEY_BYTES, derive
from privacy.secure_sum.keys import Introduction, PublicKeys, agreed, commitment_to, public_key_of
from privacy.secure_sum.member import Dealt, Member, OwnSecrets
from privacy.secure_sum.shamir import PRIME, SHARE_BYTES, drawn_coefficients, share_of

_NONCE: Final = bytes(12)  # each key seals one content
_TAG_BYTES: Final = 16


def sealed_bytes(stages: int) -> int:
    """The size of what a holder deals to each other one in a run of so many releases."""
    return 2 * stages * SHARE_BYTES + _TAG_BYTES


class Secrets:
    """All that one data holder keeps secret in one run, derived from 32 bytes: a restarted node has the same."""

    __slots__ = ("_channel", "_holder", "_keys", "_run", "_secret", "_seeds", "public")

    def __init__(self, secret: bytes, *, run: str, holder: str, stages: int) -> None:
        if len(secret) != KEY_BYTES or stages < 1:
            raise ValueError(f"requires {KEY_BYTES} secret bytes and at least one stage")
        numbers = range(1, stages + 1)
        self._secret, self._run, self._holder = derive(secret, "run", run, holder), run, holder
        self._channel = derive(self._secret, "channel")
        self._keys = tuple(derive(self._secret, "key", stage) for stage in numbers)
        self._seeds = tuple(derive(self._secret, "seed", stage) for stage in numbers)
        self.public: Final = PublicKeys(
            channel=public_key_of(self._channel),
            stages=tuple(public_key_of(key) for key in self._keys),
            seeds=tuple(
                commitment_to(seed, run=run, holder=holder, stage=stage)
                for stage, seed in zip(numbers, self._seeds, strict=True)
            ),
        )

    def __repr__(self) -> str:
        return "Secrets(...)"

    def deal(self, joined: Mapping[str, PublicKeys], *, threshold: int) -> dict[str, bytes]:
        """For everybody else who joined, shares of the secrets of all releases, sealed to it.

        Deal once a run: the caller keeps durable whom it dealt to. RefusalError, MalformedError or TamperingError
        if those who joined cannot add up securely, or this holder's keys are not as they were announced.
        """
        introduction = self._introduction(joined, threshold)
        polynomials = self._polynomials(introduction)
        sealed = {}
        for name, point in introduction.points.items():
            if name != self._holder:
                content = b"".join(share_of(each, point).to_bytes(SHARE_BYTES, "big") for each in polynomials)
                agreement = agreed(self._channel, introduction.joined[name].channel)
                key = _sealing_key(agreement, introduction, dealer=self._holder, recipient=name)
                sealed[name] = ChaCha20Poly1305(key).encrypt(_NONCE, content, None)
        return sealed

    def member(
        self,
        joined: Mapping[str, PublicKeys],
        members: Sequence[str],
        sealed: Mapping[str, bytes],
        *,
        threshold: int,
    ) -> Member:
        """This holder with the shares that each of the `members`, who dealt, has `sealed` to it.

        TamperingError if shares do not open: their dealer was introduced to others than this holder was, or what
        it dealt was changed. MalformedError or RefusalError for members that are not lawful, or too few.
        """
        introduction = self._introduction(joined, threshold)
        introduction.require(members, among=introduction.joined, having=self._holder)
        if sealed.keys() != set(members) - {self._holder}:
            raise MalformedError(
                f"shares of {len(sealed)} data holders came and those of all {len(members) - 1} other members are "
                "needed; the coordinator should deliver again."
            )
        channels = {
            name: agreed(self._channel, keys.channel)
            for name, keys in introduction.joined.items()
            if name != self._holder
        }
        dealt = {}
        for dealer, content in sealed.items():
            key = _sealing_key(channels[dealer], introduction, dealer=dealer, recipient=self._holder)
            dealt[dealer] = _opened(key, introduction, dealer, content)
        point = introduction.points[self._holder]
        own = [share_of(each, point) for each in self._polynomials(introduction)]
        dealt[self._holder] = Dealt(tuple(own[: introduction.stages]), tuple(own[introduction.stages :]))
        locks = derive(self._secret, "locks", introduction.digest)
        return Member(introduction, self._holder, OwnSecrets(self._keys, self._seeds, locks, channels), dealt)

    def faulty(self, joined: Mapping[str, PublicKeys], sealed: Mapping[str, bytes], *, threshold: int) -> list[str]:
        """The dealers, sorted, of whom what they have `sealed` to this holder does not open. All are among `joined`."""
        introduction, found = self._introduction(joined, threshold), []
        for dealer, content in sorted(sealed.items()):
            agreement = agreed(self._channel, introduction.joined[dealer].channel)
            key = _sealing_key(agreement, introduction, dealer=dealer, recipient=self._holder)
            try:
                _opened(key, introduction, dealer, content)
            except TamperingError:
                found.append(dealer)
        return found

    def _introduction(self, joined: Mapping[str, PublicKeys], threshold: int) -> Introduction:
        if joined.get(self._holder) != self.public:
            raise TamperingError(
                "this data holder's keys of the secure sums are missing or replaced among those who joined; the "
                "coordinator must start the run again."
            )
        return Introduction(joined, run=self._run, threshold=threshold)

    def _polynomials(self, introduction: Introduction) -> list[list[int]]:
        """One for each release's key, then one for each release's seed: the coefficients, the secret first.

        They depend on who joined, so shares dealt to two different lists are of unrelated polynomials.
        """
        count = introduction.threshold - 1
        return [
            [
                int.from_bytes(secret, "big"),
                *drawn_coefficients(self._secret, kind, introduction.digest, stage, count=count),
            ]
            for kind, secrets in (("share-key", self._keys), ("share-seed", self._seeds))
            for stage, secret in enumerate(secrets, 1)
        ]


def _sealing_key(agreement: bytes, introduction: Introduction, *, dealer: str, recipient: str) -> bytes:
    return derive(agreement, "sealing", introduction.digest, dealer, recipient)


def _opened(key: bytes, introduction: Introduction, dealer: str, content: bytes) -> Dealt:
    try:
        opened = ChaCha20Poly1305(key).decrypt(_NONCE, content, None)
    except InvalidTag:
        opened = b""
    shares = tuple(int.from_bytes(opened[k : k + SHARE_BYTES], "big") for k in range(0, len(opened), SHARE_BYTES))
    if len(opened) != 2 * introduction.stages * SHARE_BYTES or max(shares) >= PRIME:
        raise TamperingError(
            f"the shares dealt by {dealer} do not open: it was introduced to other data holders or keys than this one "
            "was, or they were changed on the way. The coordinator should start the run again, without it if this "
            "repeats."
        )
    return Dealt(shares[: introduction.stages], shares[introduction.stages :])
