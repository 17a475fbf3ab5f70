"""Scoring a few held-out people: their wallets ask, the coordinator relays unread, the lender puts scores together."""

from collections.abc import Mapping, Sequence

from experiments.chance import RandomBytes
from experiments.federation import Federation
from experiments.report.values import ApplicantScore
from experiments.session import DEADLINE_S, Session
from experiments.wishes import LENDER
from federated.score_exchange import ScoreRequest, open_answer, seal_request
from federated.score_report import ScoreReport, score_report
from federated.scorecard import Scorecard
from privacy.consent.canonical import base64url
from privacy.consent.sealing import LaneKey
from server.relay import relay_scores


def score_people(
    federation: Federation, session: Session, people: Sequence[int], scorecard: Scorecard, *, random: RandomBytes
) -> list[ScoreReport | None]:
    """Each person's score report as the lender sees it; None if no data holder answers with points."""
    lender = LaneKey.from_bytes(b"\x02" + random(96))
    sealed: dict[str, list[bytes]] = {}
    asked: dict[str, list[int]] = {}
    for person in people:
        for holder, request in _requests(federation, person, lender, random).items():
            sealed.setdefault(holder, []).append(request)
            asked.setdefault(holder, []).append(person)
    answers: dict[int, list[Mapping[str, int]]] = {person: [] for person in people}
    relayed = relay_scores(session.channel, session.nodes, scorecard, sealed, deadline_s=DEADLINE_S)
    for holder, theirs in relayed.items():
        for person, answer in zip(asked[holder], theirs, strict=True):
            points = open_answer(answer, key=lender, holder=holder).points
            if points is not None:
                answers[person].append(points)
    return [score_report(scorecard, told) if (told := answers[person]) else None for person in people]


def shown(label: str, report: ScoreReport, cut_off: float) -> ApplicantScore:
    """A score report for the page, under a made-up label."""
    return ApplicantScore(
        label=label,
        score=report.score,
        low=report.low,
        high=report.high,
        band=f"{cut_off:g} or more" if report.score >= cut_off else f"below {cut_off:g}",
        reasons=tuple(reason.text for reason in report.reasons),
    )


def _requests(federation: Federation, person: int, lender: LaneKey, random: RandomBytes) -> dict[str, bytes]:
    requests = {}
    for place in federation.places_of(person):
        address = federation.address(place.holder)
        request = ScoreRequest(
            aud=place.holder,
            sub=base64url(federation.handles[place]),
            to=LENDER,
            to_key=lender.public.to_bytes(),
            nonce=base64url(random(32)),
            iat=federation.at,
        )
        key = federation.wallet(person).key_for(place.holder)
        requests[place.holder] = seal_request(request, key=key, to=address.key)
    return requests
