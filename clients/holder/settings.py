"""The data holder's own settings: where its files and its registry lie, and the policy that has the last word."""

from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.x509 import load_pem_x509_certificates

from federated.recipes.base import RecipeName
from federated.settings_file import NotSettingsError, read_settings
from federated.trust import TrustModel
from privacy.consent.limits import Name
from privacy.consent.record import Purpose
from privacy.errors import MalformedError, UsageError

_HOST = r"(?:[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?|\[[0-9a-f:]{2,39}\])"
_OWN = r"(?:127\.0\.0\.1|\[::1\]|localhost)"
# No user, query, fragment or final slash: one spelling for one place. Unprotected HTTP stays on one machine.
_URL = rf"(?:https://{_HOST}|http://{_OWN})(?::[1-9][0-9]{{0,4}})?(?:/[A-Za-z0-9._~-]{{1,64}}){{0,8}}"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"

PublicKeyHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Url = Annotated[str, msgspec.Meta(pattern=rf"^{_URL}\Z")]
_HolderId = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z", max_length=63)]
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]+\Z")]
_Sha256Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Hours = Annotated[str, msgspec.Meta(pattern=rf"^{_TIME}-(?:{_TIME}|24:00)\Z")]


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The consent registry that serves this data holder's lane, and by what it is known."""

    url: Url
    key: PublicKeyHex  # signs checkpoints and promises
    ca: Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*\Z")]  # file of certificates; "" is the system's trust

    @property
    def public(self) -> bytes:
        """The registry's Ed25519 public key, 32 bytes."""
        return bytes.fromhex(self.key)

    def trust(self, directory: Path) -> str | None:
        """The certificates (PEM) that the registry's must descend from; None for those the system trusts.

        MalformedError if the file that `ca` names in `directory` is not there or holds no certificate.
        """
        if not self.ca:
            return None
        try:
            text = (directory / self.ca).read_text(encoding="ascii")
            load_pem_x509_certificates(text.encode())
        except (OSError, ValueError) as error:
            raise MalformedError(
                f"{self.ca}, which registry.ca names, is not a readable file of certificates in PEM. The data holder "
                "should get it from the registry's operator again, or set ca = \"\" for the system's trust."
            ) from error
        return text


class DeskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people are told and offered when they link a wallet."""

    jurisdiction: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}(?:-[A-Z0-9]{1,3})?\Z")]
    language: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*\Z", max_length=16)]
    notice: _FileName  # the text that people read before they agree
    notice_id: Name
    side_door: Annotated[str, msgspec.Meta(pattern=rf"^(?:{_URL})?\Z")]  # where records come in directly; "" is none


class HolderPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this data holder agrees to, whatever a coordinator proposes."""

    coordinator: str
    coordinator_keys: Annotated[list[PublicKeyHex], msgspec.Meta(min_length=1)]  # a plan is signed by any of them
    bundles: list[_Sha256Hex]  # of the coordinator's app that are answered over Flower; none of them is ever run here
    purposes: list[Purpose]
    recipes: list[RecipeName]
    trust_models: list[TrustModel]
    largest_epsilon: Annotated[float, msgspec.Meta(gt=0, le=100)]  # per run and person
    largest_delta: Annotated[float, msgspec.Meta(gt=0, lt=0.01)]
    peers: dict[_HolderId, PublicKeyHex]  # identities of the other data holders it will share noise with
    fewest_holders: Annotated[int, msgspec.Meta(ge=1)]  # a plan that may begin with fewer is refused
    fewest_people: Annotated[int, msgspec.Meta(ge=1)]  # below it this data holder sits the run out
    # Public bound on the people of all data holders together: a plan must have room for as many.
    most_people: Annotated[int, msgspec.Meta(ge=1)]
    most_openings_per_day: Annotated[int, msgspec.Meta(ge=1)]  # runs; each tells whether enough people are permitted
    hours: _Hours  # UTC, in which letters are answered; the end is exclusive, and may lie on the next day
    answer_within_s: Annotated[int, msgspec.Meta(ge=1, le=3600)]  # an answer that takes longer is broken off
    clock_skew_s: Annotated[int, msgspec.Meta(ge=0, le=3600)]
    # Without a registry, how long the last sync will do for reading rows and for scoring; never for a new release.
    longest_lane_age_s: Annotated[int, msgspec.Meta(ge=1)]
    sync_every_s: Annotated[int, msgspec.Meta(ge=1)]  # with one, how old a sync may be before rows are read
    accept_seeded_noise: bool  # for experiments on public data only: whatever a seed has touched is NOT PRIVATE


class HolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One data holder's settings file, parsed whole. Paths are relative to the file."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    holder: _HolderId
    schema: _FileName
    rows: _FileName  # development sample
    held_out: _FileName  # people whom no model has seen, for measuring it
    registry: RegistrySettings
    desk: DeskSettings
    policy: HolderPolicy


def load_settings(path: Path) -> HolderSettings:
    """The settings in `path`. MalformedError for a missing, unknown or ill-typed key: there are no defaults."""
    try:
        settings = read_settings(path, HolderSettings)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"there is no {path.name} in {path.parent.resolve()}, so this is no data holder's directory. Name one with "
            "--directory, or make one with `fedcredit holder init`."
        ) from None
    except OSError as error:
        raise MalformedError(
            f"{path.parent.name}/{path.name} cannot be opened ({error.strerror}). The data holder should give this "
            "program permission to read its directory."
        ) from None
    except NotSettingsError as error:
        raise MalformedError(
            f"{path.parent.name}/{path.name} is not a data holder's settings: {error}. Every key is needed, none has "
            "a default; the data holder should correct the file."
        ) from error
    if settings.policy.sync_every_s > settings.policy.longest_lane_age_s:
        raise MalformedError(
            f"{path.parent.name}/{path.name}: policy.sync_every_s is above policy.longest_lane_age_s, so a lane that "
            "is due for no sync would be refused as too old. The data holder should lower the first or raise the other."
        )
    begin, end = settings.policy.hours.split("-")
    if begin == end:
        raise MalformedError(
            f"{path.parent.name}/{path.name}: policy.hours begins and ends at the same minute, which could mean "
            '"never" or "always". The data holder should write "00:00-24:00" for always.'
        )
    return settings
