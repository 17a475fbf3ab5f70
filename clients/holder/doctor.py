"""What `fedcredit doctor` looks at in a data holder's directory. No text names a person, a handle or a key."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final

from clients.holder.settings import HolderSettings, load_settings
from federated.doctor import Check, Place, Verdict, ok, problem, skipped, warning
from federated.doctor_files import database, program, room, secrets, tables, writable
from federated.doctor_house import house_checks
from federated.doctor_net import OFFLINE, Answer, ask, certificate_of, clock_of, head_of
from privacy.errors import RefusalCode, RefusalError

FLOWER_BEHIND_S: Final = 300
FLOWER_AHEAD_S: Final = 5
"""How far Flower lets a node's clock be from SuperLink's before it refuses the node's signature."""
_DATABASES: Final = ("consent.db", "desk.db", "ledger.db")
_SECRET: Final = (
    "keys/*", "serving/superexec.secret", "serving/runtime.key",
    *(f"{name}{end}" for name in _DATABASES for end in ("", "-wal", "-shm")),
)  # fmt: skip
_FOLDERS: Final = ("keys", "serving")
_LANE_LOST: Final = (
    "Keep the files for the auditor, move consent.db and consent.head away, link the customers again from your own "
    "records, and sync anew; the registry still has every record."
)
_LEDGER_LOST: Final = (
    "Release nothing. Find the true ledger.db with its head file; if it is lost, tell the coordinator and the auditor."
)
_DESK_LOST: Final = "Restore desk.db from a copy; without one, offers that are open must be made again."
_ASK_OPERATOR: Final = (
    "See that the network is there and the registry serves; compare [registry] with its operator, by telephone."
)
_JOIN: Final = "Write a request for the coordinator: fedcredit holder join --request request.json"
_REJOIN: Final = "See that the coordinator serves; or take its newest welcome: fedcredit holder join welcome.json"


def checks(place: Place) -> Iterator[Check]:
    """Everything, in the order in which it should be mended."""
    yield from house_checks(programs=["flower-supernode"])
    found: list[HolderSettings] = []

    def settings() -> Verdict:
        found.append(load_settings(place.directory / "holder.toml"))
        return ok(f"data holder {found[0].holder}")

    yield Check("settings", settings, "Correct holder.toml; `fedcredit holder init` writes a fresh one elsewhere.")
    if not found:
        yield Check("all that the settings name", lambda: skipped("not looked at before they can be read"), "")
        return
    look = _Look(place, found[0])
    yield from look.files()
    yield from look.consents()
    yield from look.registry()
    yield from look.fleet()


