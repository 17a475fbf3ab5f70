"""A coordinator's directory of its own, ready to run over data holders in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, derive_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from federated.files import write_whole
from server.deploy.members import Member
from server.deploy.runs import Runs
from server.deploy.settings import SETTINGS_FILE, Home
from server.deploy.setup import Start, settings_text
from server.grid_channel import GridChannel
from tests.ready import AT, Ready


def coordinator_home(ready: Ready) -> Home:
    """The small federation's coordinator, with a settings file beside what it has already."""
    federation = ready.federation
    directory = federation.coordinator_directory
    start = Start(
        name="open-scoring",
        address="127.0.0.1:9443",
        schema=directory / "schema.toml",
        registry_url="http://127.0.0.1:1",
        registry_key=federation.registry_key.public.hex(),
        registry_ca=None,
        people=450,
        most_people=600,
        minimum_people=5,
    )
    text = settings_text(start).replace("nodes_deadline_s = 120.0", "nodes_deadline_s = 0.2")
    write_whole(directory / SETTINGS_FILE, text.encode())
    (directory / "checkpoints.json").unlink(missing_ok=True)
    return Home.open(directory)


@dataclass
class Nodes:
    """The data holders' nodes; each run is a session over what they have kept. `before` is called with the channel."""

    ready: Ready
    wrap: Callable[[GridChannel], GridChannel] = lambda channel: channel
    opened: int = 0

    @contextmanager
    def __call__(self, home: Home, *, tell: Callable[[str], None]) -> Iterator[GridChannel]:  # noqa: ARG002 (Channels')
        self.opened += 1
        tell("opening a session")
        with self.ready.session() as session:
            yield self.wrap(session.channel)


def runs_of(ready: Ready, home: Home, nodes: Nodes | None = None) -> Runs:
    @contextmanager
    def registry(_: Home) -> Iterator[object]:
        yield ready.registry

    return Runs(home, nodes or Nodes(ready), lambda: float(AT), registry)  # type: ignore[arg-type]


def enrol_everybody(ready: Ready, home: Home) -> None:
    """As `fedcredit coordinator enroll` would: everybody's identity, and a node key of its own."""
    members = {
        entry.holder: Member(
            identity=entry.identity.hex(),
            node_key=derive_private_key(number, SECP384R1())
            .public_key()
            .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            .decode(),
            enrolled=AT,
            revoked=None,
        )
        for number, entry in enumerate(ready.federation.roster, start=2)
    }
    write_whole(home.members, msgspec.json.encode(members, order="sorted"))
