"""Requests for messages where there are none: each waits at the door until there may be one.

A SuperNode that was told that there is nothing asks again after 3 s. Most of an exchange would be that.
"""

import asyncio
from typing import Final

from starlette.types import Receive

from server.deploy.bell import Bell

HOLD_S: Final = 10.0
"""At most. A SuperNode waits for 30 s, and a data holder calls its node silent after 75 s without an answer."""


class HeldPulls:
    """At most one for each key: whoever asks anew has given up, or lost, what it asked before."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._newest: dict[bytes, asyncio.Future[None]] = {}

    async def until_rung(self, key: bytes, since: int, left_s: float, receive: Receive) -> bool:
        """Whether SuperLink is to be asked again: the bell rang within `left_s` s, and the node still waits for it."""
        loop = asyncio.get_running_loop()
        overtaken = loop.create_future()
        before, self._newest[key] = self._newest.get(key), overtaken
        if before is not None and not before.done():
            before.set_result(None)
        rung = loop.create_task(self._bell.rung(since))
        gone = asyncio.ensure_future(receive())  # the body has been read: what comes is that it hung up
        try:
            await asyncio.wait({overtaken, rung, gone}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            # SuperLink hands a message out once. Asked for somebody who is not there, it would be lost.
            return rung.done() and self._bell.is_heard and not gone.done() and not overtaken.done()
        finally:
            rung.cancel()
            gone.cancel()
            if self._newest[key] is overtaken:
                del self._newest[key]

    def __len__(self) -> int:
        return len(self._newest)
