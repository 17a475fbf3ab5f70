"""What a node writes to its own log and says in its errors: no handle, customer, key or purpose, whatever happens."""

import logging
import re
from collections.abc import Iterator

import msgspec
import pytest

from clients.holder.node import Holder
from experiments.people import Attitude
from federated.messages import Instruction, Letter, Refused, ScoreRequests
from privacy.consent.canonical import base64url
from privacy.consent.lane import Head
from privacy.consent.merkle import EMPTY_ROOT
from privacy.consent.record import Purpose
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError
from tests.clients.holder.test_scoring import Desk, some_card
from tests.ready import ASTER, AT, Ready, agreement, first_instruction, joined_by, withdrawal

CUSTOMER = "customer-{:04d}-of-aster"  # nothing else in a message looks like it


def spellings(secret: bytes) -> Iterator[str]:
    """The ways in which bytes get into a text."""
    yield from (secret.hex(), secret.hex().upper(), base64url(secret), repr(secret)[2:-1])


def secrets_of(ready: Ready, holder: Holder) -> set[str]:
    """Everything about people and keys that stands in this data holder's files."""
    federation = ready.federation
    keys = [holder._keys.identity.seed, holder._keys.lane_key.to_bytes(), federation.registry_key.seed]
    for place in federation.population.at(ASTER):
        keys += [federation.handles[place], federation.wallet(place.person).key_for(ASTER).public]
    return {spelling for key in keys for spelling in spellings(key)}


def renamed(ready: Ready) -> None:
    """Give customers numbers that cannot be taken for a count or a second."""
    for name in ("rows.csv", "held_out.csv"):
        header, *lines = (ready.home() / name).read_text().splitlines()
        lines = [CUSTOMER.format(int(line.split(",", 1)[0])) + "," + line.split(",", 1)[1] for line in lines]
        (ready.home() / name).write_text("\n".join([header, *lines]) + "\n")
    with ready.holder() as holder:
        links = holder.lane.links_by_handle()
        for customer, handle in holder.lane.links().items():
            holder.lane.unlink(customer)
            holder.lane.link({CUSTOMER.format(int(customer)): links[handle]})


def test_a_run_with_every_kind_of_refusal_names_nobody(ready: Ready, caplog: pytest.LogCaptureFixture) -> None:
    renamed(ready)
    source, said, codes = ready.source(), [], set()
    caplog.set_level(logging.DEBUG)
    opening = ready.opening()
    with ready.session() as session:
        joined = joined_by(session.holders, opening)
        letter = first_instruction(ready, joined)
    assert isinstance(letter.header, Instruction)
    path, schema = ready.home() / "rows.csv", ready.federation.data.schema
    table = path.read_text()

    with ready.holder(source=source) as holder:
        secrets = secrets_of(ready, holder)
        desk = Desk(ready, holder, some_card(ready))

        def told(answered: Letter) -> None:
            codes.add(answered.header.code.value if isinstance(answered.header, Refused) else "")
            said.append(repr(answered.header))

        def scored(*requests: bytes, at: int = AT) -> None:
            told(holder.answer(Letter(ScoreRequests(some_card(ready).to_json(), list(requests))), at=at))

        # Scoring: everybody's kind of no, a stranger, a forger, a schema of somebody else.
        victim = desk.someone()
        forged = desk.request(victim, key=SigningKey.from_seed(bytes(32)))
        scored(*(desk.request(desk.someone(attitude)) for attitude in Attitude), forged, b"", desk.request(victim))
        told(holder.answer(Letter(ScoreRequests(b'{"customer": 17}', [])), at=AT))

        # A row that cannot be read, of somebody who agreed.
        column = schema.input_columns[0]
        position = table.splitlines()[0].split(",").index(column)
        header, *lines = (line.split(",") for line in table.splitlines())
        poisoned = [[*line[:position], "poison", *line[position + 1 :]] for line in lines]
        path.write_text("\n".join(",".join(line) for line in (header, *poisoned)))
        told(holder.answer(Letter(opening), at=AT))
        path.write_text("\n".join(table.splitlines()[:3]))  # too few people
        told(holder.answer(Letter(opening), at=AT))
        path.write_text(table)

        # Rounds that are refused by cohort, plan and consent, and one that the ledger refuses.
        told(holder.answer(Letter(msgspec.structs.replace(letter.header, run="0" * 32), letter.arrays), at=AT))
        told(holder.answer(Letter(msgspec.structs.replace(letter.header, cohort=[]), letter.arrays), at=AT))
        leavers = iter(ready.agreeing()[:3])
        source.before = lambda: ready.federation.withdraw(ready.registry, next(leavers))
        told(holder.answer(letter, at=AT))
        source.before = None
        assert holder.lane.take(withdrawal(ready, ready.agreeing()[4]), at=AT)
        told(holder.answer(letter, at=AT))
        told(holder.answer(Letter(letter.header, {}), at=AT))

        # A registry that is away, then lies; a lane that is too old; a run that was pinned elsewhere.
        source.away = True
        told(holder.answer(Letter(opening), at=AT + 60))
        told(holder.answer(Letter(opening), at=AT + 86_400 * 2))
        scored(desk.request(victim), at=AT + 86_400 * 2)
        source.away, source.lie = False, Head(0, EMPTY_ROOT)
        told(holder.answer(Letter(opening), at=AT + 60))
        elsewhere = {**opening.checkpoints, ASTER: opening.checkpoints["birch-telecom"]}
        told(holder.answer(Letter(msgspec.structs.replace(opening, checkpoints=elsewhere)), at=AT))

        # What the lane copy says when it is asked for what it does not have.
        for wrong in (
            lambda: holder.lane.unlink(CUSTOMER.format(9999)),
            lambda: holder.lane.link(
                dict(zip(holder.lane.links(), holder.lane.links_by_handle().values(), strict=True))
            ),
            lambda: holder.lane.take(agreement(ready, ready.places("birch-telecom")[0]), at=AT),
            lambda: holder.lane.view(Head(1, bytes(32))),
        ):
            with pytest.raises(FedcreditError) as caught:
                wrong()
            said.append(str(caught.value))

    assert codes >= {"", "internal", "plan", "consent", "cohort", "replay", "lane", "integrity"}
    text = caplog.text + "\n".join(said)
    assert text.count("refuses") > 5  # the log was looked at
    assert {secret for secret in secrets if secret in text} == set()
    assert re.findall(r"customer-\d", text) == []
    assert re.findall(r"poison", text) == []
    purposes = "|".join(purpose.value for purpose in Purpose)
    assert re.findall(rf"\b({purposes})\b", text) == []
