"""`fedcredit holder join`: ask a coordinator to be enrolled, then take its welcome."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privacy.errors import UsageError

if TYPE_CHECKING:
    from clients.holder.joining import Taken

PATH = click.Path(path_type=Path)


@click.command(
    epilog="Example: fedcredit holder join --request request.json; "
    "fedcredit holder join welcome.json --accept-peers --accept-bundle"
)
@click.argument("welcome", metavar="[WELCOME]", type=PATH, required=False)
@click.option("--request", "request_file", type=PATH, default=None, help="Write a request to join to this new file.")
@click.option("--new-node-key", is_flag=True, help="With --request: ask for a new node key in place of the old one.")
@click.option("--accept-peers", is_flag=True, help="Add the welcome's new data holders to policy.peers.")
@click.option("--accept-bundle", is_flag=True, help="Add the coordinator's app bundle to policy.bundles.")
@click.option("--directory", type=PATH, default=Path(), show_default=True, help="The data holder's directory.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def join(
    welcome: Path | None, request_file: Path | None, new_node_key: bool, accept_peers: bool, accept_bundle: bool,
    directory: Path, as_json: bool,
) -> None:  # fmt: skip
    """Ask a coordinator to be enrolled (--request), then take the WELCOME that it sends back.

    A request holds public keys only; send it any way, and read its fingerprint out when the coordinator rings you up.
    A welcome says where to dial in and whom to trust there. Which data holders you share noise with and which version
    of the program you answer is policy: compare them by telephone, then say yes with --accept-peers, --accept-bundle.
    """
    if (welcome is None) == (request_file is None):
        raise UsageError("Give a welcome to take it, or --request FILE to write a request; one of the two.")
    if request_file is not None:
        if accept_peers or accept_bundle:
            raise UsageError("--accept-peers and --accept-bundle go with a welcome; give its file.")
        _request(directory, request_file, new_node_key=new_node_key, as_json=as_json)
    elif welcome is not None:
        if new_node_key:
            raise UsageError("--new-node-key goes with --request FILE; the welcome for that key comes afterwards.")
        _take(directory, welcome, accept_peers=accept_peers, accept_bundle=accept_bundle, as_json=as_json)


def _request(directory: Path, out: Path, *, new_node_key: bool, as_json: bool) -> None:
    from clients.holder.desk import new_files, write_new
    from clients.holder.joining import make_request

    file = new_files(out, "request", 1)[0]
    request = make_request(directory, another_node_key=new_node_key, at=_now())
    write_new(file, request.data, secret=False)
    facts = {"holder": request.holder, "request": str(file), "fingerprint": request.fingerprint,
             "node_key_made": request.node_key_made}  # fmt: skip
    _tell(
        as_json,
        facts,
        f"The request of {request.holder} is in {file}: send it to the coordinator, any way will do.",
        f"fingerprint  {request.fingerprint}",
        "The coordinator rings you up: read the fingerprint out to it. Then take the welcome that it sends: fedcredit "
        "holder join welcome.json",
        *(["Until then the present node key goes on working."] if new_node_key else []),
    )


def _take(directory: Path, file: Path, *, accept_peers: bool, accept_bundle: bool, as_json: bool) -> None:
    from clients.holder.desk import read_file
    from clients.holder.joining import take_welcome
    from federated.enrolment import MAX_FILE_BYTES

    data = read_file(file, what="a coordinator's welcome", most=MAX_FILE_BYTES)
    taken = take_welcome(directory, data, accept_peers=accept_peers, accept_bundle=accept_bundle, at=_now())
    where = "" if directory == Path() else f" --directory {directory}"
    _tell(as_json, _facts(taken), *_lines(taken, f"{file}{where}"))


def _facts(taken: "Taken") -> dict[str, Any]:
    welcome, news = taken.welcome, taken.news
    return {
        "holder": welcome.holder,
        "coordinator": welcome.coordinator,
        "address": welcome.address,
        "peers": {peer: {"identity": key, "fingerprint": _print(key)} for peer, key in sorted(welcome.peers.items())},
        "new_peers": sorted(news.new_peers),
        "changed_peers": sorted(news.changed_peers),
        "gone_peers": sorted(news.gone_peers),
        "peers_accepted": taken.peers_accepted,
        "bundle": welcome.bundle,
        "new_bundle": news.new_bundle,
        "bundle_accepted": taken.bundle_accepted,
        "same_schema": news.same_schema,
        "same_registry": news.same_registry,
        "new_node_key": taken.new_node_key,
    }


def _lines(taken: "Taken", again: str) -> list[str]:
    welcome, news = taken.welcome, taken.news
    lines = [f"{welcome.holder} has joined {welcome.coordinator}, which it dials at {welcome.address}."]
    if taken.new_node_key:
        lines.append("The new node key holds from now on; restart `fedcredit holder serve`.")
    for peer, key in sorted(welcome.peers.items()):
        state = "ANOTHER KEY than in policy.peers" if peer in news.changed_peers else "known"
        if peer in news.new_peers:
            state = "added to policy.peers" if taken.peers_accepted else "NEW"
        lines.append(f"{peer:24} {_print(key)}  {state}")
    missing = []
    if news.new_peers and not taken.peers_accepted:
        missing.append("--accept-peers")
        lines.append("New data holders are not in your policy, so runs with them are refused. Compare each fingerprint "
                     "with its owner by telephone (`fedcredit holder init` has shown it there).")  # fmt: skip
    if news.changed_peers:
        lines.append("Where a key has changed, ring that data holder up before you write its new key into holder.toml.")
    if news.gone_peers:
        lines.append(f"No longer in the federation: {', '.join(sorted(news.gone_peers))}. Take them out of "
                     "policy.peers if they shall not come back.")  # fmt: skip
    if news.new_bundle and not taken.bundle_accepted:
        missing.append("--accept-bundle")
        lines.append("The coordinator runs a version whose app bundle is not in policy.bundles, so its runs are "
                     "refused. Agree with it on the version first.")  # fmt: skip
    elif news.new_bundle:
        lines.append("The coordinator's app bundle was added to policy.bundles.")
    if missing:
        lines.append(f"To add what is missing: fedcredit holder join {again} {' '.join(missing)}")
    if news.same_schema is False:
        lines.append("The coordinator's schema is another than yours: runs are refused until both have the same file.")
    elif news.same_schema is None:
        lines.append("There is no schema here yet; get the coordinator's.")
    if not news.same_registry:
        lines.append("The coordinator pins its runs to another consent registry than the one in holder.toml; compare "
                     "url and key with it.")  # fmt: skip
    return lines


def _print(identity: str) -> str:
    from privacy.consent.linking import fingerprint

    return fingerprint(bytes.fromhex(identity))


def _tell(as_json: bool, facts: dict[str, Any], *lines: str) -> None:
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for line in lines:
            click.echo(line)


def _now() -> int:
    return int(time.time())
