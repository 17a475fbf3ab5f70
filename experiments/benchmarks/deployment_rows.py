"""The benchmark of real programs: what was measured, as rows."""

import os
from collections.abc import Iterator
from typing import Final

from experiments.benchmarks.deployment import Found, InProcess, Large, Small
from experiments.benchmarks.deployment_memory import PROGRAMS, is_shared_out
from experiments.benchmarks.deployment_times import (
    EACH_RELEASE,
    Split,
    asked_again,
    bytes_each,
    per_further_holder,
    resume_overhead_s,
)
from experiments.benchmarks.deployment_work import Ran
from experiments.benchmarks.rows import BenchRow, Peer

MOST_OURS_PERCENT: Final = 5.0
ROWS_TIMES: Final = 1.05
"""As good as 1: what the interpreter allocates is never quite the same twice."""

MIB: Final = 1 << 20
KIB: Final = 1 << 10
LOAD: Final = "everybody's programs on one machine, so its other load counts"


def rows_of(found: Found) -> list[BenchRow]:
    """Every figure as a row."""
    return [
        *_round_rows(found.small, found.ten_rounds),
        *_start_rows(found.small),
        *_resume_rows(found.small),
        *_memory_rows(found.small),
        *_large_rows(found.small, found.large),
        *_in_process_rows(found),
    ]


def _round_rows(small: Small, peer: InProcess) -> Iterator[BenchRow]:
    ran, times = small.ten_rounds, small.ten_rounds.times
    exchanges = len(times.asked)
    how = (
        f"fixed_hessian, 10 rounds and the measurement with masks, {exchanges} exchanges: joining, dealing, delivery, "
        f"then each release and the taking off of its masks; {peer.holders} data holders, {peer.people:,} people each, "
        f"TLS on loopback; {_busy(ran)}, {LOAD}"
    )
    yield BenchRow(
        "ten rounds: `coordinator run` from start to end", ran.process_s, "s", how,
        peer=Peer("the same plan, all in one process", peer.times.seconds),
    )  # fmt: skip
    yield BenchRow(
        "ten rounds: one exchange", times.exchange_s, "s", how, peer=Peer("in process", peer.times.exchange_s)
    )
    parts = (
        f"{how}. Ours: the coordinator's process while it waits for nobody; in each exchange the slowest data holder "
        "from its letter to its answer, before Flower takes that; and what our door adds to each request. The rest is "
        f"Flower's: transport, polling, SuperLink and SuperNodes. In a run of {times.seconds:.1f} s"
    )
    each = ran.requests / (exchanges * peer.holders)
    door_s = small.door.added_s * each * exchanges
    through = (
        f"median of one request on a kept connection, {1000 * small.door.direct_s:.1f} ms to SuperLink itself and "
        f"{1000 * small.door.through_s:.1f} ms through the door, times {each:.1f} requests of one data holder in an "
        f"exchange, one after another; idle polls among them. {LOAD.capitalize()}"
    )
    if ran.holders_s is None:
        unknown = "an answer of a data holder was not seen in time, so its time is not known"
        yield BenchRow("ten rounds: ours beyond Flower's own", None, "%", unknown, target=MOST_OURS_PERCENT,
                       higher_is_better=False)  # fmt: skip
    else:
        split = Split(times.seconds, times.own_s, ran.holders_s, door_s)
        yield BenchRow("ten rounds: ours beyond Flower's own", split.ours_percent, "%", parts,
                       target=MOST_OURS_PERCENT, higher_is_better=False)  # fmt: skip
        yield BenchRow("ten rounds: Flower's share", split.flower_s, "s", parts)
        yield BenchRow("ten rounds: the data holders' own work, the slowest each time", ran.holders_s, "s", parts)
    yield BenchRow("ten rounds: the coordinator's own work", times.own_s, "s", parts)
    yield BenchRow("ten rounds: submitting the run to SuperLink and ending it", times.flower_s, "s", parts)
    yield BenchRow("ten rounds: the door", door_s, "s", through)
    yield BenchRow("the door adds to one request", 1000 * small.door.added_s, "ms", through,
                   peer=Peer("SuperLink itself", 1000 * small.door.direct_s))  # fmt: skip


def _start_rows(small: Small) -> Iterator[BenchRow]:
    for name, value, how in (
        ("from start to listening: coordinator serve", small.starts.coordinator_s, "with SuperLink, of one program"),
        ("from start to online: holder serve", small.starts.holder_s, "one data holder, its worker ready, with sync"),
        ("from start to everybody online: up", small.up_s, "a directory that is there, three data holders at once"),
    ):
        yield BenchRow(name, value, "s", f"{how}; {LOAD}")


def _resume_rows(small: Small) -> Iterator[BenchRow]:
    overhead = resume_overhead_s(
        until_killed_s=small.killed.process_s, resumed_s=small.resumed.process_s, uninterrupted_s=small.short.process_s
    )
    how = (
        f"sufficient_statistics, {len(small.short.times.asked)} exchanges, {small.short.process_s:.1f} s if left "
        f"alone; killed (SIGKILL) after {small.killed.process_s:.1f} s, when half of its releases were summed, and "
        f"gone on with for {small.resumed.process_s:.1f} s. A difference of three times, each with some of Flower's "
        f"polls in it: less than an exchange is chance; load average {small.short.load:.1f}, then "
        f"{small.resumed.load:.1f}; {LOAD}"
    )
    yield BenchRow("a killed run resumed, beyond the same run left alone", overhead, "s", how)
    again = asked_again(
        summed=small.killed.summed, resumed=len(small.resumed.times.asked), uninterrupted=len(small.short.times.asked)
    )
    yield BenchRow("a killed run resumed: exchanges asked once more", float(again), "exchanges", how)


