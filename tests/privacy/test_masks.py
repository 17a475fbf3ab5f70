"""Masks cancel over the whole cohort and over nothing less."""

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import RefusalError, TamperingError
from privacy.grid import Words, add_words
from privacy.masks import MaskKey, mask_of, masked

RUN = b"run 1"
LENGTH = 40


def key(number: int) -> MaskKey:
    return MaskKey.from_bytes(hashlib.sha256(b"mask key %d" % number).digest())


def masks(names: list[str], round_number: int = 1, run_id: bytes = RUN) -> dict[str, Words]:
    keys = {name: key(k) for k, name in enumerate(names)}
    cohort = {name: k.public for name, k in keys.items()}
    return {
        name: mask_of(k, name, cohort, run_id=run_id, round_number=round_number, length=LENGTH)
        for name, k in keys.items()
    }


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=5), min_size=2, max_size=7, unique=True), st.integers(1, 2**40), st.data())
def test_sum_of_masked_is_sum_of_plain_for_any_cohort(names: list[str], round_number: int, data: st.DataObject) -> None:
    word = st.integers(0, 2**64 - 1)
    plain = {
        name: np.array(data.draw(st.lists(word, min_size=LENGTH, max_size=LENGTH)), dtype=np.uint64) for name in names
    }
    made = masks(names, round_number)
    total = add_words(masked(plain[name], made[name]) for name in names)
    exact = [sum(int(plain[name][k]) for name in names) % 2**64 for k in range(LENGTH)]
    assert [int(v) for v in total] == exact


@pytest.mark.parametrize("missing", range(4))
def test_with_one_holder_missing_the_sum_is_noise(missing: int) -> None:
    names = ["a", "b", "c", "d"]
    made = masks(names)
    rest = add_words(made[name] for k, name in enumerate(names) if k != missing)
    assert_looks_uniform(rest)


def assert_looks_uniform(words: Words) -> None:
    ones = sum(int(word).bit_count() for word in words)
    bits = 64 * len(words)
    assert abs(ones - bits / 2) < 5 * (bits / 4) ** 0.5
    assert len(set(words.tolist())) == len(words)


def test_every_mask_looks_uniform_and_differs_by_round_run_and_holder() -> None:
    names = ["a", "b", "c"]
    made = [
        mask
        for round_number, run_id in ((1, RUN), (2, RUN), (1, b"run 2"), (1, b""))
        for mask in masks(names, round_number, run_id).values()
    ]
    for mask in made:
        assert_looks_uniform(mask)
    for k, one in enumerate(made):
        for other in made[:k]:
            assert not (one == other).any()
            assert_looks_uniform(one - other)


def test_the_stream_is_the_documented_construction() -> None:
    # HKDF (RFC 5869) by hand, from hmac alone; ChaCha20 from pycryptodome would add a dependency for one
    # line.
    one, two = key(0), key(1)
    cohort = {"a": one.public, "b": two.public}

    def part(value: bytes) -> bytes:
        return len(value).to_bytes(4, "big") + value

    private = X25519PrivateKey.from_private_bytes(one.to_bytes())
    secret = private.exchange(X25519PublicKey.from_public_bytes(two.public))
    salt = hashlib.sha256(b"fedcredit/mask/v1" + part(RUN)).digest()
    info = b"fedcredit/mask/v1" + (3).to_bytes(8, "big")
    info += part(b"a") + part(one.public) + part(b"b") + part(two.public)
    pseudorandom = hmac.digest(salt, secret, "sha256")
    stream_key = hmac.digest(pseudorandom, info + b"\x01", "sha256")
    expected = chacha20_block(stream_key, 0) + chacha20_block(stream_key, 1)
    mask = mask_of(one, "a", cohort, run_id=RUN, round_number=3, length=16)
    assert mask.astype("<u8").tobytes() == expected
    assert (mask_of(two, "b", cohort, run_id=RUN, round_number=3, length=16) + mask == 0).all()


def chacha20_block(stream_key: bytes, counter: int) -> bytes:
    """RFC 8439, section 2.3, word for word, with a zero nonce."""
    constants = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    words = [int.from_bytes(stream_key[k : k + 4], "little") for k in range(0, 32, 4)]
    start = [*constants, *words, counter, 0, 0, 0]
    state = list(start)

    def rotate(value: int, by: int) -> int:
        return ((value << by) | (value >> (32 - by))) & 0xFFFFFFFF

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            state[z] = rotate(state[z] ^ state[x], by)

    for _ in range(10):
        for k in range(4):
            quarter(k, 4 + k, 8 + k, 12 + k)
        for k in range(4):
            quarter(k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4)
    mixed = ((a + b) & 0xFFFFFFFF for a, b in zip(state, start, strict=True))
    return b"".join(word.to_bytes(4, "little") for word in mixed)


def test_too_small_or_contradictory_cohorts_are_refused() -> None:
    one, two = key(0), key(1)

    def call(cohort: dict[str, bytes]) -> Words:
        return mask_of(one, "a", cohort, run_id=RUN, round_number=1, length=4)

    for small in ({}, {"a": one.public}):
        with pytest.raises(RefusalError, match="hides nothing"):
            call(small)
    for wrong in (
        {"a": two.public, "b": one.public},
        {"b": two.public, "c": key(2).public},
        {"a": one.public, "b": two.public, "c": two.public},
        {"a": one.public, "b": one.public},
    ):
        with pytest.raises(TamperingError, match="not the ones announced"):
            call(wrong)


@pytest.mark.parametrize(
    "public", [bytes(32), (1).to_bytes(32, "little"), bytes(31), b"", (2**255 - 19).to_bytes(32, "little")]
)
def test_small_order_and_malformed_keys_are_refused(public: bytes) -> None:
    one = key(0)
    with pytest.raises(TamperingError, match="not a lawful X25519 key"):
        mask_of(one, "a", {"a": one.public, "b": public}, run_id=RUN, round_number=1, length=4)


def test_keys_are_fresh_and_survive_storage() -> None:
    made = MaskKey.generate()
    assert made.public != MaskKey.generate().public
    assert MaskKey.from_bytes(made.to_bytes()).public == made.public
