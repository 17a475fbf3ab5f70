"""A message of which no more comes is given up: a SuperNode hands it out before it has all of it."""

import pytest
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse

from federated.flower_tasks import STALLED_S, StalledError, _unless_stalled


def test_a_message_is_waited_for_as_long_as_parts_of_it_come_and_then_a_while() -> None:
    now, comes = 0.0, True

    def pull(_: PullObjectRequest) -> PullObjectResponse:
        return PullObjectResponse(object_found=True, object_available=comes)

    patient = _unless_stalled(pull, clock=lambda: now)
    now = 2 * STALLED_S
    assert patient(PullObjectRequest()).object_available
    comes, now = False, 3 * STALLED_S - 1
    assert not patient(PullObjectRequest()).object_available
    now = 3 * STALLED_S
    with pytest.raises(StalledError):
        patient(PullObjectRequest())
