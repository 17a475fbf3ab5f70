"""The registry's routes as anybody may call them: in process, through ASGI, with a clock of our own."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from privacy.consent.lane import read_checkpoint
from privacy.consent.promise import read_promise
from privacy.consent.submission import MAX_FRAMES_BYTES, frame
from privacy.consent.tiles import read_bundle
from server.registry.http import create_app
from server.registry.settings import LimitSettings
from server.registry.store import Registry
from tests.privacy.consent.reference_merkle import mth
from tests.server.registry.asgi import AppClient
from tests.server.registry.samples import (
    AT,
    KEY,
    LANE,
    LANES,
    LIMITS,
    OTHER_HOLDER,
    key_set,
    settings,
    submission,
    tombstone,
)

ROUTES = {
    "/lanes/{lane}/checkpoint": {"get"},
    "/lanes/{lane}/tile/{path}": {"get"},
    "/lanes/{lane}/sealed/{path}": {"get"},
    "/lanes/{lane}/positions/{tag}": {"get"},
    "/lanes/{lane}/records": {"post"},
    "/lanes/{lane}/tombstones": {"post"},
    "/lanes/{lane}/key-set": {"get", "put"},
    "/healthz": {"get"},
    "/metrics": {"get"},
}
HOSTILE = (
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "x' OR '1'='1", "x%27%3BDROP%20TABLE%20entries%3B--", "%00", "%0a",
    "ASTER-BANK", "aster-bank%20", "aster-b%D0%B0nk", "a" * 5000,
)  # fmt: skip


class Clock:
    now = AT

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough here: what differs between databases is tested in the store and in the process."""
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def client_for(registry: Registry, clock: Clock, limits: LimitSettings = LIMITS) -> AppClient:
    return AppClient(create_app(settings(limits=limits), registry, clock))


@pytest.fixture
def http(registry: Registry, clock: Clock) -> Iterator[AppClient]:
    with client_for(registry, clock) as client:
        yield client


def post(http: AppClient, *names: str, lane: str = LANE) -> httpx.Response:
    return http.post(f"/lanes/{lane}/records", content=frame([submission(name) for name in names]))


def size(http: AppClient) -> int:
    return read_checkpoint(http.get(f"/lanes/{LANE}/checkpoint").text, f"fedcredit/{LANE}", KEY.public).size


def test_what_was_promised_is_under_the_next_head(http: AppClient, clock: Clock) -> None:
    answer = post(http, "a", "b", "c")
    assert answer.status_code == 200
    promises = [read_promise(one.encode(), registry_key=KEY.public) for one in answer.json()["promises"]]
    assert [promise.position for promise in promises] == [0, 1, 2]
    note = http.get(f"/lanes/{LANE}/checkpoint")
    assert note.headers["content-type"].startswith("text/plain")
    head = read_checkpoint(note.text, f"fedcredit/{LANE}", KEY.public)
    leaves = [submission(name).stub.leaf() for name in "abc"]
    assert (head.size, head.root) == (3, mth(leaves))
    bundle = http.get(f"/lanes/{LANE}/tile/entries/000.p/3")
    assert read_bundle(bundle.content, 3) == leaves
    assert "immutable" in bundle.headers["cache-control"]
    sealed = http.get(f"/lanes/{LANE}/sealed/000.p/3")
    assert read_bundle(sealed.content, 3) == [submission(name).ciphertext for name in "abc"]
    assert sealed.headers["cache-control"] == "no-store"
    assert len(http.get(f"/lanes/{LANE}/tile/0/000.p/2").content) == 64
    # Later, and again: the same bytes.
    clock.now += 1000
    assert post(http, "c", "a").json()["promises"] == [answer.json()["promises"][k] for k in (2, 0)]
    assert size(http) == 3


def test_a_taken_tag_is_a_conflict_and_nothing_of_its_request_is_kept(http: AppClient) -> None:
    post(http, "first")
    clash = frame([submission("new"), submission("other", tag="first")])
    answer = http.post(f"/lanes/{LANE}/records", content=clash)
    assert (answer.status_code, answer.json()["code"]) == (409, "replay")
    assert size(http) == 1


def test_positions(http: AppClient) -> None:
    post(http, "a", "b")
    tag = submission("b").stub.tag.hex()
    assert http.get(f"/lanes/{LANE}/positions/{tag}").json() == {"position": 1}
    assert http.get(f"/lanes/{LANE}/positions/{'0' * 32}").status_code == 404
    for bad in (tag.upper(), tag[:-1], tag + "0", tag[:-1] + "g", "x' OR '1'='1"):
        assert http.get(f"/lanes/{LANE}/positions/{bad}").status_code == 400


