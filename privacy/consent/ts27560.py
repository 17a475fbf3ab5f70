"""A consent record as an ISO/IEC TS 27560 receipt in JSON-LD: one document for a person and for a regulator.

Terms: W3C DPV 2.3, used as in "Consent Records and Receipts as per ISO/IEC TS 27560:2023 using DPV" (DPVCG,
15 February 2026); below, section numbers are that guide's. It is a view: the signed record stays the evidence.
"""

import hashlib
from typing import Final

import numpy as np

from privacy.consent.canonical import base64url
from privacy.consent.lane import Head
from privacy.consent.limits import DAY_S
from privacy.consent.linking import Notice
from privacy.consent.record import ConsentRecord, Grant, Purpose, Signer, TrainingBudget, encode_record, payload_digest
from privacy.errors import MalformedError

# Written out in every document, so that nobody has to fetch one to read another.
_CONTEXT: Final[dict[str, object]] = {
    "dpv": "https://w3id.org/dpv#",
    "finance": "https://w3id.org/dpv/sector/finance#",
    "dct": "http://purl.org/dc/terms/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "dct:conformsTo": {"@type": "@id"},
    "dct:replaces": {"@type": "@id"},
    "dct:source": {"@type": "@id"},
    "dpv:hasLegalBasis": {"@type": "@id"},
    "dpv:isExercisedAt": {"@type": "@id"},
    "dpv:isIndicatedBy": {"@type": "@id"},
    "skos:broader": {"@type": "@id"},
    "dct:created": {"@type": "xsd:dateTime"},
    "dpv:isIndicatedAtTime": {"@type": "xsd:dateTime"},
}
_RECEIPT: Final = "https://w3id.org/dpv/schema/dpv-27560#receipt"
_RECORD: Final = "https://w3id.org/dpv/schema/dpv-27560#record"

# Blank nodes: a holder's name is no web address, and a handle must not become one.
_HOLDER: Final = "_:holder"
_SUBJECT: Final = "_:subject"
_SIGNER: Final = "_:signer"

_PURPOSES: Final = {
    Purpose.TRAIN: (
        "Train a shared credit scoring model",
        ("dpv:ResearchAndDevelopment", "finance:CreditChecking"),
    ),
    Purpose.VALIDATE: (
        "Measure how well a credit scoring model works",
        ("dpv:ResearchAndDevelopment", "finance:CreditChecking"),
    ),
    Purpose.SCORE: ("Work out this person's credit score", ("finance:CreditScoreEvaluation",)),
    Purpose.MONITOR: ("Watch how this person's credit score develops", ("dpv:CustomerSolvencyMonitoring",)),
}
_SIGNERS: Final = {
    Signer.SELF: ("dpv:DataSubject", "the person"),
    Signer.GUARDIAN: ("dpv:GuardianOfDataSubject", "the person's guardian"),
    Signer.COLLECTOR: ("dpv:Entity", "whoever took the person's consent down"),
}


def receipt_view(
    record: ConsentRecord, *, notice: Notice, registry_url: str, position: int, head: Head, at: int
) -> dict[str, object]:
    """The receipt for `record`, entry `position` of the log at `registry_url` under `head`, as it is at `at`.

    JSON-LD of str, list and dict only. Every field that TS 27560 makes mandatory is in it or, for the data
    holder's address, in the text of the `notice`. Raises MalformedError when the notice is another one than
    the record names, or when the entry is not under the head.
    """
    if notice.terms != record.terms or notice.jur != record.jur:
        raise MalformedError(
            "a notice is not the one that the consent record names; take the notice that came with the offer to link."
        )
    if not 0 <= position < head.size:
        raise MalformedError(
            f"a log of {head.size} entries has no entry {position}; take position and head from one verified receipt."
        )
    payload = encode_record(record)
    record_id = _digest_uri(payload_digest(payload))
    evidence = b"%b%b%d %d" % (payload, head.root, position, at)
    receipt_id = _digest_uri(base64url(hashlib.sha256(b"fedcredit/receipt-view/v1" + evidence).digest()))
    return {
        "@context": _CONTEXT,
        "@id": receipt_id,
        "@type": "dpv:ConsentReceipt",
        "dct:conformsTo": _RECEIPT,
        "dct:identifier": receipt_id,
        "dct:created": _utc(at),
        "dct:provenance": {
            "dct:source": registry_url,
            "dct:description": f"Entry {position} of the data holder's log, under the signed head of "
            f"{head.size} entries with root {head.root.hex()}",
        },
        "dpv:hasRecordOfActivity": _record_view(record, record_id, notice, registry_url, at),
    }


