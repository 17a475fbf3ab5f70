"""Masks against RFC 5869 and RFC 8439 by hand; pairs cancel over one cohort and over nothing less."""

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.grid import Words, add_words
from privacy.secure_sum.derivation import derive, encoded
from privacy.secure_sum.masks import cohort_digest, pair_mask, self_mask
from tests.privacy.secure_sum.world import RUN, secrets_of, world

LENGTH = 40


def part(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def hkdf(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869, section 2, with the salt left out: as many zeros as the hash is long."""
    pseudorandom, output, block = hmac.digest(bytes(32), secret, "sha256"), b"", b""
    for counter in range(1, 256):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        output += block
        if len(output) >= length:
            return output[:length]
    raise AssertionError


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


def stream(key: bytes, length: int) -> Words:
    blocks = b"".join(chacha20_block(key, k) for k in range(-(-length // 8)))
    return np.frombuffer(blocks, dtype="<u8")[:length].astype(np.uint64)


@pytest.mark.parametrize("length", [32, 33, 64, 200])
def test_derivation_is_hkdf_of_labelled_parts(length: int) -> None:
    info = part(b"fedcredit/secure-sum/v1/use") + part(b"run") + part((7).to_bytes(8, "big")) + part(b"\0\1")
    assert encoded("use", "run", 7, b"\0\1") == info
    assert derive(b"secret", "use", "run", 7, b"\0\1", length=length) == hkdf(b"secret", info, length)


def test_parts_are_told_apart() -> None:
    assert (
        len({encoded("use", "a", "bc"), encoded("use", "ab", "c"), encoded("use", "abc"), encoded("usea", "bc")}) == 4
    )


def test_masks_are_the_documented_streams() -> None:
    cohort, label = hashlib.sha256(b"cohort").digest(), b"fedcredit/secure-sum/v1/"
    own = hkdf(b"s" * 32, part(label + b"self") + part(cohort) + part(b"a"))
    assert (self_mask(b"s" * 32, cohort, holder="a", length=19) == stream(own, 19)).all()
    shared = hkdf(b"k" * 32, part(label + b"pair") + part(cohort) + part(b"a") + part(b"b"))
    first = pair_mask(b"k" * 32, cohort, holder="a", other="b", length=19)
    second = pair_mask(b"k" * 32, cohort, holder="b", other="a", length=19)
    assert (first == stream(shared, 19)).all()
    assert (first + second == 0).all()


def test_a_members_mask_is_made_of_these_alone() -> None:
    made = world(3, 0)
    stage, name = 2, made.names[1]
    cohort = cohort_digest(made.introduction().digest, stage, made.names)
    own = secrets_of(name, stages=2)
    total = self_mask(own._seeds[stage - 1], cohort, holder=name, length=LENGTH)
    for other in (made.names[0], made.names[2]):
        private = X25519PrivateKey.from_private_bytes(own._keys[stage - 1])
        agreement = private.exchange(X25519PublicKey.from_public_bytes(made.joined[other].stages[stage - 1]))
        total = total + pair_mask(agreement, cohort, holder=name, other=other, length=LENGTH)
    assert (made.members[name].mask(stage, made.names, LENGTH) == total).all()


def assert_looks_uniform(words: Words) -> None:
    ones = sum(int(word).bit_count() for word in words)
    bits = 64 * len(words)
    assert abs(ones - bits / 2) < 5 * (bits / 4) ** 0.5
    assert len(set(words.tolist())) == len(words)


def test_every_mask_looks_uniform_and_differs_by_holder_stage_cohort_and_run() -> None:
    made = world(4, 1)
    others = {name: secrets_of(name, stages=2, run=RUN + "x") for name in made.names}
    joined = {name: each.public for name, each in others.items()}
    sealed = {name: each.deal(joined, threshold=3) for name, each in others.items()}
    masks = []
    for name in made.names[:3]:
        elsewhere = others[name].member(
            joined, made.names, {dealer: sealed[dealer][name] for dealer in made.names if dealer != name}, threshold=3
        )
        member = made.members[name]
        masks += [
            member.mask(1, made.names, LENGTH),
            member.mask(2, made.names, LENGTH),
            member.mask(1, made.names[:3], LENGTH),
            elsewhere.mask(1, made.names, LENGTH),
        ]
    for k, one in enumerate(masks):
        assert_looks_uniform(one)
        for other in masks[:k]:
            assert_looks_uniform(one - other)


@pytest.mark.parametrize("missing", [(), (0,), (3,), (1, 2)])
def test_without_unmasking_any_sum_is_noise(missing: tuple[int, ...]) -> None:
    made = world(4, 1)
    masks = [made.members[name].mask(1, made.names, LENGTH) for k, name in enumerate(made.names) if k not in missing]
    assert_looks_uniform(add_words(masks))


def test_a_mask_has_at_least_one_number() -> None:
    with pytest.raises(ValueError, match="length >= 1"):
        self_mask(bytes(32), bytes(32), holder="a", length=0)
