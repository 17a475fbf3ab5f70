"""How a registry is: its lanes' sizes and roots, read from its directory or asked over HTTP."""

import re
import ssl
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from privacy.consent.lane import parse_checkpoint_body
from privacy.consent.limits import NAME_PATTERN
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from server.registry.serve import open_registry
from server.registry.settings import Home
from server.registry.tables import DatabaseUnavailableError

_TIMEOUT_S: Final = 10.0
_NAME: Final = re.compile(NAME_PATTERN)
_ENTRIES: Final = "fedcredit_registry_lane_entries"


def status_in(directory: Path) -> dict[str, Any]:
    """Health and heads from a registry's own directory. Lanes that contradict themselves have no root."""
    home = Home.open(directory)
    registry = open_registry(home)
    lanes, health = {}, "ok"
    try:
        for lane in sorted(home.settings.lanes):
            try:
                head = registry.head(lane)
                lanes[lane] = {"size": head.size, "root": head.root.hex()}
            except TamperingError:
                lanes[lane] = {"size": -1, "root": ""}
                health = "tampering"
    finally:
        registry.close()
    return {"health": health, "lanes": lanes}


def status_at(url: str, ca: str | None) -> dict[str, Any]:
    """The same, asked of a running registry. Its signatures are not verified: a data holder does that."""
    try:
        context = ssl.create_default_context(cadata=ca)
        with httpx.Client(base_url=url, verify=context, timeout=_TIMEOUT_S, trust_env=False) as client:
            if (code := client.get("/healthz").status_code) != 200:
                raise DatabaseUnavailableError(
                    f"The registry answers, and is not well (status {code}). Its operator should look at its log.",
                    RefusalCode.LANE,
                )
            metrics = client.get("/metrics").raise_for_status().text
            names = sorted(
                sample.labels["lane"]
                for family in text_string_to_metric_families(metrics)
                for sample in family.samples
                if sample.name == _ENTRIES and _NAME.match(sample.labels.get("lane", ""))
            )
            notes = {name: client.get(f"/lanes/{name}/checkpoint") for name in names}
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise RefusalError(
            f"The registry at this address cannot be asked ({type(error).__name__}). Check the address, that it runs, "
            "and that --ca is its certificate.",
            RefusalCode.LANE,
        ) from None
    lanes, health = {}, "ok"
    for name, note in notes.items():
        try:
            head = parse_checkpoint_body(note.raise_for_status().text.partition("\n\n")[0] + "\n")[1]
            lanes[name] = {"size": head.size, "root": head.root.hex()}
        except (httpx.HTTPError, MalformedError):
            lanes[name] = {"size": -1, "root": ""}
            health = "tampering"
    return {"health": health, "lanes": lanes}
