"""A new coordinator's directory: key, certificates, the agreed schema, and settings with every key explained."""

import secrets
import shutil
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from federated.files import write_whole
from federated.schema_toml import load_schema
from privacy.consent.linking import only_certificates
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, UsageError
from server.deploy.settings import (
    KEY_FILE,
    MAX_CA_BYTES,
    REGISTRY_CA_FILE,
    SCHEMA_FILE,
    SECRET_FILE,
    SETTINGS_FILE,
    CoordinatorSettings,
    Home,
    parse_settings,
)
from server.deploy.tls import make_tls

_LOOPBACK = ("127.", "[::1]", "localhost")

MakeTls = Callable[[Path, str, int], object]
"""Writes a certificate authority and the fleet's certificates for a host name into a coordinator's directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a new coordinator must know about itself, the registry and its first plan. None follows from `address`."""

    name: str
    address: str
    schema: Path
    registry_url: str
    registry_key: str
    registry_ca: Path | None
    host: str | None = None
    port: int | None = None
    superlink_port: int = 9092
    metrics_port: int = 0
    epsilon: float = 1.0
    people: int = 10_000
    most_people: int = 1_000_000
    minimum_people: int = 30
    minimum_holders: int = 2
    dropouts_tolerated: int = 0


def make_home(directory: Path, start: Start, *, at: int, make_tls: MakeTls = make_tls) -> Home:
    """Write a coordinator's directory at the instant `at` (UTC seconds). Nothing that is there is overwritten.

    UsageError if any of its files exists or if `start` gives no settings; RefusalError if the disk is full. After a
    failure nothing is left.
    """
    settings = settings_text(start)
    parsed = _parsed(settings)
    schema, certificates = _schema(start.schema), _certificates(start.registry_ca)
    home = Home(directory, parsed)
    names = (SETTINGS_FILE, KEY_FILE, SCHEMA_FILE, SECRET_FILE, REGISTRY_CA_FILE, home.tls.name)
    there = [name for name in names if (directory / name).exists()]
    if there:
        raise UsageError(
            f"{directory} already holds {', '.join(there)}, and nothing is overwritten: a coordinator's key is made "
            "once. Name a new directory."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusalError(
            f"{directory} could not be made ({error.strerror}). Give write permission or name another directory, then "
            "run the command again.",
            RefusalCode.INTERNAL,
        ) from None
    try:
        write_whole(directory / KEY_FILE, SigningKey.generate().seed, secret=True)
        write_whole(directory / SECRET_FILE, secrets.token_hex(32).encode(), secret=True)
        write_whole(directory / SCHEMA_FILE, schema)
        if certificates is not None:
            write_whole(directory / REGISTRY_CA_FILE, certificates.encode())
        make_tls(directory, parsed.fleet.name, at)
        write_whole(directory / SETTINGS_FILE, settings.encode())  # last: a directory without it is no coordinator's
    except FedcreditError:
        shutil.rmtree(home.tls, ignore_errors=True)
        for name in names:  # none was there before
            with suppress(OSError):
                (directory / name).unlink()
        raise
    return home


def settings_text(start: Start) -> str:
    """The commented settings of a new coordinator."""
    host, _, port = start.address.rpartition(":")
    listens = start.host or (host.strip("[]") if host.startswith(_LOOPBACK) else "0.0.0.0")  # noqa: S104 (our proxy)
    return _SETTINGS.format(
        name=_quoted(start.name),
        schema=_quoted(SCHEMA_FILE),
        address=_quoted(start.address),
        host=_quoted(listens),
        port=start.port if start.port is not None else port or 0,
        superlink_port=start.superlink_port,
        metrics_port=start.metrics_port,
        url=_quoted(start.registry_url),
        key=_quoted(start.registry_key),
        ca=_quoted("" if start.registry_ca is None else REGISTRY_CA_FILE),
        epsilon=float(start.epsilon),
        people=start.people,
        most_people=start.most_people,
        minimum_people=start.minimum_people,
        minimum_holders=start.minimum_holders,
        dropouts_tolerated=start.dropouts_tolerated,
    )


def _parsed(text: str) -> CoordinatorSettings:
    try:
        settings = parse_settings(text)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        # Its text names the place and the pattern, and no value.
        raise UsageError(f"what was given makes no settings: {error}. Correct that option; nothing was made.") from None
    if settings.fleet.port == settings.fleet.superlink_port:
        raise UsageError("--port and --superlink-port are one; give SuperLink another. Nothing was made.")
    return settings


def _schema(path: Path) -> bytes:
    load_schema(path)
    return path.read_bytes()


def _certificates(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        if path.stat().st_size > MAX_CA_BYTES:
            raise ValueError
        return only_certificates(path.read_text(encoding="ascii"))
    except (OSError, ValueError, MalformedError):
        raise MalformedError(
            f"{path.name} is not a readable file of certificates in PEM, of at most {MAX_CA_BYTES} bytes; ask the "
            "registry's operator for it again."
        ) from None


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return msgspec.json.encode(text).decode()


_SETTINGS = """\
# A coordinator's settings. Every key is needed, none has a default, and unknown keys are refused.
# Files are named relative to this one. What is changed here holds from the next command on; a plan that is signed
# stays as it is.
version = 1

# This coordinator's name, as data holders and people know it: their policies and consents name it.
name = {name}

# The schema all parties agreed on (fedcredit schema check SCHEMA TABLE).
schema = {schema}

[fleet]
# Where data holders dial in, host:port, as they reach it from outside. Its host is in the fleet's certificate.
address = {address}
# Where `fedcredit coordinator serve` listens for them: our TLS proxy, which lets nothing but their traffic through.
host = {host}
port = {port}
# Flower's SuperLink stands behind the proxy, on this port of 127.0.0.1; nobody outside may reach it.
superlink_port = {superlink_port}
# Prometheus metrics on this port of 127.0.0.1; 0 serves none.
metrics_port = {metrics_port}

[registry]
# Where the consent registry serves: https, or http://127.0.0.1 on one machine.
url = {url}
# Its public key (64 hexadecimal digits), which signs the lane heads that runs are pinned to. Get it from its operator
# by a second way and compare.
key = {key}
# File with the certificates (PEM) that vouch for its address; "" is the system's own trust.
ca = {ca}

[run]
# For how many seconds at most a run waits until as many nodes are online as the plan has data holders (with fewer it
# then begins, if the plan allows), and for the answers to each question.
nodes_deadline_s = 120.0
answer_deadline_s = 600.0

[plan]
# The terms of the next `fedcredit coordinator plan`. Data holders compare them with their own policies: agree on them
# first. recipe: "auto" chooses from `people`, epsilon and delta, and says why.
recipe = "auto"
# What one run may cost one person who takes part in full, at most; the same again for being counted in the
# measurement of the scorecard. Unit: one person; neighbouring relation: add or remove one person.
epsilon = {epsilon}
delta = 1e-5
measurement_epsilon = {epsilon}
# Who adds the noise. "shared_noise": each data holder its part of one noise, and we see sums only; "holder_noise": each
# data holder all that its people need, and we see its updates; "coordinator_noise": we do, and see exact sums.
trust = "shared_noise"
# How updates become one: "sum"; with trust = "holder_noise" also "trimmed_mean" or "median".
aggregation = "sum"
# How many data holders may leave in one round. Each costs noise, and needs three more data holders:
# minimum_holders must be above 3 times this.
dropouts_tolerated = {dropouts_tolerated}
# With fewer data holders than this, or fewer permitted people at one of them, there is no run.
minimum_holders = {minimum_holders}
minimum_people = {minimum_people}
# A public guess at how many people are trained on; it chooses the recipe. Never a count that was not published.
people = {people}
# A number that all data holders agree on: no more people than this are in all their tables together.
most_people = {most_people}
# How many runs of this kind a person's cap must cover.
releases_per_window = 2
# Bands of the score histogram by which the scorecard is measured.
measurement_bands = 44
# For how long a plan is good. The consent of everybody who is used must last as long.
valid_hours = 24.0

[plan.point_scale]
# Good:bad odds are base_good_bad_odds at base_score and double every points_to_double_odds. Scores are published
# between minimum and maximum.
base_score = 600
base_good_bad_odds = 4
points_to_double_odds = 50
minimum = 300
maximum = 850
"""
