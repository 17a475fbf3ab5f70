"""Each message of a SuperNode and its reply kept together, whatever ends the run in between.

Flower's SuperNode takes one message and then sends whatever reply there is. When a run ends while one of its messages
is still coming in, Flower 1.41 forgets it and leaves it to be answered; its reply is then sent in place of the next
message's, which stays behind until there is another message. So the first exchange of the next run would lack this
data holder. Here what was forgotten is taken away, and a message's own reply is waited for.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

PULL, PUSH = "_pull_and_store_message", "_push_messages"
"""The functions of `flwr.supernode.start_client_internal` that are wrapped."""

Step = Callable[..., Any]


class InStep:
    """The two steps of a SuperNode's loop, Flower's own with a little around them."""

    def __init__(self, pull: Step, push: Step) -> None:
        self._pull, self._push = pull, push
        self._taken: str | None = None  # the message that is to be answered next

    def pull(self, *, state: Any, object_store: Any, receive: Step, **given: Any) -> int | None:
        """The number of the run whose message was taken; None if there is none, or if it did not come in whole."""
        came: str | None = None

        def received() -> Any:
            nonlocal came
            found = receive()
            came = None if found is None else found[0].metadata.message_id
            return found

        run: int | None = self._pull(state=state, object_store=object_store, receive=received, **given)
        if run is None and came is not None:
            state.delete_messages(message_ids=[came])
            object_store.delete(came)
        self._taken = came if run is not None else None
        return run

    def push(self, *, state: Any, **given: Any) -> None:
        """Send replies until that to the message taken last is among them; Flower forgets a message it has answered."""
        while True:
            self._push(state=state, **given)
            if self._taken not in state.msg_store:
                return


def keep_in_step(loop: ModuleType) -> None:
    """Put the two steps in the place of Flower's, in the module of a SuperNode's loop."""
    steps: Final = InStep(getattr(loop, PULL), getattr(loop, PUSH))
    setattr(loop, PULL, steps.pull)
    setattr(loop, PUSH, steps.push)