def _record_view(
    record: ConsentRecord, record_id: str, notice: Notice, registry_url: str, at: int
) -> dict[str, object]:
    """Sections 8.1 to 8.5."""
    view: dict[str, object] = {
        "@id": record_id,
        "@type": "dpv:ConsentRecord",
        "dct:conformsTo": _RECORD,
        "dct:identifier": record_id,
        "dct:created": _utc(record.iat),
        "dct:description": f"Record {record.seq} of this person at this data holder. It replaces every earlier one.",
        "dpv:hasDataSubject": {"@id": _SUBJECT, "@type": "dpv:DataSubject", "dct:identifier": record.sub},
        "dpv:hasDataController": {
            "@id": _HOLDER,
            "@type": "dpv:DataController",
            "dct:identifier": record.aud,
            "dpv:hasName": record.aud,
            "dpv:hasAddress": "as named in the notice",
            "dpv:hasContact": "as named in the notice",
        },
        "dpv:hasNotice": {
            "@id": _digest_uri(notice.terms.sha256),
            "@type": "dpv:ConsentNotice",
            "dct:identifier": notice.terms.id,
            "dct:language": notice.terms.lang,
            "rdf:value": notice.text,
        },
        "dpv:hasJurisdiction": {"@type": "dpv:Jurisdiction", "dct:identifier": record.jur},
        "dpv:hasConsentControl": {
            "@type": ["dpv:ProvideConsent", "dpv:ReaffirmConsent", "dpv:WithdrawConsent"],
            "dct:description": "Withdrawing takes one record from the person's wallet, as granting does.",
            "dpv:isExercisedAt": registry_url,
        },
        "dpv:hasRight": {
            "@type": "dpv:DataSubjectRight",
            "dct:title": "Withdraw consent, or freeze it, at any time",
            "dpv:isExercisedAt": registry_url,
        },
        "dpv:hasTechnicalMeasure": {"@type": "dpv:DigitalSignatures", "dct:identifier": record.kid},
        "dpv:hasConsentStatus": _event(record, *_standing(record, at), until=None),
        "dpv:hasProcess": [_process(record, grant, at) for grant in record.grants],
    }
    if record.prev is not None:
        view["dct:replaces"] = _digest_uri(record.prev)
    return view


def _process(record: ConsentRecord, grant: Grant, at: int) -> dict[str, object]:
    """Section 8.3: one purpose, one recipient."""
    title, broader = _PURPOSES[grant.purpose]
    until = None if record.frozen else grant.reconfirm_by
    process: dict[str, object] = {
        "@type": "dpv:Process",
        "dct:valid": f"{_utc(grant.nbf)}/{_utc(grant.exp)}",
        "dpv:hasPurpose": {
            "@type": "dpv:Purpose",
            "dct:identifier": grant.purpose.value,
            "dct:title": title,
            "skos:broader": list(broader),
        },
        "dpv:hasLegalBasis": "dpv:ExplicitlyExpressedConsent",
        "dpv:hasPersonalData": [{"@type": "dpv:PersonalData", "dct:identifier": category} for category in grant.data],
        "dpv:hasDataController": {"@id": _HOLDER},
        "dpv:hasRecipient": {"@type": "dpv:Recipient", "dct:identifier": grant.to, "dpv:hasName": grant.to},
        "dpv:hasStorageCondition": [
            {
                "@type": "dpv:StorageLocation",
                "dpv:hasLocation": {
                    "@type": "dpv:LocalLocation",
                    "dct:description": "The personal data stay with the data holder; the recipient gets results.",
                },
            },
            {
                "@type": "dpv:StorageDuration",
                "dct:description": "How long results may be kept",
                "dpv:hasDuration": {"@type": "dpv:TemporalDuration", "rdf:value": _duration(grant.retain_s)},
            },
        ],
        "dpv:hasConsentStatus": _event(record, *_grant_standing(record, grant, at), until=until),
    }
    if grant.dp is not None:
        process["dpv:hasTechnicalMeasure"] = {
            "@type": "dpv:DifferentialPrivacy",
            "dct:description": _budget_text(grant.dp),
        }
    if grant.uses is not None:
        process["dpv:hasFrequency"] = {
            "@type": "dpv:Frequency",
            "dct:description": "Most answers about this person in any such period",
            "rdf:value": f"{grant.uses.n} in {_duration(grant.uses.per_s)}",
        }
    return process


