"""Hostile contents of a record that is truly signed and sealed: handles, ids, times, purposes, JSON."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from privacy.consent.canonical import base64url
from privacy.consent.record import encode_record
from privacy.consent.view import Link
from privacy.errors import MalformedError
from tests.privacy.consent.samples import (
    DAY,
    NOW,
    digest,
    rewritten,
)
from tests.withstand.beds import ALICE, NEWER, Bed, assert_harmless, bed, says, wanted

HOSTILE = (
    "../../etc/passwd", "..", "/", "a/b", "a\\b", "x'; DROP TABLE entries;--", "x' OR '1'='1", "%2e%2e%2f", "a\x00b",
    "holder-01\n", "holder-01\u200b", "hоlder-01", "${jndi:x}", "{{7*7}}",
)  # fmt: skip


def test_handles_with_other_spellings_are_nobodys(withdrawn: Bed) -> None:
    """Padding variants, look-alikes, zero-width and newline characters: a handle has one spelling."""
    handle = base64url(ALICE.handle)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = handle[:-1] + last[last.index(handle[-1]) + 1]  # the same 32 bytes for a careless decoder
    spellings = [
        handle + "=", handle + "==", handle[:-1], handle + "A", stray, " " + handle, handle + " ", handle + "\n",
        "\n" + handle, handle + "\r\n", handle + "\0", handle[:20] + "\u200b" + handle[20:], "\ufeff" + handle,
        handle + "\u2060", handle[:20] + "\u00ad" + handle[20:], handle.replace(handle[3], "а", 1),
        handle.replace("-", "+").replace("_", "/") + "=", handle.upper(), handle.lower(), handle.swapcase(),
        "".join(chr(ord(char) + 0xFEE0) for char in handle), ALICE.handle.hex(), "", handle * 2, "../" + handle,
        handle + "'--", f"{handle}%00",
    ]  # fmt: skip
    assert handle not in spellings
    assert_harmless(
        withdrawn,
        *(says(rewritten(wanted(seq=NEWER + k), sub=text), f"handle {k}") for k, text in enumerate(spellings)),
    )


def test_ids_with_path_and_sql_payloads_are_refused_and_run_nothing(withdrawn: Bed) -> None:
    fields = msgspec.to_builtins(wanted())
    attacks = []
    for text in HOSTILE:
        attacks += [rewritten(wanted(), aud=text), rewritten(wanted(), kid=text), rewritten(wanted(), jur=text)]
        attacks += [rewritten(wanted(), terms=fields["terms"] | {"id": text})]
        for change in ({"to": text}, {"data": [text]}, {"purpose": text}):
            attacks.append(rewritten(wanted(), grants=[fields["grants"][0] | change]))
    assert_harmless(withdrawn, *(says(payload, f"hostile {k}") for k, payload in enumerate(attacks)))


def test_customer_numbers_are_data_and_never_code(tmp_path: Path) -> None:
    numbers = ["x'; DROP TABLE links;--", "../../etc/passwd", "' OR ''='", "4711\n", "٤٧١١", "$(reboot)"]
    with bed(tmp_path) as made:
        made.lane.link({number: Link(digest(number), ALICE.key.public, 0) for number in numbers})
        made.restart()
        assert {number: made.lane.links()[number] for number in numbers} == {n: digest(n) for n in numbers}
        assert made.lane.unlink(numbers[0]) == digest(numbers[0])
        assert len(made.lane.links()) == len(numbers) + 1


YEAR_9999 = 253_402_214_400
BAD_TIMES: dict[str, dict[str, Any]] = {
    "year 9999": {"exp": YEAR_9999, "reconfirm_by": YEAR_9999},
    "year 9999 after a begin just before it": {
        "nbf": YEAR_9999 - DAY, "exp": YEAR_9999, "reconfirm_by": YEAR_9999,
    },
    "beyond any calendar": {"exp": 2**63 - 1}, "beyond 64 bits": {"exp": 2**64}, "milliseconds": {"exp": NOW * 1000},
    "ends when it begins": {"exp": NOW - 10 * DAY}, "ends before it begins": {"exp": NOW - 11 * DAY},
    "negative begin": {"nbf": -1}, "negative end": {"exp": -1}, "negative zero": {"nbf": -0.0},
    "float begin": {"nbf": float(NOW - DAY)}, "float end": {"exp": NOW + DAY + 0.5}, "exponent": {"exp": 2e9},
    "boolean begin": {"nbf": True}, "boolean end": {"exp": True}, "boolean pause": {"reconfirm_by": True},
    "string begin": {"nbf": str(NOW - DAY)}, "string end": {"exp": str(NOW + DAY)},
    "iso end": {"exp": "2030-01-01T00:00:00Z"}, "null end": {"exp": None}, "list end": {"exp": [NOW + DAY]},
    "pause before the begin": {"reconfirm_by": NOW - 11 * DAY},
    "pause after the end": {"reconfirm_by": NOW + 301 * DAY},
    "four hundred days and a second": {"exp": NOW + 390 * DAY + 1},
    "negative retention": {"retain_s": -1}, "boolean retention": {"retain_s": True},
}  # fmt: skip


def test_times_that_cannot_be_meant_grant_nothing(withdrawn: Bed) -> None:
    """Year 9999, an end not after the begin, negative, float, boolean and string times."""
    fields = msgspec.to_builtins(wanted())["grants"][0]
    attacks = [
        says(rewritten(wanted(), grants=[fields | change]), f"times {name}") for name, change in BAD_TIMES.items()
    ]
    for issued in (-1, True, float(NOW), str(NOW), YEAR_9999, None, "2030-01-01T00:00:00Z", 2**64):
        attacks.append(says(rewritten(wanted(), iat=issued), f"issued {issued!r}"))
    assert_harmless(withdrawn, *attacks)


def test_an_unknown_purpose_grants_nothing(withdrawn: Bed) -> None:
    fields = msgspec.to_builtins(wanted())["grants"][0]
    words = ("sell", "*", "", "Train", "TRAIN", "train ", "tr\u0430in", "train\u200b", "any", "train,score", None, 1)
    attacks = [rewritten(wanted(), grants=[fields | {"purpose": word}]) for word in words]
    attacks += [rewritten(wanted(), grants=[fields | {"purpose": ["train"]}]), rewritten(wanted(), purpose="train")]
    # One unknown purpose spoils the whole record: what it meant cannot be known.
    attacks.append(rewritten(wanted(), grants=[fields, fields | {"purpose": "unknown"}]))
    assert_harmless(withdrawn, *(says(payload, f"purpose {k}") for k, payload in enumerate(attacks)))


def test_duplicate_keys_are_refused_wherever_they_are(withdrawn: Bed) -> None:
    payload = encode_record(wanted())
    doubled = [
        payload.replace(b'"frozen":false', b'"frozen":true,"frozen":false'),
        payload.replace(b'"seq":3', b'"seq":2,"seq":3'),
        payload.replace(b'"seq":3', b'"seq":3,"seq":3'),
        payload.replace(b'"purpose":"train"', b'"purpose":"score","purpose":"train"'),
        payload.replace(b'"exp":', b'"exp":1,"exp":'),
        payload.replace(b'{"aud"', b'{"aud":"holder-02","aud"'),
        payload[:-1] + b',"grants":[]}',
        payload.replace(b'"seq":3', b'"seq":3,"s\\u0065q":3'),
    ]
    assert all(attack != payload for attack in doubled)
    assert_harmless(withdrawn, *(says(attack, f"double {k}") for k, attack in enumerate(doubled)))


def test_huge_deep_and_non_canonical_json_is_refused(withdrawn: Bed) -> None:
    payload = encode_record(wanted())
    fields = json.loads(payload)
    room = 1400
    attacks = [
        b"[" * room, b'{"a":' * (room // 5), b"[" * (room // 2) + b"]" * (room // 2), b"1" * room, b'"' + b"a" * room,
        b"\x00" * room, b"\xff" * room, b"",
        b" " + payload, payload + b"\n", b"\xef\xbb\xbf" + payload, payload.replace(b'"seq":3', b'"seq": 3'),
        payload.replace(b'"seq":3', b'"seq":3.0'), payload.replace(b'"seq":3', b'"seq":3e0'),
        payload.replace(b'"seq":3', b'"seq":03'), payload.replace(b'"seq":3', b'"seq":+3'),
        payload.replace(b'"seq":3', b'"seq":' + b"3" * 300), payload.replace(b'"seq":3', b'"seq":NaN'),
        payload.replace(b'"seq":3', b'"seq":Infinity'), payload.replace(b'"train"', b'"tr\\u0061in"'),
        payload.replace(b'"TW"', b'"\\u0054W"'),
        json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode(),
        json.dumps(fields).encode("utf-16"), payload + payload, payload + b"\x00", payload[:-1] + b",}",
        b"// " + payload, payload.replace(b'"', b"'"), payload[:-1] + b',"zz":1}', b"[" + payload + b"]",
    ]  # fmt: skip
    assert payload not in attacks
    assert_harmless(withdrawn, *(says(attack, f"json {k}") for k, attack in enumerate(attacks)))
    # What is larger than the bucket cannot even be sealed.
    with pytest.raises(MalformedError):
        says(payload.ljust(10**6), "huge")
