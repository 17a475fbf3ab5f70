"""The auditor's side: an honest opening adds up, and every lie of a data holder or a coordinator is named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients.audit.opening import GarbageLine, LinkLine, OpenedLine, ReleaseLine, UsedLine, write_line
from clients.audit.replay import TrustedKeys
from clients.audit.run_record import read_run_record
from experiments.people import Attitude
from federated.plan import SignedPlan, read_plan, run_id, sign_plan
from federated.releases import release_name
from federated.schema_toml import parse_schema
from privacy.consent.lane import Head, write_checkpoint
from privacy.consent.record import parse_record
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalError, TamperingError
from tests.clients.audit.case import ENTRIES, Case, Edit, Lines, at, case_of, each, usual
from tests.clients.holder.test_replay import let_in
from tests.ready import ASTER, BIRCH, HOLDERS, Ready

STRANGER = SigningKey.from_seed(b"s" * 32)


def changed(line: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(line, **changes)


def flipped(data: bytes, place: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_an_honest_run_adds_up_at_every_data_holder(ready: Ready) -> None:
    outcome = ready.run()
    for name in HOLDERS:
        report = case_of(ready, outcome, name).audit()
        assert report.adds_up
        assert report.complaints() == []
        agreeing = [len(ready.agreeing(name))] * 4 + [len(ready.measured(name))]
        assert [release.subjects for release in report.releases] == agreeing
        assert [release.purpose.value for release in report.releases] == ["train"] * 4 + ["validate"]
        assert report.lane.links == len(ready.places(name)) + len(ready.places(name, held_out=True))


def test_a_broken_gate_is_told_with_every_reason(ready: Ready) -> None:
    attitudes = {
        Attitude.SILENT: "none", Attitude.FROZE: "frozen", Attitude.WITHDREW: "purpose",
        Attitude.SCORE_ONLY: "purpose", Attitude.EXPIRED: "time",
    }  # fmt: skip
    victims = [ready.with_attitude(attitude)[0] for attitude in attitudes if ready.with_attitude(attitude)]
    reasons = [attitudes[ready.federation.population.attitudes[victim.person]] for victim in victims]
    assert len(set(reasons)) >= 3
    with let_in(ready, *victims):
        outcome = ready.run()
    report = case_of(ready, outcome).audit()
    assert report.lane.adds_up
    used = report.releases[0].subjects
    told = ", ".join(f"{r} ({reasons.count(r)})" for r in ("none", "frozen", "purpose", "time") if r in reasons)
    assert report.complaints() == [
        f"release {outcome.run}/{stage}: {len(victims)} of {used} subjects used were not allowed: {told}"
        for stage in range(1, 5)
    ]
    assert case_of(ready, outcome, BIRCH).audit().adds_up


# --- what a data holder may change in the file and sign again


def altered(line: OpenedLine, part: str) -> OpenedLine:
    value = getattr(line, part)
    if part == "payload":
        value = value.replace(b'"frozen":false', b'"frozen":true')
        assert value != line.payload
        return changed(line, payload=value)  # type: ignore[no-any-return]
    return changed(line, **{part: flipped(value)})  # type: ignore[no-any-return]


@pytest.mark.parametrize("part", ["payload", "signature", "rho"])
def test_an_opening_that_was_altered_is_named_by_its_position(part: str) -> None:
    assert "entry 7: its opening does not match its commitment" in usual().found(
        at(7, lambda line: altered(line, part))
    )


ROOTS: dict[str, Edit] = {
    "altered": at(3, lambda line: changed(line, leaf=flipped(line.leaf, 40))),
    "swapped": lambda lines: swapped(lines, 3, 4),
}
SIZES: dict[str, Edit] = {
    "left out": at(3, lambda _: None),
    "added": lambda lines: inserted(lines, 3),
}


def places(lines: Lines) -> list[int]:
    return [place for place, line in enumerate(lines) if isinstance(line, ENTRIES)]


def swapped(lines: Lines, one: int, two: int) -> Lines:
    here, there = places(lines)[one], places(lines)[two]
    edited = list(lines)
    edited[here], edited[there] = lines[there], lines[here]
    return edited


def inserted(lines: Lines, position: int) -> Lines:
    number = places(lines)[position]
    return [*lines[:number], lines[number], *lines[number:]]


@pytest.mark.parametrize("name", [*ROOTS, *SIZES])
def test_an_entry_left_out_added_moved_or_changed_is_told(name: str) -> None:
    found = usual().found((ROOTS | SIZES)[name])
    expected = "hash to the pinned root" if name in ROOTS else "the run was pinned to"
    assert any(expected in text for text in found), found


def newest_withdrawal(case: Case) -> tuple[int, bytes]:
    """Position and handle of somebody's last record, which grants nothing to train."""
    for position, line in reversed(list(enumerate(line for line in case.lines if isinstance(line, ENTRIES)))):
        assert isinstance(line, OpenedLine)
        record = parse_record(line.payload)
        if not record.grants and record.seq > 1:
            return position, record.handle
    raise AssertionError("nobody has withdrawn")


