"""Enrolment: a data holder's request to join a federation, and the coordinator's welcome.

A request is signed twice, by the identity key and by the node key that it names, so that nobody enrols a key that is
not theirs. Whose keys they are only a fingerprint tells, compared by telephone. A welcome is signed by the coordinator
and good for one data holder with these two keys. Private keys have no place in either.
"""

import re
from collections.abc import Collection
from hashlib import sha256
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from msgspec import Meta, Struct

from federated.certificates import read_authorities
from privacy.consent.canonical import CanonicalJson
from privacy.consent.envelope import MAX_ENVELOPE_BYTES, open_envelope, peek_envelope, write_envelope
from privacy.consent.limits import DAY_S, Name, ServiceUrl, UtcSeconds
from privacy.consent.linking import fingerprint, only_certificates
from privacy.consent.signing import SMALL_ORDER_ENCODINGS, PayloadType, SigningKey, pre_authentication_encoding
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError, UsageError

MAX_FILE_BYTES: Final = MAX_ENVELOPE_BYTES
MAX_PEERS: Final = 320
"""Most other data holders in a welcome: one envelope holds them all, whatever their names."""
GOOD_FOR_S: Final = 30 * DAY_S
"""For how long after it was written a request or a welcome is taken."""
CLOCK_ERROR_S: Final = 3600
"""How far the two ends' clocks may differ, in seconds."""

_REQUEST: Final = "a request to join"
_WELCOME: Final = "a welcome"
_MAX_PAYLOAD: Final = (MAX_FILE_BYTES - 1024) // 4 * 3
_CURVE: Final = ec.SECP384R1
_FINGERPRINT: Final = re.compile(r"[0-9]{24}\Z")

