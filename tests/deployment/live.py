"""A federation at work as real programs, and what a test does to them: run, kill, cut off, plant faults, count."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from click.testing import CliRunner
from msgspec.structs import replace

from clients.holder.node import Holder
from clients.holder.serve import SERVING
from experiments.deployment import SUPERVISED, Deployment, deploy
from experiments.federation import Federation
from experiments.plans import default_plan
from experiments.recipes_by_name import settings_named
from experiments.registry_place import RegistryPlace
from federated.cli import fedcredit
from federated.plan import sign_plan
from federated.programs import Program, Supervisor
from federated.recipes.base import RecipeName
from federated.recipes.registry import RecipeSettings
from federated.schema import Schema
from federated.trust import TrustModel
from tests.small_federation import FEWEST_PEOPLE, small_federation

ROOT: Final = Path(__file__).parent.parent.parent
PLANTED: Final = Path(__file__).parent / "planted"
FEDCREDIT: Final = str(Path(sys.executable).with_name("fedcredit"))
EPSILON: Final = 0.05
"""So little that a person's cap is good for hundreds of runs."""
SEED: Final = 7
"""What a plan may have that is run once more in process; all others' noise is from secure chance."""
ONLINE_S: Final = 90.0
COMMAND_S: Final = 180.0
# Stands before an installed Ray, if there is one: whoever asks for it is told that there is none.
NO_RAY: Final = "raise ImportError('this deployment has no Ray')\n"
# Several planted files in one: they have the party's switch in common, and may change the same module.
TOGETHER: Final = """
import runpy

FAULTS = {{}}

def after(before, fault):
    return lambda module: (before(module), fault(module))

for path in {paths!r}:
    for name, fault in runpy.run_path(path)["FAULTS"].items():
        FAULTS[name] = after(FAULTS[name], fault) if name in FAULTS else fault
"""


