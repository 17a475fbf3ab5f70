import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.lane import Head
from privacy.consent.linking import Notice, notice_digest
from privacy.consent.record import (
    ConsentRecord,
    Purpose,
    Signer,
    Terms,
    Uses,
    encode_record,
    payload_digest,
)
from privacy.consent.ts27560 import receipt_view
from privacy.errors import MalformedError
from tests.privacy.consent.samples import DAY, HOLDER, LENDER, NOW, Person, budget, digest, grant, record

ALICE = Person("alice")
TEXT = "We ask you for your consent.\nOur address: 1 Main Street. 你隨時可以撤回同意。"
NOTICE = Notice(terms=Terms(id="notice-1", sha256=notice_digest(TEXT), lang="en"), text=TEXT, jur="TW")
URL = "https://registry.example"
HEAD = Head(9, digest("root"))


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Every term that a document may use, looked up in the published vocabularies: DPV 2.3 (dpv.ttl, owl:versionInfo
# "2.3", status accepted or modified), its finance sector extension 2.3, DCMI Metadata Terms, RDF and SKOS.
DPV_CLASSES = words("""
    ConsentExpired ConsentGiven ConsentNotice ConsentReceipt ConsentRecord ConsentStatusInvalidForProcessing
    ConsentWithdrawn CustomerSolvencyMonitoring DataController DataSubject DataSubjectRight DifferentialPrivacy
    DigitalSignatures Entity ExplicitlyExpressedConsent Frequency GuardianOfDataSubject Jurisdiction LocalLocation
    PersonalData Process ProvideConsent Purpose ReaffirmConsent Recipient ResearchAndDevelopment StorageDuration
    StorageLocation TemporalDuration UntilEventDuration UntilTimeDuration WithdrawConsent
""")
DPV_PROPERTIES = words("""
    hasAddress hasConsentControl hasConsentStatus hasContact hasDataController hasDataSubject hasDuration hasFrequency
    hasIndicationMethod hasJurisdiction hasLegalBasis hasLocation hasName hasNotice hasPersonalData hasProcess
    hasPurpose hasRecipient hasRecordOfActivity hasRight hasStorageCondition hasTechnicalMeasure isExercisedAt
    isIndicatedAtTime isIndicatedBy
""")
DCT = words("conformsTo created description identifier language provenance replaces source title valid")
DPV_IRI = "https://w3id.org/dpv#"
FINANCE_IRI = "https://w3id.org/dpv/sector/finance#"
DCT_IRI = "http://purl.org/dc/terms/"
RDF_VALUE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#value"
SKOS_BROADER = "http://www.w3.org/2004/02/skos/core#broader"
CLASSES = {DPV_IRI + name for name in DPV_CLASSES} | {
    FINANCE_IRI + name for name in ("CreditChecking", "CreditScoreEvaluation")
}
PROPERTIES = {DPV_IRI + name for name in DPV_PROPERTIES} | {DCT_IRI + name for name in DCT} | {RDF_VALUE, SKOS_BROADER}

# Fields that the guide of the DPV group, sections 8 and 9, says MUST be present, with its properties.
MANDATORY_IN_A_RECORD = words("""
    dct:conformsTo dct:identifier dpv:hasDataSubject dpv:hasNotice dpv:hasProcess dpv:hasConsentControl
    dpv:hasJurisdiction dpv:hasRight dpv:hasDataController dpv:hasConsentStatus
""")
MANDATORY_IN_A_PROCESS = words("""
    dpv:hasPurpose dpv:hasPersonalData dpv:hasStorageCondition dpv:hasDataController dpv:hasRecipient
    dpv:hasLegalBasis dpv:hasConsentStatus
""")
MANDATORY_IN_AN_EVENT = words("@type dpv:isIndicatedAtTime dpv:hasDuration dpv:isIndicatedBy")


def wishes(*purposes: Purpose, **changes: Any) -> ConsentRecord:
    return record(ALICE, *[grant(one) for one in purposes], **({"terms": NOTICE.terms} | changes))


def viewed(of: ConsentRecord, *, at: int = NOW, position: int = 4) -> dict[str, Any]:
    return receipt_view(of, notice=NOTICE, registry_url=URL, position=position, head=HEAD, at=at)


def consent(of: ConsentRecord, *, at: int = NOW) -> dict[str, Any]:
    found = viewed(of, at=at)["dpv:hasRecordOfActivity"]
    assert isinstance(found, dict)
    return found


ALL = wishes(Purpose.MONITOR, Purpose.SCORE, Purpose.TRAIN, Purpose.VALIDATE, seq=3)


class Terms27560:
    """Just enough of JSON-LD 1.1 expansion: prefixes, `@type` and properties coerced to IRIs."""

    def __init__(self, document: dict[str, Any]) -> None:
        context = document["@context"]
        self.prefixes = {name: value for name, value in context.items() if isinstance(value, str)}
        self.links = {name for name, value in context.items() if value == {"@type": "@id"}}
        self.classes: set[str] = set()
        self.properties: set[str] = set()
        self.types_of_values: set[str] = {value["@type"] for value in context.values() if isinstance(value, dict)}
        self._walk({name: value for name, value in document.items() if name != "@context"})

    def expand(self, term: str) -> str:
        prefix, colon, rest = term.partition(":")
        assert colon, f"{term} would be dropped: there is no default vocabulary"
        return term if rest.startswith("//") or prefix in {"_", "ni"} else self.prefixes[prefix] + rest

    def _walk(self, node: dict[str, Any]) -> None:
        for name, value in node.items():
            values = value if isinstance(value, list) else [value]
            if name == "@type":
                self.classes |= {self.expand(one) for one in values}
                continue
            if name == "@id":
                continue
            self.properties.add(self.expand(name))
            for one in values:
                if isinstance(one, dict):
                    self._walk(one)
                elif name in self.links and not self.expand(one).startswith(("https://registry", "ni:")):
                    self.classes.add(self.expand(one))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from nodes(part)


VARIANTS = [
    ALL,
    wishes(),
    wishes(Purpose.SCORE, frozen=True),
    wishes(Purpose.TRAIN, signer=Signer.GUARDIAN),
    wishes(Purpose.TRAIN, signer=Signer.COLLECTOR),
    wishes(Purpose.TRAIN, iat=NOW - 350 * DAY),
]


def test_every_term_is_one_of_a_published_vocabulary() -> None:
    classes, properties = set(), set()
    for of in VARIANTS:
        for at in (NOW, NOW + 250 * DAY):
            terms = Terms27560(viewed(of, at=at))
            classes |= terms.classes
            properties |= terms.properties
            assert terms.types_of_values == {"@id", "xsd:dateTime"}
            assert terms.prefixes["dpv"] == DPV_IRI
    profiles = {f"https://w3id.org/dpv/schema/dpv-27560#{kind}" for kind in ("receipt", "record")}
    # Equal, not a part of: a term that no document uses any more leaves the table.
    assert classes == CLASSES | profiles
    assert properties == PROPERTIES


def test_no_context_has_to_be_fetched() -> None:
    context = viewed(ALL)["@context"]
    assert isinstance(context, dict)
    assert all(re.fullmatch(r"https?://[A-Za-z0-9./-]+[#/]", one) for one in context.values() if isinstance(one, str))


@pytest.mark.parametrize("of", VARIANTS, ids=range(len(VARIANTS)))
def test_every_mandatory_field_is_there(of: ConsentRecord) -> None:
    document = viewed(of)
    assert document["@type"] == "dpv:ConsentReceipt"
    assert document["dct:conformsTo"].endswith("dpv-27560#receipt")
    assert {"dct:identifier", "dct:created", "dpv:hasRecordOfActivity"} <= document.keys()
    view = consent(of)
    assert view.keys() >= MANDATORY_IN_A_RECORD
    assert view["dpv:hasNotice"].keys() >= {"@id", "dct:identifier", "dct:language"}
    assert view["dpv:hasDataController"].keys() >= {"dct:identifier", "dpv:hasName", "dpv:hasAddress", "dpv:hasContact"}
    events = [view["dpv:hasConsentStatus"]]
    assert len(view["dpv:hasProcess"]) == len(of.grants)
    for process in view["dpv:hasProcess"]:
        assert process.keys() >= MANDATORY_IN_A_PROCESS
        conditions = [one["@type"] for one in process["dpv:hasStorageCondition"]]
        assert conditions == ["dpv:StorageLocation", "dpv:StorageDuration"]
        events.append(process["dpv:hasConsentStatus"])
    for event in events:
        assert event.keys() >= MANDATORY_IN_AN_EVENT
        assert len(event["@type"]) == 2  # TS 27560's event state and event type


def test_it_says_what_the_record_says() -> None:
    view = consent(ALL)
    assert view["@id"] == view["dct:identifier"] == f"ni:///sha-256;{payload_digest(encode_record(ALL))}"
    assert view["dct:replaces"] == f"ni:///sha-256;{ALL.prev}"
    assert view["dpv:hasDataSubject"]["dct:identifier"] == ALL.sub
    assert view["dpv:hasDataController"]["dct:identifier"] == HOLDER
    assert view["dpv:hasNotice"]["@id"] == f"ni:///sha-256;{notice_digest(TEXT)}"
    assert view["dpv:hasNotice"]["rdf:value"] == TEXT
    assert view["dpv:hasJurisdiction"]["dct:identifier"] == "TW"
    assert view["dpv:hasConsentControl"]["dpv:isExercisedAt"] == URL
    by_purpose = {one["dpv:hasPurpose"]["dct:identifier"]: one for one in view["dpv:hasProcess"]}
    assert by_purpose.keys() == {"monitor", "score", "train", "validate"}
    score, train = by_purpose["score"], by_purpose["train"]
    assert score["dpv:hasRecipient"]["dct:identifier"] == LENDER
    assert [one["dct:identifier"] for one in score["dpv:hasPersonalData"]] == ["capacity", "credit_history"]
    assert score["dct:valid"] == "2027-01-05T08:00:00Z/2027-11-11T08:00:00Z"
    assert score["dpv:hasFrequency"]["rdf:value"] == "3 in P1D"
    assert score["dpv:hasStorageCondition"][1]["dpv:hasDuration"]["rdf:value"] == "P30D"
    assert score["dpv:hasConsentStatus"]["dpv:hasDuration"]["rdf:value"] == "2027-08-03T08:00:00Z"
    assert "epsilon 1 at delta 1e-5 in any P365D, with 500" in train["dpv:hasTechnicalMeasure"]["dct:description"]


def test_odd_durations_are_seconds() -> None:
    odd = record(ALICE, grant(Purpose.SCORE, retain_s=1, uses=Uses(n=2, per_s=3601)), terms=NOTICE.terms)
    process = consent(odd)["dpv:hasProcess"][0]
    assert process["dpv:hasFrequency"]["rdf:value"] == "2 in PT3601S"
    assert process["dpv:hasStorageCondition"][1]["dpv:hasDuration"]["rdf:value"] == "PT1S"
    small = record(ALICE, grant(dp=budget(eps_milli=250, window_s=90)), terms=NOTICE.terms)
    assert "epsilon 0.25 " in consent(small)["dpv:hasProcess"][0]["dpv:hasTechnicalMeasure"]["dct:description"]


def statuses(of: ConsentRecord, *, at: int = NOW) -> list[str]:
    view = consent(of, at=at)
    events = [view["dpv:hasConsentStatus"], *[one["dpv:hasConsentStatus"] for one in view["dpv:hasProcess"]]]
    return [event["@type"][0] for event in events]


def test_the_status_is_what_the_gate_would_make_of_it() -> None:
    given, expired, invalid = "dpv:ConsentGiven", "dpv:ConsentExpired", "dpv:ConsentStatusInvalidForProcessing"
    early = grant(Purpose.SCORE, exp=NOW + 2 * DAY, reconfirm_by=NOW + DAY)
    two = record(ALICE, early, grant(Purpose.TRAIN), terms=NOTICE.terms)
    assert statuses(two) == [given, given, given]
    assert statuses(two, at=NOW + DAY - 1) == [given, given, given]
    assert statuses(two, at=NOW + DAY) == [given, expired, given]
    assert statuses(two, at=NOW + 2 * DAY) == [given, expired, given]
    assert statuses(two, at=NOW + 200 * DAY) == [expired, expired, expired]
    assert statuses(wishes()) == ["dpv:ConsentWithdrawn"]
    frozen = wishes(Purpose.SCORE, Purpose.TRAIN, frozen=True)
    assert statuses(frozen) == statuses(frozen, at=NOW + 400 * DAY) == [invalid, invalid, invalid]
    assert statuses(wishes(frozen=True)) == [invalid]
    said = [
        consent(two, at=NOW + days * DAY)["dpv:hasProcess"][0]["dpv:hasConsentStatus"]["dct:description"]
        for days in (-11, 0, 1, 2)
    ]
    assert said == ["Given, and not yet in force", "Given", "Paused until the person confirms it", "Run out"]


@pytest.mark.parametrize(
    ("signer", "kind"),
    [
        (Signer.SELF, "dpv:DataSubject"),
        (Signer.GUARDIAN, "dpv:GuardianOfDataSubject"),
        (Signer.COLLECTOR, "dpv:Entity"),
    ],
)
def test_it_names_the_role_of_whoever_signed(signer: Signer, kind: str) -> None:
    found = consent(wishes(signer=signer))["dpv:hasConsentStatus"]["dpv:isIndicatedBy"]
    assert (found if isinstance(found, str) else found["@type"]) == kind


def test_two_receipts_have_one_name_only_when_they_say_the_same() -> None:
    names = {
        viewed(ALL)["@id"],
        viewed(ALL, at=NOW + 1)["@id"],
        viewed(ALL, position=5)["@id"],
        viewed(wishes())["@id"],
    }
    assert len(names) == 4
    assert viewed(ALL) == viewed(ALL)


@given(st.integers(1_577_836_800, 4_102_444_800))
def test_times_are_iso_8601_in_utc(at: int) -> None:
    created = viewed(wishes(), at=at)["dct:created"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", created)
    assert datetime.fromisoformat(created).timestamp() == at


def test_a_document_is_plain_json_and_references_resolve() -> None:
    document = viewed(wishes(Purpose.TRAIN, signer=Signer.GUARDIAN))
    assert json.loads(json.dumps(document)) == document
    found = list(nodes({name: value for name, value in document.items() if name != "@context"}))
    named = {one["@id"] for one in found if "@id" in one and len(one) > 1}
    used = {one["@id"] for one in found if "@id" in one and len(one) == 1}
    assert used == {"_:holder"}
    assert used <= named


@pytest.mark.parametrize("position", [-1, 9, 10])
def test_an_entry_outside_the_head_has_no_receipt(position: int) -> None:
    with pytest.raises(MalformedError, match="9 entries"):
        viewed(ALL, position=position)


@pytest.mark.parametrize(
    "other",
    [
        {"terms": msgspec.structs.replace(NOTICE.terms, lang="de")},
        {"terms": msgspec.structs.replace(NOTICE.terms, sha256=notice_digest("another"))},
        {"jur": "DE"},
    ],
    ids=str,
)
def test_another_notice_than_the_person_saw_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="not the one"):
        viewed(wishes(**other))