def test_erasing_over_http(http: AppClient) -> None:
    post(http, "a", "b")
    statement = tombstone(0, submission("a"))
    first, again = (http.post(f"/lanes/{LANE}/tombstones", content=statement) for _ in range(2))
    assert first.status_code == 200
    assert first.json() == again.json()
    sealed = read_bundle(http.get(f"/lanes/{LANE}/sealed/000.p/3").content, 3)
    assert sealed == [None, submission("b").ciphertext, statement]
    forged = http.post(f"/lanes/{LANE}/tombstones", content=tombstone(1, submission("b"), key=OTHER_HOLDER))
    assert (forged.status_code, forged.json()["code"]) == (400, "tampering")


def test_key_sets_over_http(http: AppClient) -> None:
    assert http.get(f"/lanes/{LANE}/key-set").status_code == 404
    newer = key_set(2, 5)
    assert http.put(f"/lanes/{LANE}/key-set", content=newer).status_code == 200
    assert http.put(f"/lanes/{LANE}/key-set", content=newer).status_code == 200
    assert http.get(f"/lanes/{LANE}/key-set").content == newer
    assert http.put(f"/lanes/{LANE}/key-set", content=key_set(1, 5)).status_code == 409
    outdated = post(http, "a")
    assert (outdated.status_code, outdated.json()["code"]) == (400, "malformed")
    assert "fetch the key set again" in outdated.json()["error"]


@pytest.mark.parametrize("lane", ["nobody", *HOSTILE])
def test_an_unknown_lane_is_not_there_and_is_not_repeated(http: AppClient, lane: str) -> None:
    for method, path in (
        ("GET", "checkpoint"), ("GET", "tile/0/000.p/1"), ("GET", "sealed/000.p/1"), ("GET", "key-set"),
        ("GET", f"positions/{'0' * 32}"), ("POST", "records"), ("POST", "tombstones"), ("PUT", "key-set"),
    ):  # fmt: skip
        answer = http.request(method, f"/lanes/{lane}/{path}", frame([submission("a")]))
        assert answer.status_code in (400, 404), (method, path)
        assert lane.strip("%") not in answer.text or len(lane) < 5
    assert size(http) == 0


@pytest.mark.parametrize("path", [
    "0/000.p/0", "0/000.p/257", "0/0", "0/000.p/01", "-1/000", "64/000.p/1", "entries/x000/000.p/1", "0/../0/000",
    "0/000.p/1;DROP TABLE entries", "0/٠٠٠.p/1", *HOSTILE,
])  # fmt: skip
def test_a_path_that_is_no_tile_is_refused(http: AppClient, path: str) -> None:
    post(http, "a")
    for kind in ("tile", "sealed"):
        assert http.get(f"/lanes/{LANE}/{kind}/{path}").status_code in (400, 404)
    assert http.get(f"/lanes/{LANE}/tile/0/000.p/2").status_code == 404
    assert http.get("/healthz").json() == {"status": "ok"}
    assert size(http) == 1


