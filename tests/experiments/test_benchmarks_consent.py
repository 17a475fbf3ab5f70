"""The benchmark of consent, small: every promised figure is there, and each was measured on something real."""

import pytest

from experiments.benchmarks.consent_rows import ConsentSettings, consent
from experiments.benchmarks.rows import BenchRow
from server.rounds import no_progress

SMALL = ConsentSettings(
    appends=600, one_by_one=5, submits=64, people=200, records=2, subjects=2_000, withdrawals=4, over_s=0.5
)
PROMISED = {
    "SQLite: durable appends": 5_000,
    "PostgreSQL: durable appends": 2_000,
    "HTTP: submits answered": 1_000,
    "HTTP: 99th percentile of an answer": 100,
    "holder: sync a million records": 60,
    "gate: decide a million projected subjects": 10,
    "from withdraw to refusal, 99th percentile, default settings": 60,
    "from withdraw to refusal, 99th percentile, side door": 1,
}


@pytest.mark.slow
def test_every_promise_is_measured(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows: dict[str, BenchRow] = {row.name: row for row in consent(SMALL, no_progress)}
    for name, target in PROMISED.items():
        value = rows[name].value
        assert rows[name].target == target
        assert value is not None
        assert value > 0
