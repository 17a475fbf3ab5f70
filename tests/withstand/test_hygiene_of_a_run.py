"""A training run in which much is refused and much goes wrong: nothing that is said names anybody."""

from collections.abc import Iterator

import pytest
from msgspec import structs

from federated.messages import Letter
from privacy.consent.lane import Head
from privacy.consent.record import key_id
from privacy.errors import FedcreditError
from server.rounds import no_progress
from tests.ready import ASTER, AT, BIRCH, CEDAR, Ready, first_instruction, joined_by, withdrawal
from tests.withstand.ear import PURPOSES, Ear, forms, listening


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening() as ear:
        yield ear


def test_a_run_with_every_kind_of_refusal_says_nothing_about_anybody(ready: Ready, ear: Ear) -> None:
    """Training over people who agreed, refused, withdrew in mid-run and came by the side door; then all goes wrong."""
    federation = ready.federation
    leaver, late = ready.agreeing(ASTER)[:2]
    with ready.session() as session:
        session.holders[ASTER].lane.take(withdrawal(ready, leaver), at=AT)
        outcome = session.run(no_progress)
        assert set(outcome.holders) == set(ready.federation.population.holders)
        federation.withdraw(ready.registry, late)
        for holder in session.holders.values():
            holder.lane.sync(ready.registry, at=AT + 1)
        instruction = first_instruction(ready, joined_by(session.holders, ready.opening()))
        for name, holder in session.holders.items():
            again = holder.answer(instruction, at=AT)
            ear.hear("letters", repr(again.header))
            opening = structs.replace(ready.opening(), checkpoints={})
            ear.hear("letters", repr(holder.answer(Letter(opening), at=AT).header))
            ear.hear("letters", repr(holder.answer(Letter(ready.opening()), at=AT + 10**8).header))
            ear.hear("letters", repr(session.holders[name].lane))
    source = ready.source()
    source.lie = Head(3, bytes(32))
    with ready.holder(BIRCH, source) as holder:
        for act in (
            lambda: holder.lane.sync(source, at=AT + 2),
            lambda: holder.lane.take(withdrawal(ready, leaver), at=AT),  # another data holder's
            lambda: holder.lane.view(Head(4, bytes(32))),
            lambda: holder.lane.unlink(federation.handles[leaver].hex()),
            lambda: holder.lane.opening(10**9),
            lambda: holder.lane.link({"new": next(iter(holder.lane.links_by_handle().values()))}),
            lambda: holder.run_named("0" * 32),
        ):
            with pytest.raises(FedcreditError) as caught:
                act()
            ear.hear_error(caught.value)
        ear.hear("exceptions", f"{holder.lane!r} {holder!r} {holder.lane.view()!r}")
    away = ready.source(away=True)
    with ready.holder(CEDAR, away) as holder, pytest.raises(FedcreditError) as caught:
        holder.lane.sync(away, at=AT)
    ear.hear_error(caught.value)
    table = ready.home(CEDAR) / "rows.csv"
    table.write_text(table.read_text().replace(",", ";"))
    with ready.holder(CEDAR) as holder:
        ear.hear("letters", repr(holder.answer(Letter(ready.opening()), at=AT).header))
    assert ear.said["exceptions"]
    assert ear.said["letters"]

    people = [place for holder in federation.population.holders for place in ready.places(holder)]
    assert len(people) > 250
    secrets: dict[str, set[bytes]] = {"a handle": set(), "a key": set(), "a key id": set()}
    for place in people:
        key = federation.wallet(place.person).key_for(place.holder).public
        secrets["a handle"] |= forms(federation.handles[place])
        secrets["a key"] |= forms(key)
        secrets["a key id"].add(key_id(key).encode())
    assert not ear.leaks(secrets)
    assert not ear.leaks(PURPOSES)
