"""What a coordinator may not ask of a data holder: strangers in the roster, or how many people there are."""

import msgspec
import pytest

from federated.messages import Opening
from federated.plan import RosterEntry, sign_plan
from privacy.consent.signing import SigningKey
from privacy.errors import RefusalCode, RefusalError
from server.coordinator import Coordinator
from tests.ready import ASTER, AT, Ready


def opening_of(ready: Ready, **changes: object) -> Opening:
    """The federation's opening, its plan changed and signed again by the coordinator itself."""
    coordinator = Coordinator(ready.federation.coordinator_directory)
    signed = sign_plan(msgspec.structs.replace(coordinator.plan, **changes), coordinator.key)
    return Opening(signed.payload, signed.signature, coordinator.checkpoints, {})


def refusal(ready: Ready, opening: Opening) -> RefusalError:
    with ready.session() as session, pytest.raises(RefusalError) as caught:
        session.holders[ASTER].join(opening, at=AT)
    return caught.value


def test_a_roster_with_an_invented_holder_is_refused(ready: Ready) -> None:
    invented = RosterEntry("nobody-bank", SigningKey.generate().public)
    error = refusal(ready, opening_of(ready, roster=[*ready.federation.roster, invented]))
    assert error.code is RefusalCode.POLICY
    assert "peers" in str(error)


def test_a_known_name_with_another_identity_is_refused(ready: Ready) -> None:
    roster = [
        entry if entry.holder == ASTER else msgspec.structs.replace(entry, identity=SigningKey.generate().public)
        for entry in ready.federation.roster
    ]
    assert refusal(ready, opening_of(ready, roster=roster)).code is RefusalCode.POLICY


def test_the_number_of_people_cannot_be_found_by_asking(ready: Ready) -> None:
    told = Coordinator(ready.federation.coordinator_directory).plan.minimum_people
    with ready.session() as session:
        session.holders[ASTER].join(opening_of(ready, minimum_people=1), at=AT)  # less than the holder's own: joins
    error = refusal(ready, opening_of(ready, minimum_people=told + 1))
    assert error.code is RefusalCode.POLICY
