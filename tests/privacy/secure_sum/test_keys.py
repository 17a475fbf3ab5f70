"""Public keys that are not lawful, and introductions that are not the same for everybody."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from privacy.secure_sum.keys import Introduction, PublicKeys, agreed
from tests.privacy.secure_sum.world import RUN, names_of, secrets_of

FIELD = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
SMALL = (0, 1, FIELD - 1, *ORDER_8)


def joined_of(count: int, *, stages: int = 2) -> dict[str, PublicKeys]:
    return {name: secrets_of(name, stages=stages).public for name in names_of(count)}


def doubled(u: int | None) -> int | None:
    """x-only doubling on v^2 = u^3 + 486662 u^2 + u and its twist; None is the point at infinity."""
    if u is None:
        return None
    below = 4 * u * (u * u + 486662 * u + 1) % FIELD
    return None if below == 0 else (u * u - 1) ** 2 * pow(below, -1, FIELD) % FIELD


WRITINGS = [
    value + high for small in SMALL for value in (small, small + FIELD) if value < 2**255 for high in (0, 2**255)
]


@pytest.mark.parametrize("value", WRITINGS)
def test_keys_of_small_order_are_refused_however_they_are_written(value: int) -> None:
    assert doubled(doubled(doubled(value % 2**255 % FIELD))) is None
    written = value.to_bytes(32, "little")
    good = joined_of(1)["holder-a"]
    with pytest.raises(MalformedError, match="not lawful"):
        replace(good, channel=written)
    with pytest.raises(MalformedError, match="not lawful"):
        replace(good, stages=(good.stages[0], written))
    with pytest.raises(TamperingError, match="shares nothing"):
        agreed(bytes(range(32)), written)


def test_a_second_writing_of_a_key_is_refused() -> None:
    good = joined_of(1)["holder-a"]
    twice = (int.from_bytes(good.channel, "little") + (1 << 255)).to_bytes(32, "little")
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    same = {private.exchange(X25519PublicKey.from_public_bytes(key)) for key in (good.channel, twice)}
    assert len(same) == 1
    with pytest.raises(MalformedError, match="not lawful"):
        replace(good, channel=twice)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_and_commitments_have_32_bytes_and_there_is_one_of_each_a_release(size: int) -> None:
    good = joined_of(1)["holder-a"]
    for wrong in (
        {"channel": b"\7" * size},
        {"stages": (good.stages[0], b"\7" * size)},
        {"seeds": (good.seeds[0], b"\7" * size)},
        {"stages": good.stages[:1]},
        {"seeds": good.seeds[:1]},
        {"stages": (), "seeds": ()},
    ):
        with pytest.raises(MalformedError, match="not lawful"):
            PublicKeys(**{"channel": good.channel, "stages": good.stages, "seeds": good.seeds} | wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", range(1, 14))
def test_more_than_two_thirds_take_masks_off_or_nobody_joins(count: int) -> None:
    joined = joined_of(count, stages=1)
    for threshold in range(-1, count + 2):
        if count >= 2 and 3 * (count - threshold) < count and threshold <= count:
            assert Introduction(joined, run=RUN, threshold=threshold).tolerated == count - threshold
        else:
            with pytest.raises(RefusalError, match="more than two thirds") as refused:
                Introduction(joined, run=RUN, threshold=threshold)
            assert refused.value.code is RefusalCode.COHORT


def test_copied_keys_are_refused() -> None:
    joined = joined_of(3)
    one, two, three = joined
    for copy in (
        replace(joined[two], channel=joined[one].channel),
        replace(joined[two], channel=joined[one].stages[1]),
        replace(joined[two], stages=(joined[two].stages[0], joined[one].stages[0])),
        replace(joined[two], stages=(joined[two].stages[0], joined[two].stages[0])),
        replace(joined[two], seeds=(joined[three].seeds[1], joined[two].seeds[1])),
        joined[one],
    ):
        with pytest.raises(TamperingError, match="stands there twice"):
            Introduction({**joined, two: copy}, run=RUN, threshold=3)


def test_keys_for_other_plans_are_refused() -> None:
    joined = {**joined_of(3), "holder-b": secrets_of("holder-b", stages=3).public}
    with pytest.raises(MalformedError, match="different numbers of releases"):
        Introduction(joined, run=RUN, threshold=3)


def test_the_digest_tells_every_difference_and_not_the_order() -> None:
    joined, fresh = joined_of(4), secrets_of("fresh", stages=2).public
    digests = {Introduction(joined, run=RUN, threshold=4).digest}
    digests.add(Introduction(joined, run=RUN + "0", threshold=4).digest)
    digests.add(Introduction(joined, run=RUN, threshold=3).digest)
    digests.add(Introduction(joined_of(5), run=RUN, threshold=4).digest)
    one = joined["holder-c"]
    for other in (
        replace(one, channel=fresh.channel),
        replace(one, stages=(fresh.stages[0], one.stages[1])),
        replace(one, stages=one.stages[::-1]),
        replace(one, seeds=(one.seeds[0], fresh.seeds[1])),
        replace(one, seeds=one.seeds[::-1]),
    ):
        digests.add(Introduction({**joined, "holder-c": other}, run=RUN, threshold=4).digest)
    digests.add(
        Introduction(
            {("holder-cc" if n == "holder-c" else n): k for n, k in joined.items()}, run=RUN, threshold=4
        ).digest
    )
    assert len(digests) == 10
    backwards = dict(reversed(joined.items()))
    assert Introduction(backwards, run=RUN, threshold=4).digest in digests
    assert Introduction(backwards, run=RUN, threshold=4).points == {name: k for k, name in enumerate(names_of(4), 1)}
