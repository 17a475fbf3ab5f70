import json
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.canonical import base64url
from privacy.consent.limits import MAX_PAYLOAD_BYTES
from privacy.consent.record import (
    ConsentRecord,
    Grant,
    Purpose,
    Signer,
    TrainingBudget,
    Uses,
    encode_record,
    key_id,
    parse_record,
    payload_digest,
)
from privacy.errors import MalformedError
from tests.privacy.consent.samples import DAY, NOW, Person, budget, grant, record, rewritten

ALICE = Person("alice")
WISHES = record(ALICE, grant(Purpose.SCORE), grant(Purpose.TRAIN))
PAYLOAD = encode_record(WISHES)

names = st.from_regex(r"\A[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,4})?\Z")


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    purpose = draw(st.sampled_from(Purpose))
    nbf = draw(st.integers(NOW - 1000 * DAY, NOW))
    exp = nbf + draw(st.integers(1, 400 * DAY))
    limit = Uses(n=draw(st.integers(1, 99)), per_s=draw(st.integers(1, DAY)))
    cap = TrainingBudget(
        share_milli=draw(st.integers(1, 1000)),
        eps_milli=draw(st.integers(1, 9000)),
        delta_log10=draw(st.integers(-15, -3)),
        window_s=draw(st.integers(1, DAY)),
    )
    statistics = purpose in {Purpose.TRAIN, Purpose.VALIDATE}
    return Grant(
        purpose=purpose,
        to=draw(names),
        data=tuple(sorted(draw(st.sets(st.from_regex(r"\A[a-z][a-z_]{0,9}\Z"), min_size=1, max_size=3)))),
        nbf=nbf,
        exp=exp,
        reconfirm_by=draw(st.integers(nbf + 1, exp)),
        retain_s=draw(st.integers(0, DAY)),
        dp=cap if statistics else None,
        uses=None if statistics else limit,
    )


@st.composite
def records(draw: st.DrawFn) -> ConsentRecord:
    wanted = draw(st.lists(grants(), max_size=3, unique_by=lambda one: (one.purpose, one.to)))
    return record(
        Person(draw(st.text(max_size=3))),
        *sorted(wanted, key=lambda one: (one.purpose.value, one.to)),
        seq=draw(st.integers(1, 2**53 - 1)),
        aud=draw(names),
        frozen=draw(st.booleans()),
        signer=draw(st.sampled_from(Signer)),
    )


@given(records())
def test_a_record_is_read_back_and_is_canonical_by_the_rfc8785_package(wishes: ConsentRecord) -> None:
    payload = encode_record(wishes)
    assert parse_record(payload) == wishes
    assert rfc8785.dumps(json.loads(payload)) == payload


@given(records(), st.data())
def test_any_other_spelling_of_a_record_is_refused(wishes: ConsentRecord, data: st.DataObject) -> None:
    fields = json.loads(encode_record(wishes))
    shuffled = dict(data.draw(st.permutations(list(fields.items()))))
    for spelling in (
        json.dumps(shuffled).encode(),
        json.dumps(fields, sort_keys=True).encode(),
        json.dumps(shuffled, separators=(",", ":")).encode(),
    ):
        if spelling != encode_record(wishes):
            with pytest.raises(MalformedError):
                parse_record(spelling)


