"""The data holder's own settings: where its files lie, and the policy that has the last word over any plan."""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from federated.recipes.base import RecipeName
from privacy.errors import MalformedError

PublicKeyHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_HolderId = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}\Z")]


class HolderPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this data holder agrees to, whatever a coordinator proposes."""

    coordinator: str
    coordinator_key: PublicKeyHex
    recipes: list[RecipeName]
    largest_epsilon: Annotated[float, msgspec.Meta(gt=0, le=100)]  # per run and person
    largest_delta: Annotated[float, msgspec.Meta(gt=0, lt=0.01)]
    peers: dict[_HolderId, PublicKeyHex]  # identities of the other data holders it will share noise with
    fewest_people: Annotated[int, msgspec.Meta(ge=1)]  # below it this data holder sits the run out
    clock_skew_s: Annotated[int, msgspec.Meta(ge=0, le=3600)]
    longest_lane_age_s: Annotated[int, msgspec.Meta(ge=1)]  # how long ago the lane may have been synced
    accept_seeded_noise: bool  # for experiments on public data only: whatever a seed has touched is NOT PRIVATE


class HolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One data holder's settings file, parsed whole. Paths are relative to the file."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    holder: _HolderId
    epoch: Annotated[int, msgspec.Meta(ge=1)]  # of the key that consent records are sealed to
    registry_key: PublicKeyHex
    schema: str
    rows: str  # development sample
    held_out: str  # people whom no model has seen, for measuring it
    policy: HolderPolicy


def load_settings(path: Path) -> HolderSettings:
    """The settings in `path`. MalformedError for a missing, unknown or ill-typed key: there are no defaults."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(raw, HolderSettings, strict=True)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise MalformedError(
            f"{path.parent.name}/{path.name} is not a data holder's settings: {error}. Every key is needed, none has "
            "a default; the data holder should correct the file."
        ) from error