def test_bodies_that_are_no_submission_are_refused(http: AppClient) -> None:
    good = frame([submission("a")])
    for body in (b"", b"x", good[:-1], good + b"x", bytes(len(good)), good[:-1] + bytes([good[-1] ^ 1])):
        answer = http.post(f"/lanes/{LANE}/records", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert size(http) == 0


def test_a_body_beyond_the_limit_is_not_read_to_its_end(registry: Registry, clock: Clock) -> None:
    """Whatever length is stated, or none: reading stops within one part of the limit."""
    app = create_app(settings(), registry, clock)
    part, sent = bytes(1 << 16), 0

    async def endless() -> dict[str, Any]:
        nonlocal sent
        sent += len(part)
        assert sent < 2 * MAX_FRAMES_BYTES
        return {"type": "http.request", "body": part, "more_body": True}

    for length in (None, b"5"):
        sent = 0
        status, answer = asyncio.run(_call(app, f"/lanes/{LANE}/records", endless, length))
        assert status == 413
        assert json.loads(answer)["code"] == "malformed"
        assert MAX_FRAMES_BYTES < sent <= MAX_FRAMES_BYTES + len(part)


def test_a_body_that_never_comes_is_given_up(registry: Registry, clock: Clock) -> None:
    app = create_app(settings(), registry, clock, body_seconds=0.05)

    async def drips() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    status, _ = asyncio.run(_call(app, f"/lanes/{LANE}/records", drips, None))
    assert status == 408


async def _call(app: Any, path: str, receive: Any, length: bytes | None) -> tuple[int, bytes]:
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [] if length is None else [(b"content-length", length)],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return int(sent[0]["status"]), body


def test_one_address_may_hand_in_its_share_and_no_more(registry: Registry, clock: Clock) -> None:
    with client_for(registry, clock, LimitSettings(records_per_minute=1, burst=256)) as http:
        assert post(http, *(f"record {k}" for k in range(250))).status_code == 200
        refused = post(http, *(f"more {k}" for k in range(7)))
        assert (refused.status_code, refused.json()["code"]) == (429, "policy")
        assert 0 < int(refused.headers["retry-after"]) <= 7 * 60
        assert size(http) == 250
        assert post(http, "another").status_code == 200
        for _ in range(6):
            post(http, "another")
        assert http.post(f"/lanes/{LANE}/tombstones", content=b"").status_code == 429
        assert http.put(f"/lanes/{LANE}/key-set", content=b"").status_code == 429


def test_the_routes_are_told_and_no_page_loads_scripts_from_elsewhere(http: AppClient) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == ROUTES
    for page in ("/docs", "/redoc", "/"):
        answer = http.get(page)
        assert answer.status_code == 404
        assert set(answer.json()) == {"error", "code"}
    assert http.delete(f"/lanes/{LANE}/records").status_code == 405


def test_metrics_count_and_name_nobody(http: AppClient) -> None:
    post(http, "a", "b")
    post(http, "a", lane="nobody")
    http.post(f"/lanes/{LANE}/records", content=frame([submission("other", tag="a")]))
    told = http.get("/metrics").text
    for line in (
        "fedcredit_registry_accepted_total 2.0",
        'fedcredit_registry_refused_total{code="replay"} 1.0',
        'fedcredit_registry_lane_entries{lane="aster-bank"} 2.0',
        "fedcredit_registry_commit_records_sum 4.0",
    ):
        assert line in told, line
    assert 'route="/lanes/{lane}/records",status="200"' in told
    for secret in (submission("a").stub.tag.hex(), "127.0.0.1", "nobody"):
        assert secret not in told


def test_a_database_that_is_gone_is_said_and_comes_back(registry: Registry, http: AppClient) -> None:
    post(http, "a")
    writing, reading = registry._database.writing, registry._database.reading
    failing = Registry.__init__  # a name that is not a context manager: any use of it is a fault of ours
    registry._database.writing = registry._database.reading = failing  # type: ignore[method-assign,assignment]
    answer = post(http, "b")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    registry._database.writing, registry._database.reading = writing, reading  # type: ignore[method-assign]
    assert post(http, "b").status_code == 200
    assert size(http) == 2


def test_logs_and_answers_hold_no_tag_key_or_address(
    http: AppClient, registry: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    taken = submission("other", tag="first")
    post(http, "first")
    answers = [
        http.post(f"/lanes/{LANE}/records", content=frame([taken])),
        http.post(f"/lanes/{LANE}/tombstones", content=tombstone(7, taken)),
        http.post(f"/lanes/{LANE}/tombstones", content=tombstone(0, taken, key=OTHER_HOLDER)),
        http.put(f"/lanes/{LANE}/key-set", content=key_set(1, 1, key=OTHER_HOLDER)),
        http.get(f"/lanes/{LANE}/positions/{taken.stub.tag.hex()}x"),
    ]

    def fails(*_: object, **__: object) -> None:
        raise ValueError(f"{taken.stub.tag.hex()} from 10.0.0.1")

    monkeypatch.setattr(registry, "commit", fails)
    answers.append(http.post(f"/lanes/{LANE}/records", content=frame([submission("new")])))
    assert [answer.status_code for answer in answers] == [409, 400, 400, 400, 400, 500]
    told = "".join(answer.text for answer in answers) + "".join(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("fedcredit", "uvicorn", "sqlalchemy"))
    )
    assert "ValueError in test_http.py" in told
    for secret in (
        taken.stub.tag.hex(), repr(taken.stub.tag), taken.stub.commit.hex(), "10.0.0.1", "127.0.0.1",
        LANES[LANE].hex(), OTHER_HOLDER.public.hex(),
    ):  # fmt: skip
        assert secret not in told
