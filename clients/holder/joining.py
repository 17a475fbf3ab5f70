"""Joining a federation: the data holder's request, and what it takes from the coordinator's welcome."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from clients.holder.fleet import (
    CA_FILE,
    NEXT_NODE_KEY,
    NODE_KEY,
    FleetSettings,
    confirm_next_node_key,
    load_fleet,
    load_node_key,
    new_node_key,
    save_fleet,
)
from clients.holder.keys import HolderKeys
from clients.holder.settings import HolderSettings, load_settings
from federated.enrolment import Welcome, fingerprint_of, node_key_text, read_welcome, write_request
from federated.files import write_whole
from federated.schema_toml import load_schema
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError, UsageError

SETTINGS: Final = "holder.toml"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it goes to the coordinator, whose it is, and the fingerprint to read out by telephone."""

    holder: str
    data: bytes
    fingerprint: str
    node_key_made: bool


@dataclass(frozen=True, slots=True)
class News:
    """What a welcome says and the policy does not: every peer is an id and an identity key in hex."""

    new_peers: Mapping[str, str]
    changed_peers: Mapping[str, str]
    gone_peers: frozenset[str]
    new_bundle: bool
    same_schema: bool | None  # None: there is no schema here yet
    same_registry: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """A welcome that was taken, what was new in it, what of that was accepted, and whether the node key changed."""

    welcome: Welcome
    news: News
    peers_accepted: bool
    bundle_accepted: bool
    new_node_key: bool


def make_request(directory: Path, *, another_node_key: bool, at: int) -> Request:
    """A request of the data holder in `directory` at `at` (UTC seconds); its node key is made if there is none.

    With `another_node_key` it asks for a key that takes the present one's place once a welcome confirms it.
    """
    settings, keys = load_settings(directory / SETTINGS), HolderKeys.load(directory / "keys")
    path = NEXT_NODE_KEY if another_node_key and (directory / NODE_KEY).exists() else NODE_KEY
    made = not (directory / path).exists()
    node = new_node_key(directory / path) if made else load_node_key(directory / path)
    data = write_request(settings.holder, keys.identity, node, at=at)
    identity, public = keys.identity.public.hex(), node_key_text(node.public_key())
    return Request(settings.holder, data, fingerprint_of(settings.holder, identity, public), made)


def take_welcome(directory: Path, data: bytes, *, accept_peers: bool, accept_bundle: bool, at: int) -> Taken:
    """Take the welcome in `data` at `at` (UTC seconds): where to dial, whom to trust there, and which node key holds.

    Its peers and its app bundle become policy only where they are accepted. TamperingError for a welcome by somebody
    else, for somebody else, or older than the one taken before; then nothing is changed. It may be taken once more
    if it broke off.
    """
    settings, keys = load_settings(directory / SETTINGS), HolderKeys.load(directory / "keys")
    signers = [bytes.fromhex(key) for key in settings.policy.coordinator_keys]
    welcome = read_welcome(data, signers=signers, at=at)
    _check_addressee(welcome, settings, keys)
    promote = _is_next(directory, welcome)
    _check_age(directory, welcome)
    news = _news(directory, welcome, settings)
    if accept_peers and news.changed_peers:
        raise RefusalError(
            f"for {', '.join(sorted(news.changed_peers))} the welcome has another identity key than policy.peers, so "
            "nothing was taken. Ring that data holder up at a number that you had before; if it has a new key, write "
            "it into holder.toml by hand, else tell the coordinator.",
            RefusalCode.POLICY,
        )
    peers = news.new_peers if accept_peers else {}
    bundle = welcome.bundle if accept_bundle and news.new_bundle else None
    if peers or bundle:
        _extend_policy(directory / SETTINGS, peers, bundle)
    fleet = FleetSettings(
        version=1, address=welcome.address, ca=CA_FILE, coordinator=welcome.coordinator, welcomed=welcome.issued_at
    )
    save_fleet(directory, fleet, welcome.ca)
    if promote:
        confirm_next_node_key(directory)
    return Taken(welcome, news, accept_peers, accept_bundle, promote)


