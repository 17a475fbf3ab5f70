"""What `fedcredit doctor` looks at in a registry's directory."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from federated.doctor import Check, Place, Verdict, ok, problem, skipped
from federated.doctor_files import database, room, secrets, writable
from federated.doctor_house import house_checks
from federated.doctor_net import OFFLINE, port
from federated.doctor_tls import certificate
from server.registry.settings import KEY_FILE, SETTINGS_FILE, Home

_RESTORE: Final = (
    "Stop the registry, keep this database for the auditor, and restore a copy that `fedcredit registry verify` finds "
    "whole."
)
_CERTIFY: Final = (
    "Get a new certificate for the registry's host name and put it there; data holders and wallets need it, or the "
    "authority's, before you change it."
)


def checks(place: Place) -> Iterator[Check]:
    """Everything, in the order in which it should be mended."""
    yield from house_checks(extras=["registry"])
    homes: list[Home] = []

    def settings() -> Verdict:
        homes.append(Home.open(place.directory))
        return ok(f"{len(homes[0].settings.lanes)} lanes")

    yield Check("settings", settings, f"Correct {SETTINGS_FILE}; a fresh one is made by `fedcredit registry init`.")
    if not homes:
        yield Check("all that the settings name", lambda: skipped("not looked at before they can be read"), "")
        return
    yield from _files(place, homes[0])
    yield from _service(place, homes[0])


def _files(place: Place, home: Home) -> Iterator[Check]:
    directory, own = place.directory, home.database
    files = [own] if isinstance(own, Path) else []
    private = [SETTINGS_FILE, KEY_FILE, *([home.settings.private_key] if home.settings.encrypted else [])]
    yield Check("secret files", lambda: secrets(directory, private), f"Give {directory} back to its account.")
    yield Check("directory", lambda: writable(directory), f"Give write permission for {directory}.")
    yield Check("disk", lambda: room(directory, files), f"Look at the disk of {directory}.")
    yield Check("key", lambda: _key(home), "Restore it from the copy kept safe.")
    for path in files:
        yield Check("database", lambda path=path: _database(path), _RESTORE)  # type: ignore[misc]
    yield Check("lanes", lambda: _lanes(home), _RESTORE)


def _service(place: Place, home: Home) -> Iterator[Check]:
    settings = home.settings
    if settings.encrypted:
        yield Check(
            "certificate",
            lambda: certificate(home.certificate, key=home.private_key, at=place.now, mend=_CERTIFY),
            _CERTIFY,
        )
    shown = home.certificate if settings.encrypted else None
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}/healthz"
    yield Check(
        "port",
        lambda: OFFLINE if place.offline else port(settings.host, settings.port, certificate=shown, url=url),
        f"Correct host and port in {SETTINGS_FILE}.",
    )
    yield Check("metrics", _metrics, "Run: pip install 'fedcredit[registry]'")


def _key(home: Home) -> Verdict:
    home.key()
    return ok("readable")


def _database(path: Path) -> Verdict:
    if not path.exists():
        return problem(f"{path.name} is not there", _RESTORE)
    return database(path, mend=_RESTORE)


def _lanes(home: Home) -> Verdict:
    """Whether every lane hashes to its head. What lies beside its entries is for `registry verify`."""
    from server.registry.serve import open_registry

    if isinstance(home.database, Path) and not home.database.exists():
        return skipped("there is no database")  # to open it would make one
    registry = open_registry(home)
    try:
        registry.check_database()
        for lane in home.settings.lanes:
            registry.head(lane)  # TamperingError unless the stored entries hash to it
    finally:
        registry.close()
    return ok(f"{len(home.settings.lanes)} heads hold; `fedcredit registry verify` reads every entry")


def _metrics() -> Verdict:
    if find_spec("prometheus_client") is None:
        return problem("prometheus-client is not installed", "Run: pip install 'fedcredit[registry]'")
    return ok("served at /metrics")
