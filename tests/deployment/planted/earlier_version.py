"""A worker whose version of the messages has no measurement yet, as long as there is a switch beside this fault."""

import os
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, get_args

SWITCH = Path(os.environ["PLANTED_FAULT"]).with_suffix(".on")


def without_measurement(messages: Any) -> None:
    """Read headers as before there was that one."""
    import msgspec

    earlier = reduce(or_, (kind for kind in get_args(messages.Header) if kind is not messages.Measurement))
    decoders = {False: messages._DECODER, True: msgspec.json.Decoder(earlier, strict=True)}

    class Either:
        """Asked anew for each message."""

        def decode(self, payload: bytes) -> Any:
            """As this version does, or the earlier one."""
            return decoders[SWITCH.exists()].decode(payload)

    messages._DECODER = Either()


FAULTS = {"federated.messages": without_measurement}
