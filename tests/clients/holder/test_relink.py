"""A customer linked to another key: earlier runs still add up, and nothing by the old key is used any more."""

from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from clients.holder.ceremony import Linked, link_answer, make_offers
from clients.holder.desk import Desk
from clients.holder.lane import LaneCopy
from clients.wallet.wallet import Wallet
from experiments.people import Attitude, Membership
from privacy.consent.linking import read_offer, write_answer
from privacy.consent.record import Purpose
from privacy.consent.view import Link
from privacy.errors import RefusalError, TamperingError, UsageError
from tests.clients.audit.case import case_of
from tests.clients.holder.lane_scene import AT as SCENE_AT
from tests.clients.holder.lane_scene import Scene, Source
from tests.clients.holder.test_replay import replayed, used
from tests.ready import ASTER, AT, Ready, agreement

NEW = Wallet(sha256(b"a new wallet").digest())


def relink(ready: Ready, place: Membership, wallet: Wallet) -> None:
    """`holder link --answer FILE --replace`: the person stands at the desk with a new wallet, and uses it from now."""
    desk = Desk.open(ready.home(place.holder))
    try:
        (offer,) = make_offers(desk, [ready.federation.customer(place.person)], at=AT)
        answer = write_answer(read_offer(offer, at=AT), wallet.key_for(place.holder), at=AT)
        assert link_answer(desk, answer, replace=True, at=AT) is Linked.REPLACED
    finally:
        desk.close()
    ready.federation._wallets[place.person] = wallet


def test_runs_before_and_after_a_new_wallet_all_add_up(ready: Ready) -> None:
    person, leaver, *_ = ready.agreeing()
    handle = ready.federation.handles[person]
    first = ready.run()
    relink(ready, person, NEW)
    assert replayed(ready, first) == 0  # pinned to the very size at which the old link ended
    ready.federation.withdraw(ready.registry, leaver)
    ready.sync()
    between = ready.run()
    ready.registry.append(ASTER, [agreement(ready, person)])
    ready.sync()
    last = ready.run()
    assert [handle in used(ready, outcome) for outcome in (first, between, last)] == [True, False, True]
    for outcome in (first, between, last):
        assert replayed(ready, outcome) == 0
        assert case_of(ready, outcome).audit().complaints() == []


def test_the_gate_never_counts_the_old_key_again(ready: Ready) -> None:
    person = ready.agreeing()[0]
    handle, customer = ready.federation.handles[person], ready.federation.customer(person.person)
    with ready.holder() as holder:
        run = holder.run_named(holder.join(ready.opening(), at=AT).run)
        pinned = holder.lane.head
        assert handle in holder.permitted(run, Purpose.TRAIN).handles
        holder.lane.replace_key(customer, NEW.key_for(ASTER).public)
        assert handle not in holder.permitted(run, Purpose.TRAIN).handles
        assert holder.lane.standing(handle) is None
        assert holder.lane.view().standing(handle) is None
        assert holder.lane.view(pinned).standing(handle) is not None  # what an auditor's replay says of the run
        ready.federation._wallets[person.person] = NEW
        ready.registry.append(ASTER, [agreement(ready, person)])
        holder.lane.sync(ready.registry, at=AT)
        assert holder.lane.standing(handle) is not None
        # Under the pinned prefix only the old key has spoken: the new grant counts from the next run on.
        assert handle not in holder.permitted(run, Purpose.TRAIN).handles


def test_whom_was_relinked_and_then_erased_leaves_no_link(ready: Ready) -> None:
    person = ready.agreeing()[0]
    handle = ready.federation.handles[person]
    relink(ready, person, NEW)
    with ready.holder() as holder:
        assert sum(link.handle == handle for link in holder.lane.links_ever()) == 2
        assert holder.lane.forget(handle)
        assert not any(link.handle == handle for link in holder.lane.links_ever())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def lasting(lane: LaneCopy, handle: bytes) -> list[tuple[int, int | None]]:
    return [(link.linked_at_size, link.ended_at_size) for link in lane.links_ever() if link.handle == handle]


def test_an_end_that_was_edited_or_is_gone_is_noticed(tmp_path: Path) -> None:
    for number, edit in enumerate(
        ("UPDATE ended_links SET ended_at_size = 4", "UPDATE ended_links SET public_key = zeroblob(32)",
         "DELETE FROM ended_links")
    ):  # fmt: skip
        (tmp_path / str(number)).mkdir()
        scene = Scene(tmp_path / str(number))
        with scene.copy() as lane:
            lane.replace_key("yes", NEW.key_for(ASTER).public)
            head = lane.head
            scene.edit(edit)
            for ask in (lane.links_ever, lambda: lane.view(head)):  # noqa: B023 # asked before the loop goes on
                with pytest.raises(TamperingError):
                    ask()
        with pytest.raises(TamperingError):
            scene.copy()


