"""Flower's SuperLink on the coordinator's own machine: how it is started, which nodes it is told to know, its runs.

Its operator's interface asks nobody who they are, so it listens on 127.0.0.1 alone; whoever has an account on this
machine could use it. The coordinator's machine is for the coordinator.
"""

import hashlib
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
    StopRunRequest,
    StopRunResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.node_pb2 import NodeInfo
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from federated.flower_home import flower_environment, flower_program
from federated.programs import Program
from privacy.errors import RefusalCode, RefusalError
from server.deploy.proxy import HEALTH
from server.deploy.settings import Home

NAME: Final = "SuperLink"
ANSWER_S: Final = 10.0
_MEDIA: Final = "application/protobuf"
_ONLINE, _GONE = "online", "unregistered"

Answer = TypeVar("Answer", bound=Message)


def superlink(home: Home) -> Program:
    """The program, with everything it keeps in `home.superlink`. It starts nothing else: runs are ours to do."""
    directory, tls = home.superlink.absolute(), home.tls.absolute()
    command = (
        flower_program("flower-superlink"),
        "--host", "127.0.0.1", "--port", str(home.settings.fleet.superlink_port),
        "--ssl-ca-certfile", str(tls / "ca.pem"), "--ssl-certfile", str(tls / "superlink.pem"),
        "--ssl-keyfile", str(tls / "superlink.key"),
        "--enable-supernode-auth", "--database", str(home.state.absolute()),
        "--isolation", "process", "--superexec-auth-secret-file", str(home.secret_file.absolute()),
        "--disable-runtime-dependency-installation",
    )  # fmt: skip
    return Program(NAME, command, flower_environment(directory), directory, directory / "superlink.log")


def has_begun(home: Home) -> bool:
    """Whether SuperLink was started before and so may know nodes."""
    return home.state.exists()


@dataclass(frozen=True, slots=True)
class Known:
    """What SuperLink knows of nodes: how many enrolled ones are online, and whose keys it will not take again.

    `unlisted` may connect to it although the coordinator's list does not name them at all; the door lets none in.
    """

    online: int
    spent: tuple[str, ...]
    unlisted: int = 0


class SuperLink:
    """A running SuperLink, asked over its own port."""

    def __init__(self, home: Home) -> None:
        """RefusalError if the authority's certificate cannot be read."""
        try:
            trusted = ssl.create_default_context(cafile=home.tls / "ca.pem")
        except OSError as error:
            raise RefusalError(
                f"tls/ca.pem cannot be read as certificates ({error.strerror or type(error).__name__}). The "
                "coordinator should restore the folder tls from the copy kept safe.",
                RefusalCode.INTERNAL,
            ) from None
        self._http = httpx.Client(
            base_url=f"https://127.0.0.1:{home.settings.fleet.superlink_port}", verify=trusted, trust_env=False,
            timeout=ANSWER_S, headers={"content-type": _MEDIA, "accept": _MEDIA},
        )  # fmt: skip

    def well(self) -> bool:
        """Whether it answers."""
        try:
            return self._http.get(HEALTH).status_code == 200
        except httpx.HTTPError:
            return False

    def match(self, holders: Mapping[bytes, str], gone: Collection[bytes]) -> Known:
        """Make SuperLink know the nodes of `holders`, ids by node key in PEM, and none of `gone`.

        What it once lets go it never takes again. So a key that is in neither is left alone: it may be a data
        holder's, and the list an earlier one. RefusalError (internal) if it does not answer; what was done holds.
        """
        nodes = {node.public_key: node for node in self._nodes()}
        there = {key: node for key, node in nodes.items() if node.status != _GONE}
        for key, node in there.items():
            if key in gone and key not in holders:
                self._call("unregister-node", UnregisterNodeRequest(node_id=node.node_id), UnregisterNodeResponse())
        for key, holder in holders.items():
            if key not in nodes:
                self._call("register-node", RegisterNodeRequest(public_key=key, name=holder), RegisterNodeResponse())
        spent = (holder for key, holder in holders.items() if key in nodes and key not in there)
        return Known(
            online=sum(there[key].status == _ONLINE for key in holders if key in there),
            spent=tuple(spent),
            unlisted=sum(key not in holders and key not in gone for key in there),
        )

    def online(self) -> int:
        """How many nodes are connected. RefusalError (internal) if it does not answer."""
        return sum(node.status == _ONLINE for node in self._nodes())

    def start_run(self, bundle: bytes) -> int:
        """Submit a run with the app bundle in `bundle`; its number. RefusalError (internal) if it is not taken."""
        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        return int(self._call("start-run", StartRunRequest(fab=fab), StartRunResponse()).run_id)

    def stop_run(self, number: int) -> None:
        """End a run, so that its messages go to nobody any more. RefusalError (internal) if it is not running."""
        self._call("stop-run", StopRunRequest(run_id=number), StopRunResponse())

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def _nodes(self) -> list[NodeInfo]:
        return list(self._call("list-nodes", ListNodesRequest(), ListNodesResponse()).nodes_info)

    def _call(self, method: str, question: Message, answer: Answer) -> Answer:
        try:
            got = self._http.post(f"/v1/control/{method}", content=question.SerializeToString())
            got.raise_for_status()
            answer.ParseFromString(got.content)
        except (httpx.HTTPError, DecodeError) as error:
            raise RefusalError(
                f"Flower's SuperLink did not answer `{method}` as it should ({type(error).__name__}). Look into "
                "superlink/superlink.log in the coordinator's directory.",
                RefusalCode.INTERNAL,
            ) from None
        return answer
