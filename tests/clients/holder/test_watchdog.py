"""An answer that takes too long is ended: by an exception where one comes through, else with the whole process."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from clients.holder.watchdog import OutOfTimeError, within

_HANGS = """
import ctypes, sys, threading, time
from clients.holder.watchdog import OutOfTimeError, within
secret = "4711"
def stuck_in_c():
    # Holds the interpreter: no Python code runs, in no thread, and no signal ends it.
    lock, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)
def stuck_and_deaf():
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
print("begun", flush=True)
with within(0.2, hard_after_s=0.3):
    {hang}
"""


def test_an_answer_in_time_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with within(60):
        pass
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def sleeps() -> None:
    time.sleep(600)


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def computes() -> None:
    while True:
        pass


@pytest.mark.parametrize("hang", [sleeps, waits_for_a_lock, computes])
def test_an_answer_that_takes_too_long_is_broken_off(hang: Callable[[], None]) -> None:
    with pytest.raises(OutOfTimeError), within(0.1):
        hang()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_whoever_catches_every_error_does_not_catch_it() -> None:
    assert not issubclass(OutOfTimeError, Exception)


def test_a_failure_inside_comes_through_and_the_watch_is_over() -> None:
    with pytest.raises(ZeroDivisionError), within(60):
        _ = 1 // 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("hang", ["stuck_in_c()", "stuck_and_deaf()"])
def test_what_no_exception_reaches_ends_the_process(hang: str) -> None:
    command = [sys.executable, "-c", _HANGS.format(hang=hang)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == "begun\n"
    assert done.stderr.startswith("Timeout (")  # not by the exception
    assert hang.removesuffix("()") in done.stderr  # where it was stuck, and no value
    assert "4711" not in done.stderr


def test_the_end_of_a_watched_answer_ends_the_watch_of_the_process() -> None:
    code = "import time\nfrom clients.holder.watchdog import within\nwith within(0.1, hard_after_s=0.1):\n    pass\n"
    done = subprocess.run([sys.executable, "-c", code + "time.sleep(0.6)"], timeout=60, check=False)
    assert done.returncode == 0


def test_only_the_main_thread_is_watched() -> None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            with within(1):
                pass
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(caught) == 1