def hide(position: int) -> Edit:
    return at(position, lambda line: GarbageLine(line.leaf))


def test_a_withdrawal_said_to_be_garbage_is_caught_by_its_receipt_and_by_nothing_else() -> None:
    case = usual()
    position, _ = newest_withdrawal(case)
    assert case.found(hide(position)) == []
    assert "Both are believed" in case.audit(case.forged(hide(position))).text()
    assert "Both are believed" not in case.audit().text()
    receipt = case.receipt(position)
    caught = case.found(hide(position), receipts=[case.receipt(0), receipt])
    assert caught == [f"entry {position}: it is said to be garbage, but a receipt opens it"]
    assert case.audit(receipts=[case.receipt(0), receipt]).adds_up
    assert case.audit(receipts=[receipt]).receipts == 1


def test_a_hidden_link_is_caught_by_a_receipt() -> None:
    case = usual()
    position, handle = newest_withdrawal(case)
    forged_key = each(
        LinkLine, lambda line: changed(line, public_key=STRANGER.public) if line.handle == handle else line
    )
    unlinked = each(LinkLine, lambda line: None if line.handle == handle else line)
    for edit in (forged_key, unlinked):
        assert case.found(edit) == []
        caught = case.found(edit, receipts=[case.receipt(position)])
        assert caught == [f"entry {position}: a receipt opens it, and by the links shown it counts for nothing"]


def test_a_receipt_that_contradicts_the_lane_shows_two_histories() -> None:
    case = usual()
    moved = case.found(lambda lines: swapped(lines, 3, 4), receipts=[case.receipt(3)])
    assert "entry 3: a receipt shows another entry at this position" in moved


def test_a_receipt_that_proves_nothing_is_refused() -> None:
    case = usual()
    good = case.receipt(3)
    for broken, family in (
        (case.receipt(3, proof=good.proof[1:]), TamperingError),
        (case.receipt(3, position=4), TamperingError),
        (case.receipt(3, rho=case.receipt(4).rho), TamperingError),
        (case.receipt(3, checkpoint=write_checkpoint(case.pinned, f"fedcredit/{ASTER}", STRANGER)), TamperingError),
        (case.receipt(3, lane=BIRCH), RefusalError),
    ):
        with pytest.raises(family):
            case.audit(receipts=[broken])


def used_at(case: Case) -> bytes:
    return next(line.handle for line in case.lines if isinstance(line, UsedLine) and 1 in line.stages)


def test_a_used_subject_without_a_link_is_told() -> None:
    case = usual()
    victim = used_at(case)
    found = case.found(each(LinkLine, lambda line: None if line.handle == victim else line))
    total = case.audit().releases[0].subjects
    assert found == [
        f"release RUN/{stage}: 1 of {total} subjects used are not linked, so nobody can say that they agreed"
        for stage in range(1, 5)
    ]


def test_a_link_with_another_key_grants_nothing() -> None:
    case = usual()
    victim = used_at(case)
    found = case.found(
        each(LinkLine, lambda line: changed(line, public_key=STRANGER.public) if line.handle == victim else line)
    )
    assert all(text.endswith("not allowed: none (1)") for text in found)
    assert len(found) == 4


def test_an_end_that_was_invented_lets_nobody_be_used_and_is_caught_by_a_receipt() -> None:
    case = usual()
    victim = used_at(case)
    ended = each(LinkLine, lambda line: changed(line, ended_at_size=1) if line.handle == victim else line)
    found = case.found(ended)
    assert len(found) == 4
    assert all("1 of" in text and "are not linked" in text for text in found)
    position, handle = newest_withdrawal(case)
    hidden = each(LinkLine, lambda line: changed(line, ended_at_size=position + 1) if line.handle == handle else line)
    assert case.found(hidden) == []
    (told,) = case.found(hidden, receipts=[case.receipt(position)])
    assert told.startswith(f"entry {position}: a receipt opens it, and it is said to be by a key whose link had ended")