HolderId = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z", max_length=63)]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
NodeKeyText = Annotated[str, Meta(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/]{150,250}={0,2}\Z")]
Address = Annotated[
    str, Meta(pattern=r"^(?:\[[0-9a-f:]{2,39}\]|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?):[1-9][0-9]{0,4}\Z")
]


class EnrolmentRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What a data holder asks to be known by: its id, Ed25519 `identity` (hex) and P-384 `node_key` (OpenSSH)."""

    v: Literal[1] = 1
    typ: Literal["fedcredit.enrolment-request"] = "fedcredit.enrolment-request"
    holder: HolderId
    identity: Hex32
    node_key: NodeKeyText
    issued_at: UtcSeconds


class _Proven(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A request and the node key's ECDSA signature over it (DER, hex): proof that whoever asks holds that key."""

    request: EnrolmentRequest
    possession: Annotated[str, Meta(pattern=r"^[0-9a-f]{2,220}\Z")]


class RegistryKnown(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The consent registry that the coordinator pins runs to, and the key (hex) that signs its heads."""

    url: ServiceUrl
    key: Hex32


class Welcome(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What one enrolled data holder must know of the federation. `holder`, `identity` and `node_key` are its own.

    `ca` holds the authorities (PEM) that vouch for `address`; `bundle` and `schema` are digests in hex; `peers` are
    the identities of the other data holders.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.welcome"] = "fedcredit.welcome"
    holder: HolderId
    identity: Hex32
    node_key: NodeKeyText
    issued_at: UtcSeconds
    coordinator: Name
    coordinator_key: Hex32
    address: Address
    ca: Annotated[str, Meta(min_length=1, max_length=8192)]
    schema: Hex32
    bundle: Hex32
    registry: RegistryKnown | None
    peers: Annotated[dict[HolderId, Hex32], Meta(max_length=MAX_PEERS)]


_REQUESTS: Final = CanonicalJson(EnrolmentRequest, what=_REQUEST, max_bytes=_MAX_PAYLOAD)
_PROVEN: Final = CanonicalJson(_Proven, what=_REQUEST, max_bytes=_MAX_PAYLOAD)
_WELCOMES: Final = CanonicalJson(Welcome, what=_WELCOME, max_bytes=_MAX_PAYLOAD)


def write_request(holder: str, identity: SigningKey, node: ec.EllipticCurvePrivateKey, *, at: int) -> bytes:
    """The request of `holder` at `at` (UTC seconds), signed by both of its keys. MalformedError for a broken rule."""
    request = EnrolmentRequest(
        holder=holder, identity=identity.public.hex(), node_key=node_key_text(node.public_key()), issued_at=at
    )  # fmt: skip
    possession = node.sign(_to_sign(request), ec.ECDSA(SHA384()))
    return write_envelope(
        PayloadType.ENROLMENT_REQUEST, _PROVEN.encode(_Proven(request=request, possession=possession.hex())), identity
    )  # fmt: skip


def read_request(data: bytes, *, at: int) -> EnrolmentRequest:
    """The request in `data`, signed by both keys that it names, as read at `at` (UTC seconds).

    Whose keys they are only `fingerprint_of` can tell. MalformedError, TamperingError, or RefusalError when it is too
    old or from the future.
    """
    kind = PayloadType.ENROLMENT_REQUEST
    proven = _PROVEN.parse(peek_envelope(data, kind, what=_REQUEST, max_bytes=MAX_FILE_BYTES))
    request = proven.request
    open_envelope(data, kind, bytes.fromhex(request.identity), what=_REQUEST, max_bytes=MAX_FILE_BYTES)
    try:
        node_key_of(request.node_key).verify(
            bytes.fromhex(proven.possession) if len(proven.possession) % 2 == 0 else b"",
            _to_sign(request),
            ec.ECDSA(SHA384()),
        )
    except InvalidSignature:
        raise TamperingError(
            "a request to join is not signed by the node key that it names, so whoever wrote it may not have that key. "
            "Do not enrol it; ask the data holder to write the request again with `fedcredit holder join --request`."
        ) from None
    _check_time(request.issued_at, _REQUEST, at=at)
    return request


def write_welcome(welcome: Welcome, key: SigningKey) -> bytes:
    """`welcome` in an envelope signed by the coordinator's `key`. MalformedError for a broken rule."""
    payload = _WELCOMES.encode(welcome)
    _check_welcome(welcome)
    if welcome.coordinator_key != key.public.hex():
        raise MalformedError("a welcome must name the key that signs it; the coordinator must write it again.")
    return write_envelope(PayloadType.WELCOME, payload, key)


def read_welcome(data: bytes, *, signers: Collection[bytes], at: int) -> Welcome:
    """The welcome in `data`, signed by one of `signers` (Ed25519 public keys), as read at `at` (UTC seconds).

    To whom it is addressed is for the reader to compare. MalformedError, TamperingError, or RefusalError when it is
    too old or from the future.
    """
    welcome = _WELCOMES.parse(peek_envelope(data, PayloadType.WELCOME, what=_WELCOME, max_bytes=MAX_FILE_BYTES))
    signer = bytes.fromhex(welcome.coordinator_key)
    if signer not in signers:
        raise TamperingError(
            "a welcome is signed by none of the keys in policy.coordinator_keys, so it comes from another coordinator "
            "or from one whose key has changed. Do not take it; ask the coordinator by telephone, and add its new key "
            "to holder.toml only if it reads it out to you."
        )
    open_envelope(data, PayloadType.WELCOME, signer, what=_WELCOME, max_bytes=MAX_FILE_BYTES)
    _check_welcome(welcome)
    _check_time(welcome.issued_at, _WELCOME, at=at)
    return welcome


def is_welcome(data: bytes) -> bool:
    """Whether `data` has a welcome's form; nothing about who signed it."""
    try:
        _WELCOMES.parse(peek_envelope(data, PayloadType.WELCOME, what=_WELCOME, max_bytes=MAX_FILE_BYTES))
    except MalformedError:
        return False
    return True


def node_key_text(key: ec.EllipticCurvePublicKey) -> str:
    """A node's public key in OpenSSH's form, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def node_key_of(text: str) -> ec.EllipticCurvePublicKey:
    """The P-384 public key in `text`, which is exactly what `node_key_text` writes. Raises MalformedError."""
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, _CURVE)
        or node_key_text(key) != text
    ):
        raise MalformedError(
            "a node key is not a P-384 public key in OpenSSH's form; the data holder must write its request again with "
            "`fedcredit holder join --request`."
        )
    return key


def fingerprint_of(holder: str, identity: str, node_key: str) -> str:
    """Eight groups of three digits over a data holder's id and both of its public keys, to compare by telephone."""
    named = msgspec.json.encode(["fedcredit/enrolment/v1", holder, identity, node_key])
    return fingerprint(sha256(named).digest())


def compare_fingerprint(typed: str, expected: str) -> None:
    """TamperingError unless `typed` has the digits of `expected`; UsageError if it is no fingerprint at all."""
    digits = re.sub(r"[\s.,-]", "", typed)
    if not _FINGERPRINT.match(digits):
        raise UsageError(
            "a fingerprint is eight groups of three digits. Let the data holder read theirs out again, and type all "
            "of it."
        )
    if digits != expected.replace(" ", ""):
        raise TamperingError(
            "the fingerprint that was read out is not that of this request, so somebody may have put another key into "
            "it. Nothing was enrolled. Let the data holder read it out once more; if it still differs, have the "
            "request sent again by another way."
        )


def _to_sign(request: EnrolmentRequest) -> bytes:
    """What the node key signs. Flower has it sign times, and no time begins like this."""
    return pre_authentication_encoding(PayloadType.ENROLMENT_REQUEST, _REQUESTS.encode(request))


def _check_welcome(welcome: Welcome) -> None:
    node_key_of(welcome.node_key)
    read_authorities(welcome.ca.encode(), what="a welcome's ca")
    if only_certificates(welcome.ca) != welcome.ca:
        raise _broken("ca", "certificates in PEM and nothing else")
    identities = [welcome.identity, *welcome.peers.values()]
    if {bytes.fromhex(text) for text in identities} & SMALL_ORDER_ENCODINGS:
        raise _broken("peers", "Ed25519 keys of large order")
    if welcome.holder in welcome.peers or len(set(identities)) != len(identities):
        raise _broken("peers", "other data holders than the addressee, each with a key of its own")


def _check_time(issued_at: int, what: str, *, at: int) -> None:
    if issued_at > at + CLOCK_ERROR_S:
        raise RefusalError(
            f"{what} is from more than an hour in the future. Compare the clocks at both ends, then have it written "
            "again.",
            RefusalCode.POLICY,
        )
    if at >= issued_at + GOOD_FOR_S:
        raise RefusalError(
            f"{what} is more than {GOOD_FOR_S // DAY_S} days old and no longer taken. Have it written again.",
            RefusalCode.POLICY,
        )


def _broken(field: str, needed: str) -> MalformedError:
    return MalformedError(
        f"a welcome breaks the rule of its {field}: {needed}. The coordinator must write it again."
    )  # fmt: skip
