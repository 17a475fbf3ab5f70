"""A whole federation on one disk: every party's directory, keys, tables and consent records, ready to run.

Each party's files are those it would have on its own machine; nothing is shared but what the design shares.
"""

import csv
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from clients.holder.keys import HolderKeys
from clients.holder.node import Holder
from clients.holder.policy import ANSWERED, own_bundle
from clients.wallet.wallet import HolderAddress, Wallet
from experiments.chance import random_bytes
from experiments.people import Membership, Population
from experiments.registry_at_work import RegistryAtWork
from experiments.registry_place import DATABASE, IN_PROCESS, RegistryPlace
from experiments.wishes import COORDINATOR, EPOCH, JURISDICTION, NOTICE, TERMS
from experiments.workers import Desk, Writer, link_and_sync, write_records
from federated.files import write_whole
from federated.plan import RosterEntry, TrainingPlan, sign_plan
from federated.recipes.base import RecipeName
from federated.schema import Schema
from federated.schema_toml import load_schema, parse_schema
from federated.table import read_table, table_texts
from federated.trust import TrustModel
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from privacy.consent.view import Entry, Link
from privacy.errors import MalformedError
from server.registry.store import Registry
from server.rounds import Progress

PEOPLE_AT_ONCE = 2_000
LARGEST_EPSILON = 8.0
LARGEST_DELTA = 1e-5
FEWEST_HOLDERS = 2
FEWEST_PEOPLE = 30
MOST_OPENINGS_PER_DAY = 1000
DAY_S = 86_400
SYNC_EVERY_S = 15
# A new data holder's settings say a minute. Here the clock stands still from the first sync to the last run, and
# `fedcredit train` repeats what was released, the same day and without the registry.
LONGEST_LANE_AGE_S = DAY_S
CERTIFICATES = "registry-ca.pem"


class ConsentRegistry(Protocol):
    """A registry that records can be handed to and lanes downloaded from, in this process or at work elsewhere."""

    def append(self, lane: str, submissions: Sequence[Submission]) -> object:
        """Submit all of them."""
        ...

    def checkpoint(self, lane: str) -> str:
        """The lane's newest head as a signed note."""
        ...

    def entries(self, lane: str, start: int, stop: int) -> list[Entry]:
        """The lane's entries from `start` to before `stop`."""
        ...


@dataclass(frozen=True, slots=True)
class PublicData:
    """A public data set as its files and, parsed, as its schema and raw lines."""

    schema: Schema
    schema_text: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    @classmethod
    def load(cls, schema: Path, table: Path) -> "PublicData":
        """The data set in a schema file and a table of any kind; a table without keys gets one numbered from 1.

        MalformedError unless the whole table fits the schema and has outcomes; UsageError for what cannot be opened.
        """
        agreed = load_schema(schema)
        if read_table(table, agreed).outcome is None:
            raise MalformedError(
                f"{table.name} has no column {agreed.outcome.column!r}; nothing can be learnt from it."
            )
        text = schema.read_text(encoding="utf-8-sig")
        with table_texts(table) as (header, rows):
            lines = list(rows)
        if agreed.subject_column is None:
            text = text.replace('from = "row_number"', 'from = "column"\ncolumn = "person"', 1)
            header = ["person", *header]
            lines = [[str(number), *line] for number, line in enumerate(lines, start=1)]
        return cls(parse_schema(text, schema.name), text, tuple(header), tuple(tuple(line) for line in lines))

    def outcome(self) -> NDArray[np.float64]:
        """Each line's outcome, shape (n,); 1 is bad."""
        column = self.header.index(self.schema.outcome.column)
        return np.isin([float(line[column]) for line in self.lines], self.schema.outcome.bad).astype(np.float64)