def test_a_subject_linked_twice_is_told() -> None:
    case = usual()
    _, handle = newest_withdrawal(case)

    def again(lines: Lines) -> Lines:
        number = next(n for n, line in enumerate(lines) if isinstance(line, LinkLine) and line.handle == handle)
        more = changed(lines[number], linked_at_size=1)
        return [*lines[: number + 1], more, *lines[number + 1 :]]

    assert case.found(again) == ["links: subjects linked twice for the same entries, of whom no record counts: 1"]
    assert case.audit(case.forged(again)).to_json()["lane"]["linked_twice"] == 1
    backwards = case.forged(each(LinkLine, lambda line: changed(line, ended_at_size=0)))
    with pytest.raises(MalformedError):
        case.audit(backwards)


def only(stage: int, text: str) -> list[str]:
    return [f"release RUN/{stage}: {text}"]


COMMITTED = "the subjects and the salt shown are not those committed to"
SIGNED = "the commitment in the run's record is not signed by this data holder with the numbers that it sent"


def test_a_subject_left_out_or_put_in_contradicts_the_commitment() -> None:
    case = usual()
    victim = used_at(case)
    four = [only(stage, COMMITTED)[0] for stage in range(1, 5)]
    assert case.found(each(UsedLine, lambda line: None if line.handle == victim else line)) == four
    elsewhere = changed_stages(victim, (1, 2, 3, 4, 5))
    assert only(5, COMMITTED)[0] in case.found(elsewhere)
    assert case.found(changed_stages(victim, (1, 2, 4))) == only(3, COMMITTED)


def changed_stages(handle: bytes, stages: tuple[int, ...]) -> Edit:
    return each(UsedLine, lambda line: changed(line, stages=stages) if line.handle == handle else line)


def at_stage(stage: int, **changes: Any) -> Edit:
    return each(ReleaseLine, lambda line: changed(line, **changes) if line.stage == stage else line)


def test_another_salt_contradicts_the_commitment() -> None:
    assert usual().found(at_stage(2, salt=b"x" * 32)) == only(2, COMMITTED)


def test_other_numbers_than_those_signed_are_told() -> None:
    assert usual().found(at_stage(5, words_sha256=b"x" * 32)) == only(5, SIGNED)


def without_release(number: int) -> Edit:
    def edit(lines: Lines) -> Lines:
        kept = [line for line in lines if not isinstance(line, ReleaseLine) or line.stage != number]
        fewer = each(UsedLine, lambda line: changed(line, stages=tuple(s for s in line.stages if s != number)))
        return fewer(kept)

    return edit


def test_a_release_that_is_not_opened_is_told() -> None:
    assert usual().found(without_release(3)) == only(3, "the data holder does not open it")


# --- what a coordinator may change in run.json


def record_changed(case: Case, change: Callable[[dict[str, Any]], None], path: Path | None = None) -> list[str]:
    report = case.audit(path, record=read_run_record(case.rewritten_record(change)))
    return [text.replace(case.outcome.run, "RUN") for text in report.complaints()]


def test_a_commitment_that_the_coordinator_made_up_is_told_as_not_signed() -> None:
    def change(plain: dict[str, Any]) -> None:
        plain["releases"][1]["updates"][ASTER]["commitment"] = "ab" * 32

    assert record_changed(usual(), change) == [*only(2, SIGNED), *only(2, COMMITTED)]


def test_a_signature_of_another_release_is_told() -> None:
    def change(plain: dict[str, Any]) -> None:
        first, second = (plain["releases"][number]["updates"] for number in (0, 1))
        first[ASTER], second[ASTER] = second[ASTER], first[ASTER]

    assert {text.partition(":")[0] for text in record_changed(usual(), change)} == {"release RUN/1", "release RUN/2"}


def test_a_release_left_out_of_the_record_is_told() -> None:
    text = "the run's record has no update of this data holder in it"
    assert record_changed(usual(), lambda plain: plain["releases"].pop(1)) == only(2, text)
    assert only(2, text)[0] in record_changed(usual(), lambda plain: plain["releases"][1]["updates"].pop(ASTER))


