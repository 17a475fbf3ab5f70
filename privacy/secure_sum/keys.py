"""What data holders know of each other in a run of secure sums: public keys, and who joined with them.

Who owns a public key is proved elsewhere, by signature.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from privacy.secure_sum.derivation import KEY_BYTES, digest_of, encoded

_FIELD: Final = 2**255 - 19
# The points of order 1, 2, 4 and 8 on the curve and its twist (RFC 7748, section 7): with them everybody shares zero.
_SMALL_ORDER: Final = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
        int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
    )
)


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """One data holder's public keys for one run. MalformedError unless they are lawful."""

    channel: bytes  # X25519, for the shares that are sealed to it
    stages: tuple[bytes, ...]  # X25519, one a release, for the pairwise masks
    seeds: tuple[bytes, ...]  # SHA-256 commitments to its own mask's seed, one a release

    def __post_init__(self) -> None:
        lawful = len(self.stages) == len(self.seeds) > 0 and all(len(seed) == KEY_BYTES for seed in self.seeds)
        if not lawful or not all(_is_lawful(key) for key in (self.channel, *self.stages)):
            raise MalformedError(
                "the public keys of a data holder for the secure sums are not lawful: generated X25519 keys and "
                "commitments of 32 bytes are needed, one of each a release. Its operator should compare versions "
                "with the coordinator's."
            )


def _is_lawful(key: bytes) -> bool:
    # A value that is not below the field's prime is a second writing of another key.
    value = int.from_bytes(key, "little")
    return len(key) == KEY_BYTES and value < _FIELD and value not in _SMALL_ORDER


def commitment_to(seed: bytes, *, run: str, holder: str, stage: int) -> bytes:
    """SHA-256 over the seed and what it is for."""
    return hashlib.sha256(encoded("commitment", run, holder, stage, seed)).digest()


def agreed(private: bytes, public: bytes) -> bytes:
    """The 32 bytes shared with the owner of `public` (X25519, RFC 7748)."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise TamperingError(
            "a public key of the secure sums shares nothing with anybody; the coordinator should find out whose it is "
            "and start the run again."
        ) from None


def public_key_of(private: bytes) -> bytes:
    """The X25519 public key of 32 private bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class Introduction:
    """Who joined a run, with their keys, and how many of them it takes to take masks off.

    All who joined must have the same: what they send each other opens only under the same `digest`. The
    point of a holder, where its shares are taken, is 1 for the first name in order, 2 for the second and so on.
    """

    __slots__ = ("digest", "joined", "points", "run", "stages", "threshold")

    def __init__(self, joined: Mapping[str, PublicKeys], *, run: str, threshold: int) -> None:
        """RefusalError if so few joined that two stories about who left could both be believed (see the package),
        TamperingError if a key stands there twice, MalformedError if not all have keys for as many releases.
        """
        if not (len(joined) >= 2 and 2 * len(joined) < 3 * threshold <= 3 * len(joined)):
            raise RefusalError(
                f"{len(joined)} data holders joined the secure sums, {threshold} of whom take the masks off; at least "
                "2, and more than two thirds of those who joined, are needed. The coordinator should plan for more "
                "data holders, or tolerate fewer drop-outs.",
                RefusalCode.COHORT,
            )
        self.run: Final = run
        self.threshold: Final = threshold
        self.joined: Final = {name: joined[name] for name in sorted(joined)}
        self.points: Final = {name: place for place, name in enumerate(self.joined, 1)}
        counts = {len(keys.stages) for keys in joined.values()}
        if len(counts) != 1:
            raise MalformedError(
                "data holders joined the secure sums with keys for different numbers of releases; all must follow one "
                "plan, and the coordinator should start the run again."
            )
        self.stages: Final = counts.pop()
        public = [key for keys in joined.values() for key in (keys.channel, *keys.stages, *keys.seeds)]
        if len(set(public)) != len(public):
            raise TamperingError(
                "a public key of the secure sums stands there twice; each must be fresh. The coordinator should find "
                "out who copied it and start the run again."
            )
        parts: list[str | bytes] = []
        for name, keys in self.joined.items():
            parts += [name, keys.channel, *keys.stages, *keys.seeds]
        self.digest: Final = digest_of("introduction", run, threshold, self.stages, *parts)

    @property
    def tolerated(self) -> int:
        """How many of those who joined may be missing."""
        return len(self.joined) - self.threshold

    def require_stage(self, stage: int) -> None:
        """MalformedError unless there are keys for the release `stage`, counted from 1."""
        if not 1 <= stage <= self.stages:
            raise MalformedError(
                f"release {stage} was asked for and the run's keys are for 1..{self.stages}; the coordinator should "
                "follow the plan."
            )

    def require(self, names: Sequence[str], *, among: Collection[str], having: str | None = None) -> None:
        """MalformedError unless `names` is sorted, without doubles, among `among` and has `having`; RefusalError if
        they are fewer than the threshold.
        """
        lawful = list(names) == sorted(set(names)) and set(names) <= set(among)
        if not lawful or (having is not None and having not in names):
            raise MalformedError(
                "a list of data holders for a secure sum is unsorted, names one twice, or names or lacks one that it "
                "must not; the coordinator should send the list of those it counts on."
            )
        if len(names) < self.threshold:
            raise RefusalError(
                f"a secure sum over {len(names)} data holders was asked for and at least {self.threshold} are needed; "
                "the coordinator should wait for more of them or plan a new run.",
                RefusalCode.COHORT,
            )
