"""A worker whose version of the messages has no measurement yet, as long as a switch beside this fault says so."""

import os
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, get_args

SWITCH = Path(os.environ["PLANTED_FAULT"]).with_suffix(".on")


def _is_earlier() -> bool:
    return SWITCH.exists() and SWITCH.read_text(encoding="utf-8") == "earlier"


def without_measurement(messages: Any) -> None:
    """Read headers as before there was that one."""
    import msgspec

    earlier = reduce(or_, (kind for kind in get_args(messages.Header) if kind is not messages.Measurement))
    decoders = {False: messages._DECODER, True: msgspec.json.Decoder(earlier, strict=True)}

    class Either:
        """Asked anew for each message."""

        def decode(self, payload: bytes) -> Any:
            """As this version does, or the earlier one."""
            return decoders[_is_earlier()].decode(payload)

    messages._DECODER = Either()


FAULTS = {"federated.messages": without_measurement}
