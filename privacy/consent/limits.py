"""Sizes, ranges and alphabets of everything that is signed: one closed set for all parties.

A parser that meets a value outside these ranges refuses the whole message.
"""

from typing import Annotated, Final

from msgspec import Meta

HANDLE_BYTES: Final = 32
DIGEST_BYTES: Final = 32
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 16
TAG_BYTES: Final = 16
SIGNATURE_BYTES: Final = 64
RHO_BYTES: Final = 32
LENGTH_BYTES: Final = 2

RECORD_BUCKET_BYTES: Final = 1536
"""Size of every sealed record before encryption, whatever it says."""

MAX_PAYLOAD_BYTES: Final = RECORD_BUCKET_BYTES - LENGTH_BYTES - SIGNATURE_BYTES - RHO_BYTES

MESSAGE_BUCKETS_BYTES: Final = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20)
"""Sizes of a sealed message before encryption: the smallest that fits, so a length says almost nothing."""

MAX_SEALED_BYTES: Final = 4096
"""Most bytes beside one log entry: a sealed record has 2,673, or 1,585 in the small suite."""
MAX_SUBMISSIONS: Final = 256
"""Most records in one submission: as many as a registry puts into one commit."""

DAY_S: Final = 86_400
MAX_GRANT_S: Final = 400 * DAY_S
MAX_RETAIN_S: Final = 3660 * DAY_S
MAX_GRANTS: Final = 16
MAX_CATEGORIES: Final = 16

MAX_MERGE_DELAY_S: Final = 3600
"""Longest time from a registry's promise until a signed head must cover the entry."""
MAX_KEY_SET_S: Final = 90 * DAY_S
MAX_EPOCHS: Final = 16
MAX_OFFER_S: Final = 30 * DAY_S
MAX_NOTICE_CHARS: Final = 8192

# A clock set to zero, a time in milliseconds and "year 9999" all fall outside these two instants.
EARLIEST_UTC_S: Final = 1_577_836_800  # 2020-01-01T00:00:00Z
LATEST_UTC_S: Final = 4_102_444_800  # 2100-01-01T00:00:00Z

MAX_COUNT: Final = 2**53 - 1  # RFC 8785, section 3.2.2.3: integers beyond this have no canonical JSON

# Python's `$` also matches before a final newline, hence \Z.
NAME_PATTERN: Final = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*\Z"
CATEGORY_PATTERN: Final = r"^[a-z][a-z0-9_]*\Z"
# The last of 43 characters carries 4 bits of the 256, of 22 characters 2 bits of the 128: the rest must be 0.
BASE64_32_PATTERN: Final = r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]\Z"
BASE64_16_PATTERN: Final = r"^[A-Za-z0-9_-]{21}[AQgw]\Z"
# No login, query or final slash: whoever appends a path needs not look. Plain HTTP only within one machine. A host is
# what every library takes for one: labels of letters, digits and inner hyphens, no "xn--" (of which many spellings are
# no name, and some look like another), and only an IPv4 address ends in a label of digits. Ports end at 65535.
_LABEL: Final = r"(?!xn--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HOST: Final = rf"(?:{_OCTET}(?:\.{_OCTET}){{3}}|(?![a-z0-9.-]{{254}})(?:{_LABEL}\.)*(?![0-9]+(?:[:/]|\Z)){_LABEL})"
_PORT: Final = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_PATH: Final = r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*"
URL_PATTERN: Final = rf"^(?:https://{_HOST}|http://127\.0\.0\.1)(?::{_PORT})?{_PATH}\Z"

UtcSeconds = Annotated[int, Meta(ge=EARLIEST_UTC_S, le=LATEST_UTC_S)]
Count = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Position = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
"""Where an entry stands in its log; the first is 0."""
Name = Annotated[str, Meta(pattern=NAME_PATTERN, max_length=64)]
"""Name of a data holder, coordinator, lender or lane: lower-case ASCII words joined by `.`, `_` or `-`."""
CategoryName = Annotated[str, Meta(pattern=CATEGORY_PATTERN, max_length=32)]
Base64Of32 = Annotated[str, Meta(pattern=BASE64_32_PATTERN)]
Base64Of16 = Annotated[str, Meta(pattern=BASE64_16_PATTERN)]
ServiceUrl = Annotated[str, Meta(pattern=URL_PATTERN, max_length=256)]
"""Where a party serves, without a final slash: `https://host[:port][/path]`, or `http://127.0.0.1[:port]`."""
