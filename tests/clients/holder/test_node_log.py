"""What a SuperNode's log says of its connection: texts that Flower 1.41 really wrote, and what is made of them."""

from pathlib import Path

import pytest

from clients.holder.node_log import ABRUPT_S, KNOWN_S, STUCK_S, NodeWatch
from clients.holder.serve_status import WORDS, NodeState

START = "\x1b[92mINFO \x1b[0m:      Starting Flower SuperNode\nINFO:     Application startup complete.\n"
ONLINE = "\x1b[92mINFO \x1b[0m:      SuperNode ID: 614408122804106699\n"
AWAY = "\x1b[93mWARNING \x1b[0m:   Connection attempt failed, retrying in 0.93 seconds\n"
BACK = "\x1b[92mINFO \x1b[0m:      Connection successful after 3.21 seconds and 3 tries.\n"
GRACEFUL = "\x1b[92mINFO \x1b[0m:      SuperNode terminated gracefully.\nINFO:     Shutting down\n"
EXIT = "\x1b[91mERROR \x1b[0m:     Exit Code: 305\nFailed to initialize the connection to the SuperLink.\n"
UNKNOWN_KEY = EXIT + "[code: 2004] Failed to activate SuperNode.\n"
WRONG_CA = EXIT + "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)\n"
EXPIRED = EXIT + "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)\n"
OTHER_NAME = EXIT + (
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: IP address mismatch, certificate is not valid for "
    "'127.0.0.1'. (_ssl.c:1006)\n"
)
PORT = "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 9950): address already in use\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "supernode.log"
    path.write_text(ONLINE)  # of an earlier life
    return path


def add(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_it_connects_loses_and_finds_the_coordinator(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    assert watch.look(at=0) is NodeState.CONNECTING
    for text, state in [(START, NodeState.CONNECTING), (ONLINE, NodeState.ONLINE), (AWAY, NodeState.AWAY),
                        (BACK, NodeState.ONLINE), ("something new\n", NodeState.ONLINE)]:  # fmt: skip
        add(log, text)
        assert watch.look(at=0) is state


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (UNKNOWN_KEY, NodeState.KEY_REFUSED),
        (WRONG_CA, NodeState.CERTIFICATE),
        (EXPIRED, NodeState.CERTIFICATE_EXPIRED),
        (OTHER_NAME, NodeState.CERTIFICATE_NAME),
        (PORT, NodeState.PORT),
        (GRACEFUL, NodeState.SIGNATURE_REFUSED),
        ("", NodeState.ENDED),
        ("Traceback (most recent call last):\n", NodeState.ENDED),
    ],
)
def test_each_reason_for_an_end_is_told_apart(log: Path, text: str, state: NodeState) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + text)
    assert watch.ended(at=0) is state
    add(log, START)
    assert watch.look(at=1) is state  # until there is news
    add(log, ONLINE)
    assert watch.look(at=2) is NodeState.ONLINE


@pytest.mark.parametrize("text", [PORT, EXPIRED, WRONG_CA, ONLINE])
def test_nothing_outlives_the_start_of_a_supernode_with_other_settings(log: Path, text: str) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + text)
    if text is not ONLINE:
        watch.ended(at=0)
    add(log, text)  # not read any more
    watch.begin()
    assert watch.look(at=1) is NodeState.CONNECTING
    assert not watch.is_stuck(at=99)
    add(log, START + AWAY)
    assert watch.look(at=2) is NodeState.AWAY


def test_a_reason_does_not_outlive_the_next_start(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + EXPIRED)
    watch.ended(at=0)
    add(log, START)
    assert watch.ended(at=1) is NodeState.ENDED


@pytest.mark.parametrize(
    ("text", "meanwhile"),
    [(EXPIRED, NodeState.CERTIFICATE_EXPIRED), (WRONG_CA, NodeState.CERTIFICATE), (PORT, NodeState.AWAY)],
)
def test_a_certificate_that_is_not_believed_is_told_while_the_next_try_lasts(
    log: Path, text: str, meanwhile: NodeState
) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + text)
    told = watch.look(at=0)
    assert told is (NodeState.CONNECTING if text is PORT else meanwhile)
    add(log, AWAY)
    assert watch.look(at=1) is meanwhile
    watch.ended(at=2)
    add(log, START + AWAY)
    assert watch.look(at=KNOWN_S - 1) is meanwhile
    add(log, AWAY)
    assert watch.look(at=KNOWN_S) is NodeState.AWAY
    add(log, BACK + AWAY)
    assert watch.look(at=KNOWN_S + 1) is NodeState.AWAY