@pytest.mark.parametrize("change", [{"ledger": "ab" * 32}, {"ledger_size": 1}])
def test_a_ledger_mark_that_the_coordinator_made_up_is_told_as_not_signed(change: dict[str, object]) -> None:
    def edit(plain: dict[str, Any]) -> None:
        plain["releases"][3]["updates"][ASTER].update(change)

    assert record_changed(usual(), edit) == only(4, SIGNED)


def left_out_of(stage: int, reason: str = "late") -> Callable[[dict[str, Any]], None]:
    """The coordinator says that it did without this data holder in one release."""

    def change(plain: dict[str, Any]) -> None:
        release = plain["releases"][stage - 1]
        del release["updates"][ASTER]
        release["left_out"] = {ASTER: reason}

    return change


def test_a_release_that_was_charged_and_left_out_of_the_sum_adds_up_and_is_named() -> None:
    case = usual()
    record = read_run_record(case.rewritten_record(left_out_of(2)))
    report = case.audit(record=record)
    assert report.complaints() == []
    assert [release.left_out for release in report.releases] == [None, "late", None, None, None]
    assert "subjects used; left out of the sum (late)" in report.text()
    assert report.to_json()["releases"][1]["left_out"] == "late"
    # It may also have made nothing there; then nothing is shown of it.
    without = case.forged(without_release(2))
    assert case.audit(without, record=record).complaints() == []
    assert case.audit(without).complaints() != []


def test_who_was_charged_in_a_release_that_was_left_out_must_have_agreed_all_the_same() -> None:
    case = usual()
    victim = used_at(case)
    total = case.audit().releases[1].subjects
    unlinked = case.forged(each(LinkLine, lambda line: None if line.handle == victim else line))
    found = record_changed(case, left_out_of(2), unlinked)
    assert len(found) == 4
    assert found[1] == only(2, f"1 of {total} subjects used are not linked, so nobody can say that they agreed")[0]