@given(st.binary(max_size=1500))
def test_arbitrary_bytes_never_crash_the_parser(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_record(payload)


@given(st.integers(0, len(PAYLOAD) - 1), st.binary(max_size=3))
def test_a_changed_payload_is_refused_or_is_the_encoding_of_another_record(place: int, new: bytes) -> None:
    changed = PAYLOAD[:place] + new + PAYLOAD[place + 1 :]
    try:
        read = parse_record(changed)
    except MalformedError:
        return
    assert encode_record(read) == changed
    assert (read == WISHES) == (changed == PAYLOAD)


def test_the_untouched_record_passes_the_helper_that_breaks_it() -> None:
    assert rewritten(WISHES) == PAYLOAD


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": "1"},
        {"v": True},
        {"typ": "fedcredit.plan"},
        {"aud": "Holder-01"},
        {"aud": "../../etc/passwd"},
        {"aud": "x'; DROP TABLE stubs;--"},
        {"aud": "holder-01\n"},
        {"aud": "hоlder-01"},  # Cyrillic o
        {"aud": "a" * 65},
        {"aud": ""},
        {"aud_kid": 0},
        {"aud_kid": "1"},
        {"sub": base64url(bytes(31))},
        {"sub": base64url(bytes(32)) + "="},
        {"sub": "A" * 42 + "B"},
        {"sub": "A" * 43 + "\n"},
        {"kid": "A" * 21 + "B"},
        {"seq": 0},
        {"seq": -1},
        {"seq": 1.0},
        {"seq": True},
        {"seq": "1"},
        {"seq": 2**53},
        {"seq": 2},
        {"prev": base64url(bytes(32))},
        {"iat": -1},
        {"iat": float(NOW)},
        {"iat": True},
        {"iat": str(NOW)},
        {"iat": "2026-11-21T00:00:00Z"},
        {"iat": 253_402_214_400},  # year 9999
        {"iat": NOW * 1000},
        {"iat": None},
        {"frozen": 0},
        {"frozen": "false"},
        {"frozen": None},
        {"grants": None},
        {"grants": {}},
        {"terms": None},
        {"terms": {"id": "t", "sha256": "x", "lang": "en"}},
        {"jur": "tw"},
        {"signer": "employer"},
        {"extra": 1},
        {"SUB": base64url(bytes(32))},
    ],
    ids=str,
)
def test_a_field_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_record(rewritten(WISHES, **changes))


