"""Relaying score requests and answers that the coordinator cannot read."""

from collections.abc import Mapping, Sequence

from federated.channel import Act, Channel
from federated.messages import Letter, Refused, ScoreAnswers, ScoreRequests
from federated.scorecard import Scorecard
from privacy.errors import MalformedError, RefusalError


def relay_scores(
    channel: Channel,
    nodes: Mapping[str, int],
    scorecard: Scorecard,
    sealed: Mapping[str, Sequence[bytes]],
    *,
    deadline_s: float,
) -> dict[str, list[bytes]]:
    """Each data holder's sealed answers to the requests sealed to it, in order; a silent holder has none.

    RefusalError if a data holder refuses the request as a whole; MalformedError for an answer of another kind.
    """
    document = scorecard.to_json()
    letters = {nodes[holder]: Letter(ScoreRequests(document, list(requests))) for holder, requests in sealed.items()}
    answers: dict[str, list[bytes]] = {}
    for answer in channel.ask(letters, act=Act.QUERY, deadline_s=deadline_s).values():
        match answer.header:
            case ScoreAnswers(holder=holder, sealed=theirs) if len(theirs) == len(sealed.get(holder, ())):
                answers[holder] = theirs
            case Refused(holder=holder, code=code):
                raise RefusalError(f"Data holder {holder} refuses to score ({code.value}). Ask its operator.", code)
            case header:
                raise MalformedError(f"{type(header).__name__} is no answer to score requests. Compare versions.")
    return answers