@pytest.mark.parametrize(
    ("change", "family"),
    [
        (lambda plain: plain["releases"][0]["left_out"].update({ASTER: "late"}), MalformedError),
        (lambda plain: plain["releases"][0].pop("left_out"), MalformedError),
        (lambda plain: plain["releases"][0].update(left_out=[]), MalformedError),
        (lambda plain: plain["releases"][0]["updates"][ASTER].pop("ledger"), MalformedError),
        (lambda plain: plain["releases"][0]["updates"][ASTER].update(ledger_size=0), MalformedError),
        (lambda plain: plain["releases"][0]["updates"][ASTER].update(ledger="AB" * 32), MalformedError),
        (lambda plain: plain.update(run="0" * 32), RefusalError),
        (lambda plain: plain["holders"].remove(ASTER), RefusalError),
        (lambda plain: plain.update(plan="0" * 64), TamperingError),
        (lambda plain: plain["checkpoints"].pop(BIRCH), TamperingError),
        (lambda plain: plain["checkpoints"].update({ASTER: plain["checkpoints"][BIRCH]}), TamperingError),
        (lambda plain: plain["releases"][0].update(name=release_name(plain["run"], 99)), MalformedError),
        (lambda plain: plain["releases"][0].update(name="x"), MalformedError),
        (lambda plain: plain["releases"].append(plain["releases"][0]), MalformedError),
        (lambda plain: plain.update(more=1), MalformedError),
        (lambda plain: plain.pop("plan"), MalformedError),
    ],
)
def test_a_record_of_something_else_is_refused(
    change: Callable[[dict[str, Any]], None], family: type[FedcreditError]
) -> None:
    with pytest.raises(family):
        record_changed(usual(), change)


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data.replace(b'"run":', b'"run": '),
        lambda data: data.replace(b'"plan":', b'"plan":"' + b"0" * 64 + b'","plan":'),
        lambda data: data[: len(data) // 2],
        lambda _: b"",
        lambda _: b"[" * 100_000,
        lambda _: b"\xff\xfe",
    ],
)
def test_a_record_in_any_other_form_is_refused(edit: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(edit(usual().record_path.read_bytes()))
    with pytest.raises(MalformedError):
        read_run_record(path)


# --- what belongs to something else


@pytest.mark.parametrize("which", ["coordinator", "registry"])
def test_another_partys_key_is_refused(which: str) -> None:
    case = usual()
    keys = {name: getattr(case.keys, name) for name in ("coordinator", "registry", "holder")}
    with pytest.raises(TamperingError):
        case.audit(keys=TrustedKeys(**(keys | {which: STRANGER.public})))


def test_an_opening_signed_by_another_is_refused() -> None:
    case = usual()
    with pytest.raises(TamperingError):
        case.audit(identity=STRANGER.public)
    forged = case.forged(key=STRANGER)
    with pytest.raises(TamperingError):
        case.audit(forged)
    with pytest.raises(TamperingError, match="another key"):
        case.audit(forged, identity=STRANGER.public, keys=TrustedKeys(
            case.keys.coordinator, case.keys.registry, STRANGER.public
        ))  # fmt: skip


def test_an_opening_in_another_data_holders_name_is_refused() -> None:
    case = usual()
    with pytest.raises(TamperingError):
        case.audit(case.forged(holder=BIRCH))
    with pytest.raises(RefusalError):
        case.audit(case.forged(holder="nobody"))


def test_a_plan_signed_by_another_or_changed_is_refused() -> None:
    case = usual()
    plan = read_plan(SignedPlan(case.header.plan, case.header.plan_signature), case.keys.coordinator)
    stranger = sign_plan(plan, STRANGER)
    with pytest.raises(TamperingError):
        case.audit(case.forged(plan=stranger.payload, plan_signature=stranger.signature))
    later = sign_plan(msgspec.structs.replace(plan, ends=plan.ends + 1), case.ready.federation.coordinator_key)
    with pytest.raises(TamperingError, match="run's name"):
        case.audit(case.forged(plan=later.payload, plan_signature=later.signature))


def test_another_run_of_the_same_data_holder_is_refused(ready: Ready) -> None:
    first = case_of(ready, ready.run())
    ready.federation.withdraw(ready.registry, ready.agreeing()[0])
    ready.sync()
    second = case_of(ready, ready.run())
    assert first.audit().adds_up
    assert second.audit().adds_up
    with pytest.raises(RefusalError, match="another run"):
        first.audit(second.opening)
    with pytest.raises(TamperingError, match="checkpoint"):
        first.audit(first.forged(checkpoint=second.header.checkpoint))


def test_another_schema_is_refused() -> None:
    text = usual().schema_path.read_text().replace("centred_radius = ", "centred_radius = 1")
    with pytest.raises(RefusalError, match="schema"):
        usual().audit(schema=parse_schema(text, "schema.toml"))


def test_a_run_pinned_to_a_head_that_the_lane_never_had_is_told() -> None:
    """Registry and coordinator together: a head signed for more entries than there are, and a run named by it."""
    case = usual()
    pinned = case.pinned
    registry_key = case.ready.federation.registry_key
    for key, head in (
        (registry_key, Head(pinned.size + 1, pinned.root)),
        (registry_key, Head(pinned.size, b"x" * 32)),
        (STRANGER, pinned),
    ):
        note = write_checkpoint(head, f"fedcredit/{ASTER}", key)
        checkpoints = {**case.record.checkpoints, ASTER: note}
        run = run_id(SignedPlan(case.header.plan, case.header.plan_signature), checkpoints)

        def change(plain: dict[str, Any], checkpoints: dict[str, str] = checkpoints, run: str = run) -> None:
            for release in plain["releases"]:
                release["name"] = release["name"].replace(plain["run"], run)
            plain.update(run=run, checkpoints=checkpoints)

        record = read_run_record(case.rewritten_record(change))
        forged = case.forged(run=run, checkpoint=note)
        if key is STRANGER:
            with pytest.raises(TamperingError):
                case.audit(forged, record=record)
            continue
        complaints = case.audit(forged, record=record).complaints()
        assert complaints[0].startswith("lane: "), complaints


# --- files that are damaged


def test_a_file_cut_anywhere_is_told_as_damaged(tmp_path: Path) -> None:
    case, path = usual(), tmp_path / "cut.opening"
    whole = case.opening.read_bytes()
    for size in [*range(0, 40), *range(40, len(whole), len(whole) // 60), *range(len(whole) - 10, len(whole))]:
        path.write_bytes(whole[:size])
        with pytest.raises(MalformedError):
            case.audit(path)


def test_a_file_with_any_byte_changed_is_told_as_damaged(tmp_path: Path) -> None:
    case, path = usual(), tmp_path / "flipped.opening"
    whole = case.opening.read_bytes()
    harmless = range(3, 10)  # gzip's flags, time and system, which say nothing about the content
    for place in [*range(0, 40), *range(40, len(whole), len(whole) // 60), *range(len(whole) - 10, len(whole))]:
        path.write_bytes(flipped(whole, place))
        if place in harmless:
            assert case.audit(path).adds_up
        else:
            with pytest.raises(MalformedError):
                case.audit(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(MalformedError):
        case.audit(path)


def test_lines_that_the_data_holder_did_not_sign_are_told(tmp_path: Path) -> None:
    case, path = usual(), tmp_path / "altered.opening"
    path.write_bytes(gzip.compress(b"".join([*case.raw[:-1], case.raw[-1].replace(b'"', b"'", 1)])))
    with pytest.raises(TamperingError, match="other lines"):
        case.audit(path)
    path.write_bytes(gzip.compress(b"".join(case.raw[:-1])))
    with pytest.raises(TamperingError, match="other lines"):
        case.audit(path)


BODIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "no JSON": lambda body: [b"{\n", *body],
    "an empty line": lambda body: [*body[:5], b"\n", *body[5:]],
    "a line of another kind": lambda body: [b'{"kind":"customer"}\n', *body],
    "a line that does not end": lambda body: [*body[:-1], body[-1][:-1]],
    "a line that is too long": lambda body: [*body, b'"' + b"x" * 20_000 + b'"\n'],
    "another spelling": lambda body: [body[0].replace(b":", b": ", 1), *body[1:]],
    "an unknown field": lambda body: [body[0].replace(b"{", b'{"a":1,', 1), *body[1:]],
    "a link twice": lambda body: [body[0], *body],
    "links in another order": lambda body: [body[1], body[0], *body[2:]],
    "a link after the entries": lambda body: [*body[1:], body[0]],
    "a used subject twice": lambda body: [*body, body[-1]],
    "a release twice": lambda body: [*(line for line in body for _ in range(1 + (b'"release"' in line)))],
    "a subject of no release": lambda body: [*body, write_line(UsedLine(b"\xff" * 32, (9,)))],
    "stages in another order": lambda body: [*body, write_line(UsedLine(b"\xff" * 32, (2, 1)))],
    "bytes": lambda body: [*body, b"\xff\xfe\n"],
}


@pytest.mark.parametrize("name", BODIES)
def test_a_signed_body_that_is_no_opening_is_told_as_malformed(name: str) -> None:
    case = usual()
    with pytest.raises(MalformedError):
        case.audit(case.packed(BODIES[name](case.raw[1:])))


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"x" * 100_000, b"[" * 70_000 + b"\n"])
def test_what_is_no_opening_at_all_is_told_as_malformed(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (content, gzip.compress(content)):
        path.write_bytes(data)
        with pytest.raises(MalformedError):
            usual().audit(path)


def test_an_empty_body_does_not_add_up() -> None:
    report = usual().audit(usual().packed([]))
    assert len(report.complaints()) == 6  # no entry, and none of five releases


# --- what is told


def test_no_report_names_anybody() -> None:
    case = usual()
    victim = used_at(case)
    position, _ = newest_withdrawal(case)
    edits: list[Edit] = [list, hide(position), at(3, lambda _: None), changed_stages(victim, (1,))]
    for edit in edits:
        report = case.audit(case.forged(edit), receipts=[case.receipt(position)])
        told = report.text() + json.dumps(report.to_json()) + repr(report)
        for line in case.lines:
            if isinstance(line, LinkLine):
                for secret in (line.handle, line.public_key):
                    assert secret.hex() not in told
                    assert msgspec.json.encode(secret).decode() not in told


def test_the_report_for_machines_says_what_the_text_says() -> None:
    case = usual()
    report = case.audit(case.forged(at_stage(2, salt=b"x" * 32)))
    told = report.to_json()
    assert told == json.loads(json.dumps(told))
    assert told["adds_up"] is False
    assert told["complaints"] == report.complaints()
    assert [(found["release"], found["flaw"]) for found in told["findings"]] == [
        (release_name(case.outcome.run, 2), "commitment")
    ]
    assert f"WRONG     {report.complaints()[0]}" in report.text()