@pytest.mark.parametrize("absent", sorted(ConsentRecord.__struct_fields__))
def test_no_field_may_be_absent(absent: str) -> None:
    fields = json.loads(PAYLOAD)
    del fields[absent]
    with pytest.raises(MalformedError):
        parse_record(rfc8785.dumps(fields))


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "sell"},
        {"purpose": "*"},
        {"purpose": "Train"},
        {"purpose": ["train"]},
        {"to": "*"},
        {"to": "coordinator\u200b"},
        {"data": []},
        {"data": ["credit_history", "capacity"]},
        {"data": ["capacity", "capacity"]},
        {"data": ["*"]},
        {"data": "capacity"},
        {"nbf": NOW + 0.5},
        {"nbf": True},
        {"nbf": -1},
        {"exp": NOW - 10 * DAY},  # exp == nbf
        {"exp": NOW - 11 * DAY},
        {"exp": NOW + 390 * DAY + 1},
        {"exp": 253_402_214_400},
        {"exp": None},
        {"reconfirm_by": NOW - 10 * DAY},
        {"reconfirm_by": NOW + 300 * DAY + 1},
        {"retain_s": -1},
        {"retain_s": 10**10},
        {"dp": None},
        {"dp": {"share_milli": 0, "eps_milli": 1, "delta_log10": -5, "window_s": 1}},
        {"dp": {"share_milli": 1001, "eps_milli": 1, "delta_log10": -5, "window_s": 1}},
        {"dp": {"share_milli": 1, "eps_milli": 0, "delta_log10": -5, "window_s": 1}},
        {"dp": {"share_milli": 1, "eps_milli": 0.5, "delta_log10": -5, "window_s": 1}},
        {"dp": {"share_milli": 1, "eps_milli": 1, "delta_log10": 0, "window_s": 1}},
        {"dp": {"share_milli": 1, "eps_milli": 1, "delta_log10": -5, "window_s": 0}},
        {"dp": {"share_milli": 1, "eps_milli": 1, "delta_log10": -5}},
        {"dp": {"share_milli": 1, "eps_milli": 1, "delta_log10": -5, "window_s": 1, "x": 1}},
        {"uses": {"n": 1, "per_s": 1}},
        {"uses": None},
        {"purpose": "score"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_grant_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    fields = msgspec.to_builtins(grant(Purpose.TRAIN)) | changes
    good = json.loads(encode_record(record(ALICE, grant(Purpose.TRAIN))))["grants"]
    parse_record(rewritten(record(ALICE), grants=good))
    with pytest.raises(MalformedError):
        parse_record(rewritten(record(ALICE), grants=[fields]))


@pytest.mark.parametrize(
    "wanted",
    [
        grant(Purpose.TRAIN, dp=None),
        grant(Purpose.VALIDATE, dp=None),
        grant(Purpose.TRAIN, dp=None, uses=Uses(n=1, per_s=1)),
        grant(Purpose.TRAIN, uses=Uses(n=1, per_s=1)),
        grant(Purpose.SCORE, uses=None),
        grant(Purpose.SCORE, uses=None, dp=budget()),
        grant(Purpose.MONITOR, dp=budget()),
    ],
)
def test_statistics_have_a_budget_and_answers_a_limit_of_uses(wanted: Grant) -> None:
    with pytest.raises(MalformedError, match="dp and uses"):
        encode_record(record(ALICE, wanted))


def test_four_hundred_days_are_allowed_and_no_second_more() -> None:
    start = NOW - 10 * DAY
    encode_record(record(ALICE, grant(exp=start + 400 * DAY)))
    with pytest.raises(MalformedError, match="400 days"):
        encode_record(record(ALICE, grant(exp=start + 400 * DAY + 1)))


@pytest.mark.parametrize(
    "wanted",
    [
        (grant(Purpose.TRAIN), grant(Purpose.TRAIN)),
        (grant(Purpose.TRAIN), grant(Purpose.TRAIN, dp=budget(share_milli=1))),
        (grant(Purpose.TRAIN), grant(Purpose.SCORE)),
        (grant(Purpose.SCORE, to="lender-2"), grant(Purpose.SCORE, to="lender-1")),
    ],
    ids=["twice", "twice with other terms", "purposes descending", "recipients descending"],
)
def test_there_is_one_grant_for_each_purpose_and_recipient_in_one_order(wanted: tuple[Grant, ...]) -> None:
    with pytest.raises(MalformedError, match="one grant for each"):
        encode_record(record(ALICE, *wanted))


def test_duplicate_keys_are_refused() -> None:
    for double in (b'"seq":1,"seq":1', b'"seq":9,"seq":1'):
        with pytest.raises(MalformedError):
            parse_record(PAYLOAD.replace(b'"seq":1', double))


def test_huge_and_deep_payloads_are_refused() -> None:
    for payload in (
        b"[" * 100_000,
        PAYLOAD.ljust(10**6),
        b'{"aud":' + b'{"a":' * 280,
        b"1" * MAX_PAYLOAD_BYTES,
    ):
        with pytest.raises(MalformedError):
            parse_record(payload)


def test_a_record_too_long_for_its_bucket_is_refused() -> None:
    many = [grant(Purpose.SCORE, to=f"lender-{number:02}") for number in range(8)]
    with pytest.raises(MalformedError, match="at most 1438"):
        encode_record(record(ALICE, *many))


def test_a_rule_is_checked_when_writing_too() -> None:
    for wrong in (
        record(ALICE, seq=0),
        record(ALICE, aud="A"),
        record(ALICE, frozen=1),
        record(ALICE, iat=1.5),
    ):
        with pytest.raises(MalformedError):
            encode_record(wrong)


def test_ids_are_labelled_hashes() -> None:
    assert len(key_id(ALICE.key.public)) == 22
    assert key_id(ALICE.key.public) != key_id(Person("bob").key.public)
    assert record(ALICE).handle == ALICE.handle
    assert payload_digest(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


def test_messages_hold_no_value_of_the_record() -> None:
    for changes in ({"sub": "secret-value"}, {"seq": "secret-value"}, {"signer": "secret-value"}, {"aud": 3}):
        with pytest.raises(MalformedError) as caught:
            parse_record(rewritten(WISHES, **changes))
        text = str(caught.value)
        assert "secret-value" not in text
        assert WISHES.sub not in text
        assert all(f"$.{field}" in text for field in changes)