def test_links_of_one_person_never_overlap(scene: Scene) -> None:
    yes, other = scene.yes.handle, NEW.key_for(ASTER).public
    third = Wallet(sha256(b"a third").digest()).key_for(ASTER).public
    with scene.copy() as lane:
        lane.replace_key("yes", other)
        lane.replace_key("yes", third)  # at the same size: the one between was never in force anywhere
        assert lasting(lane, yes) == [(0, 5), (5, None)]
        lane.unlink("yes")
        assert lasting(lane, yes) == [(0, 5)]
        for size in (0, 4):
            with pytest.raises(RefusalError):
                lane.link({"yes": Link(yes, other, size)})
        with pytest.raises(RefusalError):
            lane.link({"yes": replace(scene.yes.link(), ended_at_size=5)})
        assert "yes" not in lane.links()
        lane.link({"yes": Link(yes, other, 5)})
        assert lasting(lane, yes) == [(0, 5), (5, None)]
        with pytest.raises(UsageError):
            lane.replace_key("nobody", other)


def test_a_link_that_goes_on_as_it_was_never_ended(scene: Scene) -> None:
    """A customer number that changes: the same person, handle, key and size."""
    with scene.copy() as lane:
        before = lane.view()
        lane.unlink("yes")
        assert lasting(lane, scene.yes.handle) == [(0, 5)]
        lane.link({"yes, renamed": scene.yes.link()})
        assert lasting(lane, scene.yes.handle) == [(0, None)]
        assert lane.view().standing(scene.yes.handle) == before.standing(scene.yes.handle) is not None


def test_erasure_takes_every_handle_that_the_customer_had(scene: Scene) -> None:
    with scene.copy() as lane:
        lane.unlink("left")
        lane.link({"left": Link(sha256(b"another handle").digest(), NEW.key_for(ASTER).public, 5)})
        assert lane.forget(lane.links()["left"]) == [1, 2]
        assert lasting(lane, scene.left.handle) == []
        assert "left" not in lane.links()


def test_another_process_sees_the_end_at_once(scene: Scene) -> None:
    with scene.copy() as one, scene.copy() as other:
        head = other.head
        assert other.view().standing(scene.yes.handle) is not None
        one.replace_key("yes", NEW.key_for(ASTER).public)
        assert other.view().standing(scene.yes.handle) is None
        assert other.view(head).standing(scene.yes.handle) is not None
        one.sync(Source([*scene.entries, *scene.no.says(Attitude.AGREES)]), at=SCENE_AT + 1)
        assert other.view().standing(scene.yes.handle) is None


def test_who_was_unlinked_and_is_linked_again_goes_on_with_what_was_spent(ready: Ready) -> None:
    person = ready.agreeing()[0]
    handle, customer = ready.federation.handles[person], ready.federation.customer(person.person)
    ready.run()
    with ready.holder() as holder:
        spent = holder.ledger.spent_mu_squared([handle])[0]
        assert spent > 0
        holder.lane.unlink(customer)
    with closing(Desk.open(ready.home())) as desk:
        (offer,) = make_offers(desk, [customer], at=AT)
        answer = write_answer(read_offer(offer, at=AT), NEW.key_for(ASTER), at=AT)
        assert link_answer(desk, answer, replace=False, at=AT) is Linked.NEW
    ready.federation._wallets[person.person] = NEW
    ready.registry.append(ASTER, [agreement(ready, person)])
    ready.sync()
    with ready.holder() as holder:
        assert holder.lane.links()[customer] == handle
        run = holder.run_named(holder.join(ready.opening(), at=AT).run)
        assert handle in holder.permitted(run, Purpose.TRAIN).handles
        assert holder.ledger.spent_outside(run.name, [handle], delta=1e-5)[0] == spent


def test_of_several_ended_links_the_last_ones_handle_is_offered_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.copy() as lane:
        assert lane.handles_ever() == lane.links()
        (customer, handle), *others = lane.links().items()
        lane.unlink(customer)
        assert lane.handles_ever() == {customer: handle, **dict(others)}
        assert customer not in lane.links()