def test_a_node_that_gave_up_and_does_not_end_is_stuck_until_it_has_ended(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + ONLINE + EXPIRED)
    watch.look(at=0)
    assert not watch.is_stuck(at=STUCK_S - 1)
    assert watch.is_stuck(at=STUCK_S)
    assert watch.ended(at=STUCK_S) is NodeState.CERTIFICATE_EXPIRED
    assert not watch.is_stuck(at=STUCK_S + 1)
    add(log, START + EXPIRED + BACK)
    watch.look(at=20)
    assert not watch.is_stuck(at=99)


def test_who_was_cut_off_waits_to_be_let_in_again(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + ONLINE)
    assert watch.ended(at=1000) is NodeState.ENDED  # killed: it logged no farewell
    add(log, START + UNKNOWN_KEY)
    assert watch.ended(at=1000 + ABRUPT_S - 1) is NodeState.WAITING
    add(log, START + UNKNOWN_KEY)
    assert watch.ended(at=1000 + ABRUPT_S) is NodeState.KEY_REFUSED


def test_who_was_cut_off_with_its_supervisor_waits_as_well(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=1000)
    add(log, START + UNKNOWN_KEY)
    assert watch.ended(at=1001) is NodeState.WAITING


def test_who_was_revoked_while_online_is_not_told_to_wait(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + ONLINE + GRACEFUL)
    assert watch.ended(at=1000) is NodeState.SIGNATURE_REFUSED
    add(log, START + UNKNOWN_KEY)
    assert watch.ended(at=1005) is NodeState.KEY_REFUSED


def test_a_log_that_is_cut_and_lines_that_come_in_parts_are_read_on(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START)
    watch.look(at=0)
    log.write_text(ONLINE[:20])
    assert watch.look(at=0) is NodeState.CONNECTING
    add(log, ONLINE[20:])
    assert watch.look(at=0) is NodeState.ONLINE
    log.unlink()
    assert watch.look(at=0) is NodeState.ONLINE


BROKEN = (
    "\x1b[91mERROR \x1b[0m:     Server error '500 Internal Server Error' for url 'https://a:1/v1/fleet/pull-messages'\n"
    "For more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/500\n"
)
THREAD = 'Exception in thread Thread-3 (_run):\nTraceback (most recent call last):\n  File "heartbeat.py", line 98\n'
NOT_SIGNED = (
    "httpx.HTTPStatusError: Client error '401 Unauthorized' for url 'https://a:1/v1/fleet/send-node-heartbeat'\n"
)


@pytest.mark.parametrize(
    "text", [BROKEN, BROKEN.replace("Server", "Client"), BROKEN.replace("Server error", "Redirect response"), THREAD]
)
def test_a_connection_that_failed_for_good_is_lost_at_once_and_the_node_ended(log: Path, text: str) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + ONLINE + text)
    assert watch.look(at=1000) is NodeState.ENDED
    assert not watch.is_stuck(at=1000 + STUCK_S - 1)
    assert watch.is_stuck(at=1000 + STUCK_S)
    add(log, GRACEFUL)  # told to end, it says so
    assert watch.ended(at=1006) is NodeState.ENDED
    assert not watch.is_stuck(at=2000)
    add(log, START + UNKNOWN_KEY)  # its good-bye was not heard
    assert watch.ended(at=1010) is NodeState.WAITING
    add(log, START + ONLINE)
    assert watch.look(at=1020) is NodeState.ONLINE


@pytest.mark.parametrize("text", [THREAD + NOT_SIGNED + GRACEFUL, GRACEFUL + THREAD + NOT_SIGNED])
def test_heartbeats_that_fail_for_their_signature_are_told_apart(log: Path, text: str) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + ONLINE + text)
    assert watch.ended(at=1000) is NodeState.SIGNATURE_REFUSED
    add(log, START + ONLINE + GRACEFUL)
    assert watch.ended(at=1001) is NodeState.SIGNATURE_REFUSED


def test_one_that_was_given_up_is_silent_until_it_is_connected_again(log: Path) -> None:
    watch = NodeWatch(log, broke_off_at=None)
    add(log, START + ONLINE)
    watch.look(at=1000)
    watch.give_up(at=1000)
    add(log, GRACEFUL)
    assert watch.ended(at=1001) is NodeState.SILENT
    add(log, START)
    assert watch.look(at=1002) is NodeState.SILENT
    add(log, ONLINE)
    assert watch.look(at=1003) is NodeState.ONLINE


def test_every_state_has_words_that_say_what_to_do() -> None:
    assert set(WORDS) == set(NodeState)
