"""What `fedcredit doctor` looks at in a coordinator's directory. No text names a person or a key."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import msgspec

from federated.doctor import Check, Place, Verdict, ok, problem, skipped, warning
from federated.doctor_files import database, program, room, secrets, writable
from federated.doctor_house import house_checks
from federated.doctor_net import OFFLINE, Answer, ask, certificate_of, clock_of, head_of, port
from federated.doctor_tls import certificate
from server.deploy.settings import SETTINGS_FILE, Home

SKEW_S: Final = 120
"""What a data holder's policy allows until somebody changes it."""
_SECRET: Final = ("coordinator.key", "superexec.secret", "tls/*.key")
_FOLDERS: Final = ("tls", "tls/set-*", "superlink", "operator")
_RENEW: Final = "Run: fedcredit coordinator certificates --renew, and start `fedcredit coordinator serve` again."
_ASK_OPERATOR: Final = (
    "See that the network is there and the registry serves; compare [registry] with its operator, by telephone."
)
_ENROL: Final = "Take each data holder's request with `fedcredit coordinator enroll`."
_STATE_LOST: Final = (
    "Stop `fedcredit coordinator serve`, move superlink/state.db away and start it again; a run that was going on is "
    "taken up by `fedcredit coordinator resume`."
)
_LOG_LOST: Final = "Start no run. Restore rounds.log from a copy, and tell the data holders and the auditor."


def checks(place: Place) -> Iterator[Check]:
    """Everything, in the order in which it should be mended."""
    yield from house_checks(extras=["registry"], programs=["flower-superlink", "flwr"])
    homes: list[Home] = []

    def settings() -> Verdict:
        homes.append(Home.open(place.directory))
        return ok(f"coordinator {homes[0].settings.name}")

    yield Check("settings", settings, f"Correct {SETTINGS_FILE}; `fedcredit coordinator init` writes one elsewhere.")
    if not homes:
        yield Check("all that the settings name", lambda: skipped("not looked at before they can be read"), "")
        return
    look = _Look(place, homes[0])
    yield from look.files()
    yield from look.history()
    yield from look.service()
    yield from look.registry()


@dataclass(slots=True)
class _Look:
    place: Place
    home: Home
    answers: list[Answer] = field(default_factory=list)

    def files(self) -> Iterator[Check]:
        directory, home = self.place.directory, self.home
        yield Check("secret files", lambda: secrets(directory, _SECRET, _FOLDERS), f"Look at {directory}.")
        yield Check("directory", lambda: writable(directory), f"Give write permission for {directory}.")
        yield Check("disk", lambda: room(directory, [home.state]), f"Look at the disk of {directory}.")
        yield Check("keys", self._keys, "Restore them from the copy kept safe.")
        yield Check("schema", self._schema, "Put the schema there that all parties agreed on.")
        yield Check("members", self._members, _ENROL)

    def history(self) -> Iterator[Check]:
        state = self.home.state
        yield Check("SuperLink's database", lambda: database(state, mend=_STATE_LOST), _STATE_LOST)
        yield Check("round log", self._round_log, _LOG_LOST)
        directory = self.place.directory
        resume, serve = (f"fedcredit coordinator {do} --directory {directory}" for do in ("resume", "serve"))
        yield Check("run", lambda: program(self.home.run_lock, self._run_says_running, start=resume), resume)
        yield Check("program", lambda: program(self.home.serve_lock, self._serve_says_running, start=serve), serve)

    def service(self) -> Iterator[Check]:
        tls, fleet = self.home.tls, self.home.settings.fleet
        for what, name, host in (
            ("fleet's certificate", "fleet", fleet.name), ("SuperLink's certificate", "superlink", "127.0.0.1")
        ):  # fmt: skip
            yield Check(
                what,
                lambda name=name, host=host: certificate(  # type: ignore[misc]
                    tls / f"{name}.pem", key=tls / f"{name}.key", ca=tls / "ca.pem", host=host, at=self.place.now,
                    mend=_RENEW,
                ),
                _RENEW,
            )  # fmt: skip
        correct = f"Correct [fleet] in {SETTINGS_FILE}."
        yield Check("fleet's port", lambda: self._port(fleet.host, fleet.port, "fleet.pem"), correct)
        yield Check("SuperLink's port", lambda: self._port("127.0.0.1", fleet.superlink_port, "superlink.pem"), correct)
        if fleet.metrics_port:
            yield Check("metrics' port", lambda: self._port("127.0.0.1", fleet.metrics_port, ""), correct)

    def registry(self) -> Iterator[Check]:
        yield Check("registry", self._registry, _ASK_OPERATOR)
        yield Check("registry's certificate", self._certificate, _ASK_OPERATOR)
        yield Check("clock", self._clock, "Keep the time by NTP.")

    def _keys(self) -> Verdict:
        self.home.key()
        if len(self.home.secret()) != 64:
            return problem("superexec.secret is not 64 hexadecimal digits", "Write 64 random ones to it, mode 0600.")
        return ok("readable")

    def _schema(self) -> Verdict:
        from federated.schema_toml import load_schema

        return ok(f"{len(load_schema(self.home.schema).characteristics)} characteristics")

    def _members(self) -> Verdict:
        from server.deploy.members import Members

        enrolled, needed = len(Members(self.place.directory).current()), self.home.settings.plan.minimum_holders
        found = f"{enrolled} data holders enrolled, {needed} needed for a run (plan.minimum_holders)"
        return ok(found) if enrolled >= needed else warning(found, _ENROL)

    def _round_log(self) -> Verdict:
        from server.deploy.round_log import RoundLog

        return ok(f"{RoundLog(self.home.round_log, self.home.key()).head.size} entries hold")

    def _run_says_running(self) -> bool:
        from server.deploy.run_status import read_status

        status = read_status(self.home.status)
        return status is not None and not status.state.is_over

    def _serve_says_running(self) -> bool:
        try:
            said = msgspec.json.decode(self.home.serving.read_bytes())
        except FileNotFoundError:
            return False
        return isinstance(said, dict) and said.get("state") == "running"

    def _port(self, host: str, number: int, name: str) -> Verdict:
        if self.place.offline:
            return OFFLINE
        shown = self.home.tls / name if name else None
        return port(host, number, certificate=shown, url=f"http://127.0.0.1:{number}/metrics")

    def _registry(self) -> Verdict:
        from server.deploy.members import Members

        if self.place.offline:
            return OFFLINE
        registry = self.home.settings.registry
        lane = next(iter(sorted(Members(self.place.directory).current())), None)
        path = "healthz" if lane is None else f"lanes/{lane}/checkpoint"
        answer = ask(
            f"{registry.url}/{path}", ca=registry.trust(self.place.directory), clock=self.place.clock
        )  # fmt: skip
        self.answers.append(answer)
        if lane is not None:
            head_of(answer, lane, registry.public)
            return ok("it signs with the key that the settings have")
        if answer.status != HTTPStatus.OK:
            return problem(f"it answers, and is not well (status {answer.status})", _ASK_OPERATOR)
        return ok(f"{urlsplit(registry.url).netloc} answers; its key is verified once a data holder is enrolled")

    def _certificate(self) -> Verdict:
        if not self.answers:
            return skipped("no answer to judge by")
        return certificate_of(self.answers[0], at=self.place.now, mend=_ASK_OPERATOR)

    def _clock(self) -> Verdict:
        if not self.answers:
            return skipped("no answer to judge by")
        return clock_of(self.answers[0], "the registry", behind_s=SKEW_S, ahead_s=SKEW_S)
