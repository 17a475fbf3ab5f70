"""Secrets are derived, dealt, sealed to one holder and one introduction, and opened by nobody else."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privacy.errors import MalformedError, RefusalError, TamperingError
from privacy.secure_sum.derivation import derive
from privacy.secure_sum.keys import Introduction, PublicKeys
from privacy.secure_sum.secrets import Secrets
from tests.privacy.secure_sum.world import RUN, secrets_of, slow_value, world

STAGES = 2


def test_secrets_are_the_same_after_a_restart_and_differ_by_run_and_holder() -> None:
    secret = bytes(range(32))
    one = Secrets(secret, run=RUN, holder="a", stages=3).public
    assert one == Secrets(secret, run=RUN, holder="a", stages=3).public
    others = [
        Secrets(secret, run=RUN + "0", holder="a", stages=3).public,
        Secrets(secret, run=RUN, holder="b", stages=3).public,
        Secrets(bytes(32), run=RUN, holder="a", stages=3).public,
    ]
    everything = [key for public in (one, *others) for key in (public.channel, *public.stages, *public.seeds)]
    assert len(set(everything)) == len(everything) == 4 * 7


@pytest.mark.parametrize(("secret", "stages"), [(bytes(31), 1), (bytes(33), 1), (bytes(32), 0)])
def test_secrets_need_32_bytes_and_a_release(secret: bytes, stages: int) -> None:
    with pytest.raises(ValueError, match="32 secret bytes"):
        Secrets(secret, run=RUN, holder="a", stages=stages)


def test_nothing_secret_is_shown() -> None:
    made = world(4, 1)
    shown = repr(made.secrets["holder-a"]) + repr(made.members["holder-a"]) + repr(made.members["holder-a"]._own)
    assert made.members["holder-a"]._own.keys[0].hex() not in shown
    assert repr(made.members["holder-a"]._own.keys[0]) not in shown
    assert "Secrets(...)" in shown


def test_the_shares_dealt_are_of_the_announced_secrets() -> None:
    made = world(5, 1)
    points = made.introduction().points
    for dealer, public in made.joined.items():
        for stage in range(STAGES):
            dealt = {points[name]: made.members[name]._dealt[dealer] for name in made.names[1:]}
            key = slow_value({point: each.keys[stage] for point, each in dealt.items()}).to_bytes(32, "big")
            assert X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw() == public.stages[stage]
            seed = slow_value({point: each.seeds[stage] for point, each in dealt.items()}).to_bytes(32, "big")
            assert seed == made.members[dealer]._own.seeds[stage]
            # One share fewer gives something else.
            fewer = dict(list(dealt.items())[:-1])
            assert slow_value({point: each.keys[stage] for point, each in fewer.items()}) != int.from_bytes(key, "big")


def test_shares_open_by_the_documented_key_and_by_nobody_elses() -> None:
    made = world(4, 1)
    dealer, recipient, other, _ = made.names
    content = made.sealed[dealer][recipient]
    plain = b""
    for opener in (recipient, other):
        private = X25519PrivateKey.from_private_bytes(made.secrets[opener]._channel)
        agreement = private.exchange(X25519PublicKey.from_public_bytes(made.joined[dealer].channel))
        cipher = ChaCha20Poly1305(derive(agreement, "sealing", made.introduction().digest, dealer, recipient))
        if opener == recipient:
            plain = cipher.decrypt(bytes(12), content, None)
        else:
            with pytest.raises(InvalidTag):
                cipher.decrypt(bytes(12), content, None)
    assert len(plain) == 2 * STAGES * 33
    dealt = made.members[recipient]._dealt[dealer]
    assert [int.from_bytes(plain[k : k + 33], "big") for k in range(0, len(plain), 33)] == [*dealt.keys, *dealt.seeds]


Change = Callable[[PublicKeys, PublicKeys], PublicKeys]
REPLACED: dict[str, Change] = {
    "channel": lambda one, fresh: replace(one, channel=fresh.channel),
    "stage": lambda one, fresh: replace(one, stages=(one.stages[0], fresh.stages[1])),
    "seed": lambda one, fresh: replace(one, seeds=(fresh.seeds[0], one.seeds[1])),
}


@pytest.mark.parametrize("what", list(REPLACED))
def test_who_was_shown_a_replaced_key_deals_what_nobody_else_opens(what: str) -> None:
    # The man in the middle shows holder-a its own key in the place of holder-d's.
    made, names = world(4, 1), world(4, 1).names
    fresh = secrets_of("man in the middle", stages=STAGES).public
    shown = {**made.joined, "holder-d": REPLACED[what](made.joined["holder-d"], fresh)}
    dealt = made.secrets["holder-a"].deal(shown, threshold=3)
    others = {dealer: made.sealed[dealer]["holder-b"] for dealer in names if dealer not in ("holder-a", "holder-b")}
    with pytest.raises(TamperingError, match="dealt by holder-a do not open"):
        made.secrets["holder-b"].member(made.joined, names, {**others, "holder-a": dealt["holder-b"]}, threshold=3)
    # And the other way round: who was shown it opens nothing that was dealt to the right keys.
    sealed = {dealer: made.sealed[dealer]["holder-a"] for dealer in names[1:]}
    with pytest.raises(TamperingError, match="dealt by holder-b do not open"):
        made.secrets["holder-a"].member(shown, names, sealed, threshold=3)
    # The one whose key it is notices itself.
    with pytest.raises(TamperingError, match="missing or replaced"):
        made.secrets["holder-d"].deal(shown, threshold=3)


def test_introduced_to_others_or_with_another_threshold_shares_do_not_open() -> None:
    made, wide = world(4, 1), world(5, 1)
    names = made.names
    sealed = {dealer: wide.sealed[dealer]["holder-a"] for dealer in names[1:]}
    with pytest.raises(TamperingError, match="do not open"):
        made.secrets["holder-a"].member(made.joined, names, sealed, threshold=3)
    strict = {name: made.secrets[name].deal(made.joined, threshold=4)["holder-a"] for name in names[1:]}
    with pytest.raises(TamperingError, match="do not open"):
        made.secrets["holder-a"].member(made.joined, names, strict, threshold=3)
    made.secrets["holder-a"].member(made.joined, names, strict, threshold=4)


def test_what_is_dealt_to_two_introductions_is_unrelated() -> None:
    made = world(4, 1)
    stranger = secrets_of("stranger", stages=STAGES).public
    others = {**{name: made.joined[name] for name in made.names[:3]}, "stranger": stranger}
    secrets = made.secrets["holder-a"]
    first, second = (
        secrets._polynomials(Introduction(joined, run=RUN, threshold=3)) for joined in (made.joined, others)
    )
    assert [each[0] for each in first] == [each[0] for each in second]  # the secrets
    rest = [coefficient for each in (*first, *second) for coefficient in each[1:]]
    assert len(set(rest)) == len(rest) == 2 * 2 * STAGES * 2


@pytest.mark.parametrize("place", [0, 40, -1])
def test_changed_shares_do_not_open(place: int) -> None:
    made = world(4, 1)
    sealed = {dealer: made.sealed[dealer]["holder-a"] for dealer in made.names[1:]}
    spoilt = bytearray(sealed["holder-c"])
    spoilt[place] ^= 1
    for wrong in (bytes(spoilt), b"", sealed["holder-c"][:-1], sealed["holder-b"], made.sealed["holder-c"]["holder-b"]):
        with pytest.raises(TamperingError, match="dealt by holder-c do not open"):
            made.secrets["holder-a"].member(made.joined, made.names, {**sealed, "holder-c": wrong}, threshold=3)


@pytest.mark.parametrize("content", [b"", bytes(33 * 3), bytes(33 * 5), b"\xff" * 33 * 4])
def test_a_dealer_that_seals_something_else_is_named(content: bytes) -> None:
    made = world(4, 1)
    agreement = X25519PrivateKey.from_private_bytes(made.secrets["holder-c"]._channel).exchange(
        X25519PublicKey.from_public_bytes(made.joined["holder-a"].channel)
    )
    key = derive(agreement, "sealing", made.introduction().digest, "holder-c", "holder-a")
    sealed = {dealer: made.sealed[dealer]["holder-a"] for dealer in made.names[1:]}
    sealed["holder-c"] = ChaCha20Poly1305(key).encrypt(bytes(12), content, None)
    with pytest.raises(TamperingError, match="dealt by holder-c do not open"):
        made.secrets["holder-a"].member(made.joined, made.names, sealed, threshold=3)


def test_shares_of_exactly_the_other_members_are_needed() -> None:
    made = world(4, 1)
    sealed = {dealer: made.sealed[dealer]["holder-a"] for dealer in made.names[1:]}
    for wrong in ({}, {**sealed, "stranger": b""}, {name: sealed[name] for name in made.names[1:3]}):
        with pytest.raises(MalformedError, match="all 3 other members"):
            made.secrets["holder-a"].member(made.joined, made.names, wrong, threshold=3)


def test_unlawful_members_are_refused() -> None:
    made = world(4, 1)
    sealed = {dealer: made.sealed[dealer]["holder-a"] for dealer in made.names[1:]}
    for wrong in ([*made.names[1:]], [*made.names, "stranger"], made.names[::-1], [made.names[0], *made.names]):
        with pytest.raises(MalformedError, match="list of data holders"):
            made.secrets["holder-a"].member(made.joined, wrong, sealed, threshold=3)
    with pytest.raises(RefusalError, match="over 2 data holders"):
        made.secrets["holder-a"].member(made.joined, made.names[:2], sealed, threshold=3)


def test_who_did_not_join_cannot_deal() -> None:
    made = world(4, 1)
    with pytest.raises(TamperingError, match="missing or replaced"):
        secrets_of("stranger", stages=STAGES).deal(made.joined, threshold=3)
    # The same holder in another run has other keys.
    with pytest.raises(TamperingError, match="missing or replaced"):
        secrets_of("holder-a", stages=STAGES, run="another").deal(made.joined, threshold=3)


def test_everybody_else_is_dealt_to() -> None:
    made = world(4, 1)
    for name, sealed in made.sealed.items():
        assert sealed.keys() == set(made.names) - {name}
        assert {len(content) for content in sealed.values()} == {2 * STAGES * 33 + 16}
