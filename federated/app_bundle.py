"""The app bundle of a run: the code of one version of fedcredit, as Flower sends it to every node.

A data holder answers to the bundles whose digests its policy lists. It runs its own installed code all the same and
never a line of a bundle: the digest says which version the coordinator is, and nothing in it has to be trusted.
"""

import hashlib
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Final

import msgspec

from privacy.errors import MalformedError

PROJECT: Final = "pyproject.toml"
LARGEST_BYTES: Final = 64 << 20
"""Of everything in a bundle, unpacked."""
LARGEST_PACKED_BYTES: Final = 16 << 20
"""Flower's own limit for the packed bundle is 10 MB."""
LARGEST_PROJECT_BYTES: Final = 64 << 10
MOST_FILES: Final = 5_000
DEEPEST_KEY: Final = 30
"""Dots in one line of its settings: what reads them takes the square of a key's parts."""

# Wallet, registry and the coordinator's commands are not Flower's.
INCLUDED: Final = (
    "federated/**/*.py", "clients/*.py", "clients/holder/**/*.py", "clients/audit/**/*.py", "server/*.py",
    "privacy/**/*.py",
)  # fmt: skip
_FLOWERS_OWN: Final = ".info/CONTENT"
_INSTALLED: Final = Path(__file__).parent.parent


def files() -> dict[str, bytes]:
    """What Flower packs into the bundle: this installation's code and Flower's settings for it, by name."""
    return dict(_files())


@cache
def digest() -> str:
    """The digest (SHA-256, hex) of the bundle that this installation submits, and expects from others."""
    return _digest(files())


def digest_of(bundle: bytes) -> str:
    """The digest of a bundle as it came over the network. MalformedError if it is no bundle.

    It is over the unpacked files, for two builds of the same code need not be packed into the same bytes.
    """
    # Each entry of an archive's directory begins so; to read a hundred thousand of them takes seconds.
    if len(bundle) > LARGEST_PACKED_BYTES or bundle.count(b"PK\1\2") > MOST_FILES:
        raise MalformedError(_UNREADABLE)
    try:
        with zipfile.ZipFile(BytesIO(bundle)) as packed:
            infos = packed.infolist()
            _require_within_limits(infos)
            return _digest({info.filename: _unpacked(packed, info) for info in infos if info.filename != _FLOWERS_OWN})
    except MalformedError:
        raise
    except Exception as error:  # what a hostile archive makes of three libraries is no closed set
        raise MalformedError(_UNREADABLE) from error


def _require_within_limits(infos: Sequence[zipfile.ZipInfo]) -> None:
    sizes = {info.filename: info.file_size for info in infos}
    if len(sizes) != len(infos) or sum(sizes.values()) > LARGEST_BYTES or sizes.get(PROJECT, 0) > LARGEST_PROJECT_BYTES:
        raise MalformedError(_UNREADABLE)


def _unpacked(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    # No more than it claims: asked for all, the library unpacks a gigabyte of what claims to be one byte. The other
    # methods have no such bound, and Flower uses none of them.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MalformedError(_UNREADABLE)
    with packed.open(info) as file:
        return file.read(info.file_size + 1)


_UNREADABLE: Final = (
    "The run's app bundle cannot be unpacked, or not within its limits. Its coordinator should start the run anew."
)


def _digest(files: Mapping[str, bytes]) -> str:
    # Flower writes the settings anew, so they count by what they say. Bytes that are no settings count as such.
    project = files.get(PROJECT, b"")
    if any(line.count(b".") > DEEPEST_KEY for line in project.split(b"\n")):
        raise MalformedError(_UNREADABLE)
    try:
        said = msgspec.json.encode(tomllib.loads(project.decode()), order="sorted")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise MalformedError(_UNREADABLE) from error
    contents = [[name, hashlib.sha256(content).hexdigest()] for name, content in files.items() if name != PROJECT]
    listed = [[PROJECT, hashlib.sha256(said).hexdigest()], *sorted(contents)]
    return hashlib.sha256(b"fedcredit/app-bundle/v1" + msgspec.json.encode(listed)).hexdigest()


def _files() -> Iterator[tuple[str, bytes]]:
    yield PROJECT, _project().encode()
    for pattern in INCLUDED:
        for path in sorted(_INSTALLED.glob(pattern)):
            yield path.relative_to(_INSTALLED).as_posix(), path.read_bytes()


def _project() -> str:
    included = ", ".join(f'"{pattern}"' for pattern in INCLUDED)
    return f"""\
[project]
name = "fedcredit"
version = "{version("fedcredit")}"
description = "Federated credit scoring"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedcredit"
fab-include = [{included}]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

[tool.flwr.app.config]
coordinator-directory = ""
"""
