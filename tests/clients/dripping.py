"""A server that never ends its answer: it sends what it is told to, then one byte after the other."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

PAUSE_S = 0.05


@contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """Its address, until the end of the block; whoever waits for it to finish waits for ever."""
    stop = Event()
    connections: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(head)
            while not stop.wait(PAUSE_S):
                connection.sendall(b"a")

    def serve(listener: socket.socket) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                connections.append(connection)
                answering.append(Thread(target=answer, args=(connection,)))
                answering[-1].start()

    answering: list[Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PAUSE_S)
        accepting = Thread(target=serve, args=(listener,))
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            for thread in (accepting, *answering):
                thread.join()