class Federation:
    """Everybody's directories under one; the wallets of its people are on no disk."""

    def __init__(
        self,
        directory: Path,
        data: PublicData,
        population: Population,
        *,
        seed: int | None,
        at: int,
        fewest_people: int = FEWEST_PEOPLE,
        registry: RegistryPlace = IN_PROCESS,
    ) -> None:
        """`registry` is where data holders and wallets will find it."""
        self.directory, self.data, self.population, self.at = directory, data, population, at
        self._registry_place = registry
        self._fewest_people = fewest_people
        random = random_bytes(seed, "federation")
        self.seeded = seed is not None
        self.coordinator_key = SigningKey.from_seed(random(32))
        self.registry_key = SigningKey.from_seed(random(32))
        self._holder_keys = {
            holder: HolderKeys(SigningKey.from_seed(random(32)), {EPOCH: LaneKey.from_bytes(b"\x02" + random(96))})
            for holder in population.holders
        }
        self._wallets = [Wallet(random(32)) for _ in population.attitudes]
        self.handles = {place: random(32) for place in population.memberships}

    @property
    def coordinator(self) -> str:
        """The coordinator's name."""
        return COORDINATOR

    @property
    def registry_url(self) -> str:
        """Where data holders and wallets look for the registry."""
        return self._registry_place.url

    @property
    def fewest_people(self) -> int:
        """Below so many permitted people a data holder sits a run out."""
        return self._fewest_people

    @property
    def coordinator_directory(self) -> Path:
        """Where the coordinator keeps everything."""
        return self.directory / "coordinator"

    def holder_directory(self, holder: str) -> Path:
        """Where one data holder keeps everything."""
        return self.directory / "holders" / holder

    def open_registry(self) -> Registry:
        """The consent registry, in this process."""
        return Registry(self.registry_directory / DATABASE, self.registry_key, self._identities)

    def start_registry(self) -> RegistryAtWork:
        """The consent registry as a program of its own, where the data holders will look for it."""
        return RegistryAtWork(
            self.registry_directory, public_key=self.registry_key.public, ca=self._registry_place.certificate.decode()
        )

    def connect_registry(self) -> RegistryAtWork:
        """The consent registry where the data holders look for it, which runs already."""
        certificate = self._registry_place.certificate.decode()
        return RegistryAtWork(self.registry_url, public_key=self.registry_key.public, ca=certificate)

    def address(self, holder: str) -> HolderAddress:
        """Where consent records for one data holder go."""
        return HolderAddress(holder, EPOCH, self._holder_keys[holder].lane_key.public)

    def wallet(self, person: int) -> Wallet:
        """The wallet of one person."""
        return self._wallets[person]

    def places_of(self, person: int) -> list[Membership]:
        """Where one person is a customer."""
        return self.population.places[person]

    def write_parties(self) -> None:
        """Make every party's directory: settings, keys, schema, tables."""
        self.coordinator_directory.mkdir(parents=True)
        write_whole(self.coordinator_directory / "coordinator.key", self.coordinator_key.seed, secret=True)
        write_whole(self.coordinator_directory / "schema.toml", self.data.schema_text.encode())
        self._registry_place.write_home(self.registry_directory, self.registry_key, self._identities)
        for holder in self.population.holders:
            self._write_holder(holder)

    def write_consents(self, registry: ConsentRegistry, progress: Progress, pool: Executor | None = None) -> None:
        """Let every person write, sign, seal and append what they wish, by the hands of `pool` if there is one."""
        keys = {holder: self.address(holder).key.to_bytes() for holder in self.population.holders}
        work = partial(write_records, Desk(keys, self.data.schema.categories, self.at))
        chunks = [
            [self._writer(person) for person in range(first, min(first + PEOPLE_AT_ONCE, len(self._wallets)))]
            for first in range(0, len(self._wallets), PEOPLE_AT_ONCE)
        ]
        lanes: dict[str, list[Submission]] = {holder: [] for holder in self.population.holders}
        wallets: list[Wallet] = []
        for written in map(work, chunks) if pool is None else pool.map(work, chunks):
            for wallet, records in written:
                wallets.append(wallet)
                for holder, record in records:
                    lanes[holder].append(Submission(record.stub, record.ciphertext))
            progress("consent records of people", len(wallets), len(self._wallets))
        self._wallets = wallets
        for holder, submissions in lanes.items():
            registry.append(holder, submissions)

    def settle(self, pool: Executor, progress: Progress) -> None:
        """Let every data holder link its customers and sync its lane, each in a process of `pool`; none may be open."""
        days = [
            pool.submit(link_and_sync, self.holder_directory(holder), self._links(holder), self.at)
            for holder in self.population.holders
        ]
        for done, day in enumerate(days, start=1):
            day.result()
            progress("lanes linked and synced", done, len(days))

    def withdraw(self, registry: ConsentRegistry, place: Membership) -> None:
        """One person's complete wishes at one data holder become: nothing."""
        record = self._wallets[place.person].write(
            self.address(place.holder), handle=self.handles[place], grants=[], frozen=False, terms=TERMS,
            jurisdiction=JURISDICTION, at=self.at,
        )  # fmt: skip
        registry.append(place.holder, [Submission(record.stub, record.ciphertext)])

    def link(self, holders: Mapping[str, Holder]) -> None:
        """Store at each data holder which of its customers has which wallet."""
        for name, holder in holders.items():
            holder.lane.link(self._links(name))

    def customer(self, person: int) -> str:
        """The customer number of a person, the same at all data holders here, as public data have only one."""
        return self.data.lines[person][self._subject]

    def write_plan(self, plan: TrainingPlan) -> None:
        """Sign a plan and give it to the coordinator."""
        signed = sign_plan(plan, self.coordinator_key)
        write_whole(self.coordinator_directory / "plan.json", msgspec.json.encode(signed))

    def sync(
        self, registry: ConsentRegistry, holders: Mapping[str, Holder], progress: Progress, *, at: int | None = None
    ) -> None:
        """Let every data holder download and verify its lane, and give the coordinator the newest checkpoints.

        `at` is None where the federation's clock stands still.
        """
        for done, holder in enumerate(holders.values(), start=1):
            holder.lane.sync(registry, at=self.at if at is None else at)
            progress("lanes synced", done, len(holders))
        checkpoints = {holder: registry.checkpoint(holder) for holder in self.population.holders}
        write_whole(self.coordinator_directory / "checkpoints.json", msgspec.json.encode(checkpoints, order="sorted"))

    @property
    def roster(self) -> list[RosterEntry]:
        """All data holders with their public identities."""
        return [RosterEntry(holder, keys.identity.public) for holder, keys in self._holder_keys.items()]

    @property
    def registry_directory(self) -> Path:
        """Where the consent registry keeps everything."""
        return self.directory / "registry"

    @property
    def _identities(self) -> dict[str, bytes]:
        return {holder: keys.identity.public for holder, keys in self._holder_keys.items()}

    def _links(self, holder: str) -> dict[str, Link]:
        return {
            self.customer(place.person): Link(
                self.handles[place], self._wallets[place.person].key_for(holder).public, linked_at_size=0
            )
            for place in self.population.at(holder)
        }

    def _writer(self, person: int) -> Writer:
        places = self.population.places[person]
        return Writer(
            wallet=self._wallets[person],
            attitude=self.population.attitudes[person],
            cap=float(self.population.caps[person]),
            places=tuple((place.holder, self.handles[place], place.share_milli) for place in places),
        )

    @property
    def _subject(self) -> int:
        return self.data.header.index(str(self.data.schema.subject_column))

    def _write_holder(self, holder: str) -> None:
        directory = self.holder_directory(holder)
        (directory / "keys").mkdir(parents=True)
        self._holder_keys[holder].save(directory / "keys")
        write_whole(directory / "schema.toml", self.data.schema_text.encode())
        write_whole(directory / "notice.txt", NOTICE)
        if self._registry_place.certificate:
            write_whole(directory / CERTIFICATES, self._registry_place.certificate)
        recipes = ", ".join(f'"{name.value}"' for name in RecipeName)
        trust_models = ", ".join(f'"{trust.value}"' for trust in TrustModel)
        purposes = ", ".join(f'"{purpose.value}"' for purpose in ANSWERED)
        peers = "\n".join(
            f'{name} = "{keys.identity.public.hex()}"' for name, keys in self._holder_keys.items() if name != holder
        )
        write_whole(
            directory / "holder.toml",
            f"""version = 1
holder = "{holder}"
schema = "schema.toml"
rows = "rows.csv"
held_out = "held_out.csv"

[registry]
url = "{self._registry_place.url}"
key = "{self.registry_key.public.hex()}"
ca = "{CERTIFICATES if self._registry_place.certificate else ""}"

[desk]
jurisdiction = "{JURISDICTION}"
language = "{TERMS.lang}"
notice = "notice.txt"
notice_id = "{TERMS.id}"
side_door = ""

[policy]
coordinator = "{COORDINATOR}"
coordinator_keys = ["{self.coordinator_key.public.hex()}"]
bundles = ["{own_bundle()}"]
purposes = [{purposes}]
recipes = [{recipes}]
trust_models = [{trust_models}]
largest_epsilon = {LARGEST_EPSILON}
largest_delta = {LARGEST_DELTA}
fewest_holders = {FEWEST_HOLDERS}
fewest_people = {self._fewest_people}
most_people = {len(self.data.lines)}
most_openings_per_day = {MOST_OPENINGS_PER_DAY}
hours = "00:00-24:00"
answer_within_s = 300
clock_skew_s = 120
longest_lane_age_s = {LONGEST_LANE_AGE_S}
sync_every_s = {SYNC_EVERY_S}
accept_seeded_noise = {str(self.seeded).lower()}

[policy.peers]
{peers}
""".encode(),
        )
        samples: dict[bool, list[Sequence[str]]] = {False: [], True: []}
        for place in self.population.at(holder):
            samples[bool(self.population.held_out[place.person])].append(self.data.lines[place.person])
        for held_out, name in ((False, "rows.csv"), (True, "held_out.csv")):
            with (directory / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(self.data.header)
                writer.writerows(samples[held_out])