@dataclass(slots=True)
class _Look:
    place: Place
    settings: HolderSettings
    answers: dict[str, Answer] = field(default_factory=dict)

    def files(self) -> Iterator[Check]:
        directory, settings = self.place.directory, self.settings
        databases = [directory / name for name in _DATABASES]
        yield Check("secret files", lambda: secrets(directory, _SECRET, _FOLDERS), f"Look at {directory}.")
        yield Check("directory", lambda: writable(directory), f"Give write permission for {directory}.")
        yield Check("disk", lambda: room(directory, databases), f"Look at the disk of {directory}.")
        yield Check("keys", self._keys, "Restore the directory keys from the copy kept safe.")
        yield Check("schema", self._schema, "Get the schema that all parties agreed on from the coordinator.")
        yield Check(
            "tables", lambda: tables(directory, [settings.rows, settings.held_out]), "Put the tables where they belong."
        )
        yield Check(
            "app bundle", self._bundle, "Correct policy.bundles; `fedcredit holder check` tells this version's."
        )

    def consents(self) -> Iterator[Check]:
        directory = self.place.directory
        for name, mend in zip(_DATABASES, (_LANE_LOST, _DESK_LOST, _LEDGER_LOST), strict=True):
            path = directory / name
            yield Check(name, partial(database, path, mend=mend), mend)
        yield Check("lane and ledger", self._lane, f"{_LANE_LOST} If it is the ledger: {_LEDGER_LOST}")
        start = f"fedcredit holder serve --directory {directory}"
        yield Check("program", lambda: self._program(start), start)

    def registry(self) -> Iterator[Check]:
        yield Check("registry", self._registry, _ASK_OPERATOR)
        yield Check("registry's certificate", lambda: self._certificate("registry", _ASK_OPERATOR), _ASK_OPERATOR)
        yield Check("clock", lambda: self._clock("registry", "the registry"), "Keep the time by NTP.")

    def fleet(self) -> Iterator[Check]:
        renew = "Ask the coordinator to renew it: fedcredit coordinator certificates --renew"
        yield Check("coordinator", self._fleet, _REJOIN)
        yield Check("coordinator's certificate", lambda: self._certificate("fleet", renew), renew)
        yield Check("coordinator's clock", lambda: self._clock("fleet", "the coordinator"), "Keep the time by NTP.")

    def _keys(self) -> Verdict:
        from clients.holder.keys import HolderKeys

        keys = HolderKeys.load(self.place.directory / "keys")
        return ok(f"readable; lane keys up to epoch {keys.current}")

    def _schema(self) -> Verdict:
        from federated.schema_toml import load_schema

        schema = load_schema(self.place.directory / self.settings.schema)
        return ok(f"{len(schema.characteristics)} characteristics")

    def _bundle(self) -> Verdict:
        from federated.app_bundle import digest

        approved = self.settings.policy.bundles
        mend = f'Agree with the coordinator on one version, and add its digest to policy.bundles; ours: "{digest()}"'
        if not approved:
            return problem("policy.bundles is empty: no coordinator is answered", mend)
        if digest() not in approved:
            return warning("a coordinator of this same version would be refused (policy.bundles)", mend)
        return ok(f"this version's is among the {len(approved)} that are answered")

    def _lane(self) -> Verdict:
        """The lane copy and the ledger as the worker opens them, if it does not do so already."""
        if not all((self.place.directory / name).exists() for name in ("consent.db", "desk.db")):
            return warning(
                "this lane was never synced", f"Run: fedcredit holder sync --directory {self.place.directory}"
            )
        from clients.holder.desk import Desk
        from clients.holder.ledger_told import ledger_of

        with Desk.open(self.place.directory) as desk:
            if (self.place.directory / "ledger.db").exists():
                with ledger_of(desk):
                    pass
            return self._age(desk.lane.age(at=self.place.now))

    def _age(self, age_s: int) -> Verdict:
        policy = self.settings.policy
        watch = f"fedcredit holder sync --watch --directory {self.place.directory}"
        if age_s < -policy.clock_skew_s:
            return problem(f"they hold, and the newest sync lies {-age_s:,} s in the future", "Set this clock right.")
        if age_s > policy.longest_lane_age_s:
            return warning(
                f"they hold, and the newest sync is {age_s:,} s old; rows are read and people scored by one of at most "
                f"{policy.longest_lane_age_s:,} s",
                f"Run: {watch}",
            )
        return ok(f"they hold; synced {max(age_s, 0):,} s ago")

    def _registry(self) -> Verdict:
        if self.place.offline:
            return OFFLINE
        registry, lane = self.settings.registry, self.settings.holder
        answer = ask(
            f"{registry.url}/lanes/{lane}/checkpoint",
            ca=registry.trust(self.place.directory), clock=self.place.clock,
        )  # fmt: skip
        self.answers["registry"] = answer
        head = head_of(answer, lane, registry.public)
        return ok(f"it signs with the key that the settings have; {head.size:,} entries in this lane")

    def _fleet(self) -> Verdict:
        from clients.holder.fleet import FLEET_FILE, Fleet

        if not (self.place.directory / FLEET_FILE).exists():
            return warning("not joined yet", _JOIN)
        fleet = Fleet.load(self.place.directory, at=self.place.now)
        if self.place.offline:
            return OFFLINE
        answer = ask(f"https://{fleet.address}/health", ca=fleet.ca.read_text("ascii"), clock=self.place.clock)
        self.answers["fleet"] = answer
        if answer.status != HTTPStatus.OK:
            raise RefusalError(f"it answers, and is not well (status {answer.status})", RefusalCode.INTERNAL)
        return ok(f"{fleet.coordinator} answers at {fleet.address}")

    def _certificate(self, whose: str, mend: str) -> Verdict:
        answer = self.answers.get(whose)
        return skipped("no answer to judge by") if answer is None else certificate_of(
            answer, at=self.place.now, mend=mend
        )  # fmt: skip

    def _clock(self, whose: str, name: str) -> Verdict:
        answer = self.answers.get(whose)
        if answer is None:
            return skipped("no answer to judge by")
        skew_s = self.settings.policy.clock_skew_s
        if whose == "fleet":
            return clock_of(answer, name, behind_s=min(skew_s, FLOWER_BEHIND_S), ahead_s=min(skew_s, FLOWER_AHEAD_S))
        return clock_of(answer, name, behind_s=skew_s, ahead_s=skew_s)

    def _program(self, start: str) -> Verdict:
        from clients.holder.serve_status import LOCK, STATUS, ServeStatus, read_status

        def says_running() -> bool:
            status = read_status(serving / STATUS, ServeStatus)
            return status is not None and bool(status.programs)

        serving = self.place.directory / "serving"
        return program(serving / LOCK, says_running, start=start)
