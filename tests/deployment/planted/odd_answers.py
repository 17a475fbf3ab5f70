"""A worker, or the node in front of it, that answers oddly: how is named by a file beside this fault (`Live.switch`).

It may be switched at any time: the programs themselves know nothing of it.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

HERE = Path(os.environ["PLANTED_FAULT"])


def odd() -> str:
    """How to be odd now."""
    switch = HERE.with_suffix(".on")
    return switch.read_text(encoding="utf-8") if switch.exists() else ""


def kind_of(letter: Any) -> str:
    """What a letter is."""
    return type(letter.header).__name__


def round_is_over() -> bool:
    """Whether the coordinator has gone on without whoever has not answered yet."""
    return bool(json.loads((HERE.parent / "coordinator" / "status.json").read_bytes())["stage"] > 1)


def in_the_node(node: Any) -> None:
    """Hang, wait too long, or write something else than was computed."""
    import numpy as np
    from msgspec.structs import replace

    answer = node.Holder.answer

    def odd_answer(self: Any, letter: Any, *, at: int) -> Any:
        how, asked = odd(), kind_of(letter)
        if asked == "Instruction" and how == "hangs":
            time.sleep(3600)
        if asked == "Instruction" and how == "hangs where no signal ends it":
            # The alarm goes to another thread, and this one sleeps on: its handler would run here, and never does.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(3600)
        written = answer(self, letter, at=at)
        if asked == "Opening" and how.startswith("joins as "):
            return node.Letter(replace(written.header, holder=how.removeprefix("joins as ")))
        if asked != "Instruction" or kind_of(written) != "Update":
            return written
        words = written.arrays["words"]
        if how == "answers too late":
            while not round_is_over():
                time.sleep(0.1)
        elif how == "answers NaN":
            words = np.full(words.shape, np.nan)
        elif how == "answers in a wrong shape":
            words = words.reshape(1, -1)
        elif how.startswith("answers as "):
            return node.Letter(replace(written.header, holder=how.removeprefix("answers as ")), written.arrays)
        return node.Letter(written.header, {"words": words})

    node.Holder.answer = odd_answer


def at_the_rim(tasks: Any) -> None:
    """Send more than was written."""
    from flwr.app import ConfigRecord

    answer, write = tasks.NodeTask.answer, tasks.write_letter

    def write_more(letter: Any) -> Any:
        records = write(letter)
        if odd() == "answers with a record nobody asked for" and kind_of(letter) == "Update":
            records["more"] = ConfigRecord({"rows": b"1,2,3"})
        return records

    def answer_twice(self: Any, letter: Any) -> None:
        if odd() == "answers twice":
            again = tasks.Message(tasks.write_letter(letter), reply_to=self._message)
            tasks.push_message(self._runtime, again, self._context)
        answer(self, letter)

    tasks.write_letter, tasks.NodeTask.answer = write_more, answer_twice


def in_the_supernode(supernode: Any) -> None:
    """Send both answers at once, or none of the parts of an update."""
    push = supernode._push_messages

    def push_oddly(state: Any, object_store: Any, send: Any, push_object: Any) -> None:
        sent: list[str] = []

        def answers() -> int:
            entries = list(state.msg_store.values())
            return sum(1 for one in entries if one.message.metadata.reply_to_message_id and not one.is_retrieved)

        def tell(message: Any, *rest: Any) -> Any:
            sent.append(message.metadata.message_type)
            return send(message, *rest)

        def push_less(*arguments: Any) -> Any:
            if sent[-1].startswith("train") and odd() == "begins an answer and does not end it":
                return None
            return push_object(*arguments)

        while odd() == "answers twice" and answers() < 2:
            time.sleep(0.1)
        push(state, object_store, tell, push_less)

    supernode._push_messages = push_oddly


FAULTS = {
    "clients.holder.node": in_the_node,
    "federated.flower_tasks": at_the_rim,
    "flwr.supernode.start_client_internal": in_the_supernode,
}
