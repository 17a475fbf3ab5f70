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
    asked = {nodes[holder]: holder for holder in sealed}
    answers: dict[str, list[bytes]] = {}
    for node, answer in channel.ask(letters, act=Act.QUERY, deadline_s=deadline_s).items():
        holder = asked[node]
        match answer.header:
            case ScoreAnswers(holder=name, sealed=theirs) if name == holder and len(theirs) == len(sealed[holder]):
                answers[holder] = theirs
            case Refused(code=code):
                raise RefusalError(f"Data holder {holder} refuses to score ({code.value}). Ask its operator.", code)
            case header:
                raise MalformedError(
                    f"Data holder {holder} answered the score requests it was sent with {type(header).__name__}. Its "
                    "operator should compare versions with the coordinator's."
                )
    return answers
