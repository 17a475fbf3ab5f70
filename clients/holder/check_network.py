"""Whether a data holder reaches whom it must: the consent registry and the coordinator's fleet address."""

from collections.abc import Iterator
from pathlib import Path

from clients.holder.finding import Finding, failure, ok, problem, warning
from clients.holder.fleet import FLEET_FILE, Fleet
from clients.holder.settings import HolderSettings
from clients.registry_client import RegistryClient
from privacy.consent.lane import Head, read_checkpoint
from privacy.errors import FedcreditError, UsageError


def network(
    directory: Path, settings: HolderSettings, head: Head | None, *, at: int, ask_registry: bool
) -> Iterator[Finding]:
    """`head` is that of the lane copy."""
    if ask_registry:
        yield _registry(directory, settings, head)
    else:
        yield ok("registry", "not asked")
    yield _fleet(directory, settings.policy.coordinator, at)


def _registry(directory: Path, settings: HolderSettings, head: Head | None) -> Finding:
    registry = settings.registry
    try:
        with RegistryClient(registry.url, ca=registry.trust(directory)) as client:
            note = client.checkpoint(settings.holder)
        newest = read_checkpoint(note, f"fedcredit/{settings.holder}", registry.public)
    except FedcreditError as error:
        return failure("registry", error)
    if head is None:
        return ok("registry", f"{newest.size:,} entries in our lane")
    if newest.size < head.size or (newest.size == head.size and newest != head):
        return problem(
            "registry",
            "it has signed another lane than the one accepted before",
            "Keep both checkpoints, use nobody's rows, and tell the registry's operator and the auditor.",
        )
    if newest.size > head.size:
        return ok("registry", f"{newest.size - head.size:,} entries are new; the next sync takes them")
    return ok("registry", "its newest head is the one that the lane copy has")


def _fleet(directory: Path, coordinator: str, at: int) -> Finding:
    try:
        fleet = Fleet.load(directory, at=at)
    except UsageError:
        return warning(
            "fleet",
            f"not joined yet: there is no {FLEET_FILE}",
            "fedcredit holder join --request FILE; send the file to the coordinator and take its welcome.",
        )
    except FedcreditError as error:
        return failure("fleet", error)
    if fleet.coordinator != coordinator:
        return problem(
            "fleet",
            f"joined that of {fleet.coordinator}, and policy.coordinator is {coordinator}",
            "Take the welcome of the right coordinator, or correct policy.coordinator.",
        )
    return ok("fleet", f"joined; dials {fleet.address}, whose certificates are in force")
