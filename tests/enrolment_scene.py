"""A coordinator and data holders who enrol by commands alone, in this process and at a given instant."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.holder.init import Start as HolderStart
from clients.holder.init import make_directory
from federated import cli
from server.deploy.settings import Home
from server.deploy.setup import Start, make_home

AT = 1_793_491_200
REGISTRY, REGISTRY_KEY = "https://registry.example", "ab" * 32
SCHEMA = Path(__file__).parents[1] / "experiments" / "data" / "taiwan_default" / "schema.toml"
_COMMANDS = {
    "enroll": ("server.deploy.cli_enrol", "enroll"),
    "certificates": ("server.deploy.cli_enrol", "certificates"),
    "join": ("clients.holder.cli_join", "join"),
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.out)
        return facts


class Federation:
    """One coordinator in `root`/coordinator; data holders beside it, made when they are first named."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.at = root, AT
        self._capsys, self._monkeypatch = capsys, monkeypatch
        monkeypatch.setattr(time, "time", lambda: float(self.at))
        monkeypatch.setattr(cli, "COMMANDS", cli.COMMANDS | _COMMANDS)
        self.home = self.coordinator("coordinator")

    def coordinator(self, name: str) -> Home:
        start = Start(
            name="open-scoring", address="fleet.example:9443", schema=SCHEMA, registry_url=REGISTRY,
            registry_key=REGISTRY_KEY, registry_ca=None,
        )  # fmt: skip
        return make_home(self.root / name, start, at=self.at)

    def holder(self, name: str) -> Path:
        """The directory of the data holder `name`, whose policy names this federation's coordinator."""
        directory = self.root / name
        if not directory.exists():
            start = HolderStart(
                holder=name, registry_url=REGISTRY, registry_key=REGISTRY_KEY, registry_ca=None,
                coordinator="open-scoring", coordinator_key=self.home.key().public.hex(), jurisdiction="AT",
                language="en", contact="Box 1", side_door="",
            )  # fmt: skip
            make_directory(directory, start)
        return directory

    def __call__(self, command: str, *arguments: object, directory: Path | None = None, typed: str = "") -> Told:
        """Run `command`; `typed` is what the operator types when asked. Arguments that are Paths are given as such."""
        where = ["--directory", str(directory or self.home.directory)]
        self._monkeypatch.setattr(sys, "argv", ["fedcredit", command, *map(str, arguments), *where])
        self._monkeypatch.setattr("click.termui.visible_prompt_func", lambda *_: typed)
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        captured = self._capsys.readouterr()
        assert isinstance(exited.value.code, int)
        assert "Traceback" not in captured.err
        return Told(exited.value.code, captured.out, captured.err)

    def join(self, name: str, *arguments: object) -> Told:
        return self("join", *arguments, directory=self.holder(name))

    def request(self, name: str, *arguments: object) -> tuple[Path, str]:
        """A new request of the data holder `name`, and what its operator reads out."""
        file = self.root / f"{name}-{len(list(self.root.iterdir()))}.request"
        told = self.join(name, "--request", file, "--json", *arguments)
        assert told.code == 0, told.err
        return file, told.facts["fingerprint"]

    def enrol(self, name: str, *arguments: object) -> Path:
        """Enrol the data holder `name` and give its welcome."""
        file, spoken = self.request(name, *arguments)
        welcome = self.root / f"{name}.welcome"
        told = self("enroll", file, "--fingerprint", spoken, "--out", welcome)
        assert told.code == 0, told.err
        return welcome

    def welcome(self, name: str) -> Path:
        """A fresh welcome for the enrolled `name`."""
        welcome = self.root / f"{name}-{len(list(self.root.iterdir()))}.welcome"
        assert self("enroll", "--welcome", name, "--out", welcome).code == 0
        return welcome