def _memory_rows(small: Small) -> Iterator[BenchRow]:
    how = f"mean of its processes, {_kind()}, while nothing runs; three data holders"
    holder = 0.0
    for program, name in PROGRAMS.items():
        size = small.idle.get(program)
        yield BenchRow(f"idle memory: {name}", None if size is None else size / MIB, "MiB", how)
    known = {program: small.idle.get(program) for program in PROGRAMS}
    if any(size is None for size in known.values()):
        total = None
    else:
        alone = {"registry", "coordinator serve", "SuperLink"}
        holder = sum(size or 0.0 for program, size in known.items() if program not in alone)
        total = sum(size or 0.0 for program, size in known.items() if program in alone) + 3 * holder
    yield BenchRow(
        "idle memory: registry, coordinator and three data holders", None if total is None else total / MIB, "MiB",
        f"{how}: {holder / MIB:.0f} MiB for each data holder",
    )  # fmt: skip


def _large_rows(small: Small, large: Large) -> Iterator[BenchRow]:
    how = (
        f"{large.holders} SuperNodes and workers, sufficient_statistics, {len(large.short.times.asked)} exchanges, "
        f"{_busy(large.short)}; the peer is the same with three, {_busy(small.short)}. {LOAD.capitalize()}"
    )
    many = f"{large.holders} data holders as programs"
    yield BenchRow(f"{many}: one exchange", large.short.times.exchange_s, "s", how,
                   peer=Peer("three data holders", small.short.times.exchange_s))  # fmt: skip
    yield BenchRow(f"{many}: from start to everybody online", large.up_s, "s", how,
                   peer=Peer("three data holders", small.up_s))  # fmt: skip
    yield BenchRow(
        f"{many}: memory of one data holder", None if large.each_bytes is None else large.each_bytes / MIB, "MiB",
        f"its supervisor, SuperNode, worker and sync, {_kind()}, while nothing runs",
    )  # fmt: skip
    for program in ("coordinator serve", "SuperLink"):
        size, before = large.idle.get(program), small.idle.get(program)
        yield BenchRow(
            f"{many}: memory of {PROGRAMS[program]}", None if size is None else size / MIB, "MiB",
            f"{_kind()}, while nothing runs", peer=None if before is None else Peer("three data holders", before / MIB),
        )  # fmt: skip
    most, before = large.short.times.peak_bytes, small.short.times.peak_bytes
    yield BenchRow(
        f"{many}: peak memory of `coordinator run`", None if most is None else most / MIB, "MiB",
        f"largest resident set, sufficient_statistics, {len(large.short.times.asked)} exchanges",
        peer=None if before is None else Peer("three data holders", before / MIB),
    )  # fmt: skip


def _in_process_rows(found: Found) -> Iterator[BenchRow]:
    many, few, fewer_rows = found.many, found.few, found.few_rows
    how = (
        f"sufficient_statistics with masks, {len(many.times.asked)} exchanges; every node in the coordinator's "
        f"process, one after the other, {many.people} people each; Flower's serialisation and no network; {LOAD}"
    )
    name = f"{many.holders} data holders in process"
    yield BenchRow(f"{name}: one round, its masks taken off", many.times.release_s, "s", how,
                   peer=Peer("three data holders", few.times.release_s))  # fmt: skip
    yield BenchRow(f"{name}: the coordinator's own work in a run", many.times.own_s, "s", how,
                   peer=Peer("three data holders", few.times.own_s))  # fmt: skip
    for what, asked, peer, rounds in (
        ("in one round", many.times.released, few.times.released, len(many.times.released) / EACH_RELEASE),
        ("to begin", many.times.begun, few.times.begun, 1),
    ):
        yield BenchRow(f"{name}: to and from each {what}", bytes_each(asked) / rounds / KIB, "KiB", how,
                       peer=Peer("three data holders", bytes_each(peer) / rounds / KIB))  # fmt: skip
    alone = (
        "the coordinator in a process of its own, over the answers of that run, one exchange after the other: the most "
        "that it had allocated at once beyond its start, its messages among it. In a run's beginning each data holder "
        "deals sealed shares to every other one"
    )
    yield BenchRow(
        f"{many.holders} data holders: coordinator's memory in a run", many.alone.most_bytes / KIB, "KiB", alone,
        peer=Peer("three data holders", few.alone.most_bytes / KIB),
    )  # fmt: skip
    each_more = per_further_holder(few.holders, few.alone.most_bytes, many.holders, many.alone.most_bytes)
    yield BenchRow(
        "coordinator's memory for each further data holder", each_more / KIB, "KiB", alone,
        peer=Peer("numbers in a data holder's largest answer", many.alone.largest_answer_bytes / KIB),
    )  # fmt: skip
    yield BenchRow(
        "coordinator's memory with ten times the rows, times that with one",
        few.alone.most_bytes / fewer_rows.alone.most_bytes, "times",
        f"{few.people:,} people at each of {few.holders} data holders against {fewer_rows.people:,}: "
        f"{few.alone.most_bytes / KIB:.0f} and {fewer_rows.alone.most_bytes / KIB:.0f} KiB; {alone}",
        target=ROWS_TIMES, higher_is_better=False,
    )  # fmt: skip


def _busy(ran: Ran) -> str:
    return f"{os.cpu_count()} cores, load average {ran.load:.1f}"


def _kind() -> str:
    return "pages shared with others counted in part (PSS)" if is_shared_out() else "resident set (RSS)"
