"""A run's word to the door: heard at once, by whoever waits, across processes, and never in anybody's way."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.deploy.bell import Bell

LONG_S = 20.0


def test_a_ring_of_another_program_wakes_everybody_who_waits(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    ring = (
        f"from pathlib import Path; from server.deploy.bell import Bell; Bell(Path({str(tmp_path / 'bell')!r})).ring()"
    )

    async def wait() -> None:
        with bell.listen():
            waiting = [asyncio.create_task(bell.rung(bell.rings)) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting)
            await asyncio.to_thread(subprocess.run, [sys.executable, "-c", ring], check=True)
            async with asyncio.timeout(LONG_S):
                await asyncio.gather(*waiting)

    asyncio.run(wait())


def test_a_ring_between_the_look_and_the_wait_is_not_missed(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")

    async def wait() -> None:
        with bell.listen():
            for _ in range(2):
                seen = bell.rings
                bell.ring()
                async with asyncio.timeout(LONG_S):
                    await bell.rung(seen)

    asyncio.run(wait())


def test_more_rings_than_anybody_hears_block_nobody(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")

    async def wait() -> None:
        with bell.listen():
            for _ in range(70_000):  # a pipe takes 64 KiB
                bell.ring()
            async with asyncio.timeout(LONG_S):
                await bell.rung(0)

    asyncio.run(wait())


def test_whoever_waits_is_let_go_when_nobody_listens_any_more(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")

    async def wait() -> None:
        with bell.listen():
            waiting = asyncio.create_task(bell.rung(bell.rings))
            await asyncio.sleep(0)
            bell.hush()
            async with asyncio.timeout(LONG_S):
                await waiting
            assert not bell.is_heard
            bell.ring()
            await asyncio.sleep(0.01)  # heard, and nobody is there
        assert not (tmp_path / "bell").exists()

    asyncio.run(wait())


@pytest.mark.parametrize("there", ["nothing", "a pipe of a program that was killed", "a file", "no directory"])
def test_a_ring_that_nobody_hears_is_lost_at_once(tmp_path: Path, there: str) -> None:
    path = tmp_path / "bell"
    if there == "a file":
        path.write_bytes(b"kept")
    if there.startswith("a pipe"):
        subprocess.run(["mkfifo", str(path)], check=True)
    before = time.monotonic()
    Bell(path / "more" if there == "no directory" else path).ring()
    assert time.monotonic() - before < LONG_S


def test_where_no_pipe_can_be_nobody_waits(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "none" / "bell")

    async def wait() -> None:
        with bell.listen():
            assert not bell.is_heard
            await bell.rung(bell.rings)

    asyncio.run(wait())


def test_what_a_killed_program_left_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    path.write_bytes(b"left")
    bell = Bell(path)

    async def wait() -> None:
        with bell.listen():
            assert path.is_fifo()
            assert path.stat().st_mode & 0o077 == 0

    asyncio.run(wait())