def _check_addressee(welcome: Welcome, settings: HolderSettings, keys: HolderKeys) -> None:
    if welcome.holder != settings.holder or welcome.identity != keys.identity.public.hex():
        raise TamperingError(
            "a welcome is addressed to another data holder than this one, or to another identity key. Nothing was "
            "taken; ask the coordinator for the one that it wrote for you."
        )
    if welcome.coordinator != settings.policy.coordinator:
        raise RefusalError(
            "a welcome gives the coordinator another name than policy.coordinator in holder.toml, so people's consents "
            "would name somebody else. Nothing was taken; agree with the coordinator on one name.",
            RefusalCode.POLICY,
        )


def _is_next(directory: Path, welcome: Welcome) -> bool:
    """Whether the welcome is for the node key that waits to take the present one's place. RefusalError if neither."""
    for path, waits in ((NEXT_NODE_KEY, True), (NODE_KEY, False)):
        if (directory / path).exists():
            public = load_node_key(directory / path).public_key()
            if node_key_text(public) == welcome.node_key:
                return waits
    raise RefusalError(
        "a welcome is for a node key that is not in keys: it was written before the key was changed, or the key is "
        "lost. Nothing was taken. Ask the coordinator for a fresh welcome; if the key is lost, write a new request "
        "with `fedcredit holder join --request` and have that enrolled.",
        RefusalCode.POLICY,
    )


def _check_age(directory: Path, welcome: Welcome) -> None:
    try:
        earliest = load_fleet(directory).welcomed
    except UsageError:  # the first welcome
        return
    if welcome.issued_at < earliest:
        raise TamperingError(
            "a welcome is older than the one taken before, so it may name certificates or data holders that no longer "
            "hold. Nothing was taken; ask the coordinator for a fresh one."
        )


def _news(directory: Path, welcome: Welcome, settings: HolderSettings) -> News:
    known = settings.policy.peers
    schema, registry = directory / settings.schema, welcome.registry
    return News(
        new_peers={peer: key for peer, key in welcome.peers.items() if peer not in known},
        changed_peers={peer: key for peer, key in welcome.peers.items() if known.get(peer, key) != key},
        gone_peers=frozenset(known) - frozenset(welcome.peers),
        new_bundle=welcome.bundle not in settings.policy.bundles,
        same_schema=load_schema(schema).digest == welcome.schema if schema.exists() else None,
        same_registry=registry is None
        or (registry.url, registry.key) == (settings.registry.url, settings.registry.key),
    )


def _extend_policy(path: Path, peers: Mapping[str, str], bundle: str | None) -> None:
    """Add to the policy in `path`, whose comments and order stay. What would not be read again is not written."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomlkit.parse(text)
        policy = document["policy"]
        for peer, key in sorted(peers.items()):
            policy["peers"][peer] = key
        if bundle is not None:
            policy["bundles"].append(bundle)
        written = tomlkit.dumps(document)
        wanted = msgspec.convert(tomllib.loads(text), HolderSettings, strict=True)
        wanted.policy.peers.update(peers)
        wanted.policy.bundles.extend([] if bundle is None else [bundle])
        if msgspec.convert(tomllib.loads(written), HolderSettings, strict=True) != wanted:
            raise ValueError("it would say something else")
    except (OSError, ValueError, TOMLKitError, msgspec.ValidationError) as error:
        raise MalformedError(
            f"{path.name} could not be extended ({type(error).__name__}) and is as it was. The data holder should add "
            "to policy.peers and policy.bundles by hand; `fedcredit holder join WELCOME --json` prints them."
        ) from None
    write_whole(path, written.encode(), secret=not path.stat().st_mode & 0o077)