@dataclass
class Live:
    """One federation. `supervisor` is None while nothing of it runs.

    Whoever has done to it what cannot be mended sets `used_up`: the next test is given another one.
    """

    federation: Federation
    faults: dict[str, Path] = field(default_factory=dict)  # of a party's programs, from their next start on
    supervisor: Supervisor | None = None
    path: tuple[Path, ...] = ()  # more places that programs import from, before all others
    apart: dict[str, Supervisor] = field(default_factory=dict)  # of data holders that come and go by themselves
    used_up: bool = False
    _plans: int = 0

    @classmethod
    def make(cls, directory: Path, *, holders: int = 3, people: int = 600) -> "Live":
        """A federation of a few hundred people in `directory`, everybody enrolled; nothing runs yet.

        It has no Ray. Beside it lies what it was before anybody was enrolled (`in_process`).
        """
        at = int(time.time())
        place = RegistryPlace.on_this_machine(at=at)
        federation, registry = small_federation(
            directory, people=people, holders=holders, at=at, place=place, seed=SEED
        )
        registry.close()
        made = cls(federation, path=(directory / "no-ray",))
        shutil.copytree(directory, made.in_process)
        (directory / "no-ray" / "ray").mkdir(parents=True)
        (directory / "no-ray" / "ray" / "__init__.py").write_text(NO_RAY, encoding="utf-8")
        deploy(federation, epsilon=EPSILON, at=at)
        return made

    @property
    def directory(self) -> Path:
        return self.federation.directory

    @property
    def in_process(self) -> Path:
        """The same federation as it began, for a `Session`: nobody's programs know of it."""
        return self.directory.with_name("in-process")

    @property
    def coordinator(self) -> Path:
        return self.federation.coordinator_directory

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.federation.population.holders)

    def holder(self, name: str) -> Path:
        return self.federation.holder_directory(name)

    # Programs.

    def start(self, *but: str) -> None:
        """Start everybody's programs but those of the parties named, and wait until all that run are online."""
        running = [program for program in self._deployment().programs() if program.name not in but]
        self.supervisor = Supervisor(running, pid_file=self.directory / SUPERVISED)
        since = int(time.time())
        self.supervisor.start()
        self.until(lambda: not {*self._deployment().missing(since=since)} - {*but}, "everybody is online")
        if "registry" not in but:
            port = urlsplit(self.federation.registry_url).port
            self.until(lambda: listens(port or 0), "the registry listens")

    def stop(self) -> None:
        """End whatever runs."""
        for name in tuple(self.apart):
            self.leave(name)
        if self.supervisor is not None:
            self.supervisor.stop(grace_s=20)
        self.supervisor = None

    def program(self, name: str) -> Program:
        """The program of one party, to be started beside the others."""
        return next(program for program in self._deployment().programs() if program.name == name)

    def join(self, name: str) -> None:
        """Start one data holder's programs beside the others', and wait until it is online."""
        self.apart[name] = Supervisor([self.program(name)], pid_file=self.directory / f"{name}.json")
        since = int(time.time())
        self.apart[name].start()
        self.until(lambda: name not in self._deployment().missing(since=since), f"{name} is online")

    def leave(self, name: str) -> None:
        """End the programs of one that has joined so."""
        self.apart.pop(name).stop(grace_s=20)

    def kill(self, name: str, part: str | None = None, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal one party's program, or a part that a data holder supervises (supernode, worker); its pid."""
        if part is None:
            assert self.supervisor is not None
            pid = self.supervisor.fates()[name].pid
        else:
            pid = self.pid(name, part)
        assert pid is not None
        os.kill(pid, number)
        return pid

    def pid(self, name: str, part: str) -> int | None:
        """Of a part that a data holder supervises; None while it does not run. The status may be seconds old."""
        pids = json.loads((self.holder(name) / SERVING / "pids.json").read_bytes())
        return int(pids[part][0]) if part in pids else None

    def until(self, holds: Callable[[], bool], what: str, *, within_s: float = ONLINE_S) -> None:
        """Tend the programs until something holds; the test fails if it does not in time."""
        end = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < end, f"{what}: not within {within_s} s\n{self.logs()}"
            if self.supervisor is not None:
                self.supervisor.tend()
            time.sleep(0.1)

    def plant(self, party: str, code: str) -> None:
        """Give the programs of `party` ("run" for the coordinator's commands) a fault, from their next start on.

        `code` is Python with `FAULTS`, a mapping from module names to functions of the module (planted/sitecustomize).
        """
        path = self.directory / f"fault-{party}.py"
        path.write_text(code, encoding="utf-8")
        self.faults[party] = path

    def plant_files(self, party: str, *names: str) -> None:
        """Give the programs of `party` the faults in these files of `planted`, all of them off (`switch`)."""
        self.plant(party, TOGETHER.format(paths=[str(PLANTED / name) for name in names]))

    def switch(self, party: str, how: str | None) -> None:
        """Turn on what a planted fault has under the name `how`; None turns it off. It counts at once."""
        path = self.faults[party].with_suffix(".on")
        path.unlink(missing_ok=True)
        if how is not None:
            path.write_text(how, encoding="utf-8")

    def setting(self, party: str, key: str, value: str) -> str:
        """Give a setting (TOML) in a party's own file another value; the value it had."""
        coordinator = self.coordinator / "coordinator.toml"
        path = coordinator if party == "coordinator" else self.holder(party) / "holder.toml"
        text = path.read_text(encoding="utf-8")
        (before,) = re.findall(rf"^{key} = (.*)$", text, re.MULTILINE)
        path.write_text(text.replace(f"{key} = {before}\n", f"{key} = {value}\n"), encoding="utf-8")
        return str(before)

    def logs(self) -> str:
        """The end of every log."""
        paths = [*self.directory.glob("logs/*.log"), *self.directory.glob("holders/*/serving/*.log")]
        return "".join(f"\n--- {path.parent.parent.name}/{path.name}\n{path.read_text()[-2000:]}" for path in paths)

    # The coordinator's commands.

    def plan(
        self,
        *,
        masked: bool = False,
        holders: int | None = None,
        minimum: int | None = None,
        recipe: RecipeSettings | None = None,
        seed: int | None = None,
    ) -> str:
        """Sign a plan of one round and the measurement as the current one; its digest.

        Masked it takes seven exchanges and tolerates no drop-outs with three data holders; else three exchanges.
        """
        self._plans += 1
        roster, schema = self.federation.roster[:holders], self.federation.data.schema
        plan = default_plan(
            f"plan-{self._plans}", schema, roster, epsilon=EPSILON, at=int(time.time()),
            seed=seed, people=450, recipe=recipe or _one_round(schema), fewest_people=FEWEST_PEOPLE,
            trust=TrustModel.SHARED_NOISE if masked else TrustModel.HOLDER_NOISE,
            dropouts_tolerated=None if masked else 0,
        )  # fmt: skip
        plan = replace(plan, minimum_holders=plan.minimum_holders if minimum is None else minimum)
        self.federation.write_plan(plan)
        return sign_plan(plan, self.federation.coordinator_key).digest

    def command(self, *arguments: str, fault: str | Path | None = None) -> subprocess.CompletedProcess[str]:
        """One `fedcredit coordinator` command, carried out to its end."""
        process = self.begin(*arguments, fault=fault)
        try:
            out, err = process.communicate(timeout=COMMAND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{arguments} did not end in {COMMAND_S} s: {out}{err}{self.logs()}") from None
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def begin(self, *arguments: str, fault: str | Path | None = None) -> "subprocess.Popen[str]":
        """A `fedcredit coordinator` command under way; whoever calls waits for it.

        `fault` is code as in `plant`, or the path of a fault that is planted already and has a switch.
        """
        if isinstance(fault, str):
            path = self.directory / "fault-run.py"
            path.write_text(fault, encoding="utf-8")
            fault = path
        environment = os.environ | self._environment(fault)
        name, *rest = arguments
        return subprocess.Popen(
            [FEDCREDIT, "coordinator", name, "--directory", str(self.coordinator), *rest],
            cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """What `coordinator status` says."""
        code, told = status_of("coordinator", self.coordinator)
        assert code == 0, told
        return told

    def holder_status(self, name: str) -> dict[str, Any]:
        """What `holder status` says."""
        return status_of("holder", self.holder(name))[1]

    # What came of it.

    def record(self, run: str) -> dict[str, Any]:
        """What a finished run says of itself."""
        told = json.loads((self.coordinator / "runs" / run / "run.json").read_bytes())
        assert isinstance(told, dict)
        return told

    def charges(self, name: str, run: str) -> dict[str, int]:
        """At one data holder: each release of `run` that was charged, and how many people paid."""
        with _opened(self.holder(name)) as holder:
            entries = [entry for entry in holder.ledger.releases() if entry.release_id.startswith(run)]
            names = [entry.release_id for entry in entries]
            assert len(names) == len(set(names)), "a release was charged twice"
            return {entry.release_id: entry.people for entry in entries}

    def require_lawful(self, run: str) -> None:
        """No row of `run` was used without consent, no release was charged twice, and none is there uncharged."""
        record = self.record(run) if (self.coordinator / "runs" / run / "run.json").exists() else {"releases": []}
        for name in self.names:
            charged = self.charges(name, run)
            commitments = {
                release["name"]: bytes.fromhex(release["updates"][name]["commitment"])
                for release in record["releases"]
                if name in release["updates"]
            }
            assert commitments.keys() <= charged.keys(), "a release was not charged"
            with _opened(self.holder(name)) as holder:
                if commitments:
                    assert holder.rows_used_without_consent(run, commitments) == 0

    def _deployment(self) -> Deployment:
        parties = ("registry", "coordinator", *self.names)
        environments = {party: self._environment(self.faults.get(party)) for party in parties}
        return Deployment(self.directory, sync=False, environments=environments)

    def _environment(self, fault: Path | None) -> dict[str, str]:
        """What a program's environment has more; the code is this tree's, wherever else it is installed."""
        path = [*self.path, *([] if fault is None else [PLANTED]), ROOT]
        planted = {} if fault is None else {"PLANTED_FAULT": str(fault)}
        return {"PYTHONPATH": os.pathsep.join(map(str, path)), **planted}


def status_of(party: str, directory: Path) -> tuple[int, dict[str, Any]]:
    """What `fedcredit PARTY status` says, carried out in this process: it only reads; and its exit code."""
    done = CliRunner().invoke(fedcredit, [party, "status", "--json", "--directory", str(directory)])
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return done.exit_code, told


def listens(port: int) -> bool:
    """Whether somebody listens on that port of this machine."""
    with socket.socket() as door:
        door.settimeout(1)
        return door.connect_ex(("127.0.0.1", port)) == 0


def _one_round(schema: Schema) -> RecipeSettings:
    return settings_named(RecipeName.SUFFICIENT_STATISTICS, schema, epsilon=EPSILON)


@contextmanager
def _opened(directory: Path) -> Iterator[Holder]:
    holder = Holder(directory)
    try:
        yield holder
    finally:
        holder.close()