def _event(record: ConsentRecord, status: str, meaning: str, *, until: int | None) -> dict[str, object]:
    """Section 8.5: state and type of the event, its time, how long it holds and who expressed it."""
    kind, name = _SIGNERS[record.signer]
    duration = (
        {"@type": "dpv:UntilEventDuration", "rdf:value": "a later record of the same person"}
        if until is None
        else {"@type": "dpv:UntilTimeDuration", "rdf:value": _utc(until)}
    )
    signer: object = kind if kind == "dpv:DataSubject" else {"@id": _SIGNER, "@type": kind, "dct:description": name}
    return {
        "@type": [status, "dpv:ExplicitlyExpressedConsent"],
        "dct:description": meaning,
        "dpv:isIndicatedAtTime": _utc(record.iat),
        "dpv:isIndicatedBy": signer,
        "dpv:hasIndicationMethod": f"A digital signature by {name}",
        "dpv:hasDuration": duration,
    }


def _standing(record: ConsentRecord, at: int) -> tuple[str, str]:
    if record.frozen:
        # DPV 2.3 has no state for a pause; this is the class of all states in which data may not be used.
        return "dpv:ConsentStatusInvalidForProcessing", "Frozen: nothing is allowed until the person unfreezes it"
    if not record.grants:
        return "dpv:ConsentWithdrawn", "Withdrawn: nothing is allowed"
    if all(at >= grant.reconfirm_by for grant in record.grants):
        return "dpv:ConsentExpired", "Run out: nothing is allowed until the person confirms it"
    return "dpv:ConsentGiven", "Given, for the processes listed and no other"


def _grant_standing(record: ConsentRecord, grant: Grant, at: int) -> tuple[str, str]:
    if record.frozen:
        return _standing(record, at)
    if at >= grant.exp:
        return "dpv:ConsentExpired", "Run out"
    if at >= grant.reconfirm_by:
        return "dpv:ConsentExpired", "Paused until the person confirms it"
    return "dpv:ConsentGiven", "Given" if at >= grant.nbf else "Given, and not yet in force"


def _budget_text(budget: TrainingBudget) -> str:
    return (
        f"At most epsilon {budget.eps_milli / 1000:g} at delta 1e{budget.delta_log10} in any "
        f"{_duration(budget.window_s)}, with {budget.share_milli} of the person's 1000 shares of the clipping norm"
    )


def _digest_uri(sha256: str) -> str:
    """Name of a thing by its SHA-256 in base64url (RFC 6920)."""
    return f"ni:///sha-256;{sha256}"


def _utc(seconds: int) -> str:
    """ISO 8601 in UTC."""
    return f"{np.datetime64(seconds, 's')}Z"


def _duration(seconds: int) -> str:
    """ISO 8601 duration, in days where it is whole days: they have 86,400 s in UTC seconds."""
    return f"P{seconds // DAY_S}D" if seconds % DAY_S == 0 else f"PT{seconds}S"
