"""Kill -9 at random instants of a process that charges: whatever was acknowledged is there, and nothing by halves."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_chain import LedgerHead
from privacy.accounting import GaussianSpend
from tests.clients.test_ledger import handle, head_file

KILLS = 18
PEOPLE = 200
MU = 0.5
# Each release has new people and old ones, so that half of a charge would show in somebody's sum.
CHARGING = f"""
import hashlib, sys
from pathlib import Path
from clients.holder.ledger import PrivacyLedger
from privacy.accounting import GaussianSpend
ledger = PrivacyLedger.open(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    people = [hashlib.sha256(b"%d" % k).digest() for k in range(number * 7, number * 7 + {PEOPLE})]
    print("begin", number, flush=True)
    ledger.charge(str(number), GaussianSpend({MU}), dict.fromkeys(people, 0.5), dict.fromkeys(people, 1e9))
    head = ledger.head
    print("done", head.size, head.digest.hex(), flush=True)
"""


def people_of(number: int) -> list[bytes]:
    return [handle(k) for k in range(number * 7, number * 7 + PEOPLE)]


def killed(path: Path, first: int, *, lines: int, pause_s: float) -> tuple[int, list[LedgerHead]]:
    """Let a process charge from release `first` on and kill it so long after it has said so many lines.

    Returns the last release begun, and the ledger's heads that were acknowledged.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", CHARGING, str(path), str(first)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        assert said[0] == f"begin {first}\n"
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    words = [line.split() for line in said if line.endswith("\n")]
    begun = [int(line[1]) for line in words if line[0] == "begin"]
    return begun[-1], [LedgerHead(int(line[1]), bytes.fromhex(line[2])) for line in words if line[0] == "done"]


@pytest.mark.slow
def test_no_kill_loses_or_halves_a_charge(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    instants = np.random.default_rng(9)
    first, known = 0, None
    for _ in range(KILLS):
        last, heads = killed(path, first, lines=int(instants.integers(1, 8)), pause_s=instants.uniform(0, 0.02))
        known = heads[-1] if heads else known

        # As the crash left it: the head on file is at most what the database has, and at least what was acknowledged.
        database = sqlite3.connect(path)
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (size,) = database.execute("SELECT count(*) FROM entries").fetchone()
        database.close()
        on_file = int(head_file(path).read_text().split()[0]) if head_file(path).exists() else 0
        assert (0 if known is None else known.size) <= on_file <= size

        with PrivacyLedger.open(path, last_known=known) as ledger:
            assert ledger.head.size == size
            names = [release.release_id for release in ledger.releases()]
            assert names in ([str(number) for number in range(last)], [str(number) for number in range(last + 1)])
            # The charge that was under way is charged once, whether or not it went through before.
            again = people_of(last)
            for _ in range(2):
                ledger.charge(str(last), GaussianSpend(MU), dict.fromkeys(again, 0.5), dict.fromkeys(again, 1e9))
            assert ledger.head.size == last + 1
            known = ledger.head
        assert head_file(path).read_text() == f"{known.size} {known.digest.hex()}\n"
        first = last + 1

    exact: defaultdict[bytes, float] = defaultdict(float)
    for number in range(first):
        for person in people_of(number):
            exact[person] += (MU * 0.5) ** 2
    with PrivacyLedger.open(path, last_known=known) as ledger:
        assert ledger.spent_mu_squared(list(exact)).tolist() == pytest.approx(list(exact.values()))
        for number in (0, first // 2, first - 1):
            assert set(ledger.subjects_of(str(number))) == set(people_of(number))
    assert first > 2 * KILLS  # most processes got something done
