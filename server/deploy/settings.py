"""The coordinator's own settings: one complete file, and where everything else lies in its directory."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from federated.settings_file import NotSettingsError, read_settings
from federated.trust import Aggregation, TrustModel
from privacy.consent.limits import KEY_BYTES, Name, ServiceUrl
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

SETTINGS_FILE: Final = "coordinator.toml"
STATE: Final = "superlink/state.db"
KEY_FILE: Final = "coordinator.key"
SCHEMA_FILE: Final = "schema.toml"
SECRET_FILE: Final = "superexec.secret"  # noqa: S105 (a file's name)
REGISTRY_CA_FILE: Final = "registry-ca.pem"
MAX_CA_BYTES: Final = 1 << 16

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = rf"(?![a-z0-9.-]{{254}})(?:{_LABEL}\.)*(?![0-9]+:){_LABEL}"
_PORT: Final = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_ADDRESS: Final = rf"^(?:{_OCTET}(?:\.{_OCTET}){{3}}|\[[0-9a-f:]{{2,39}}\]|{_NAME}):{_PORT}\Z"

Address = Annotated[str, msgspec.Meta(pattern=_ADDRESS)]
PublicKeyHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]+\Z", max_length=255)]
_CaName = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]*\Z", max_length=255)]
_Host = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z.:-]{1,255}\Z")]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
_OpenPort = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
_Epsilon = Annotated[float, msgspec.Meta(gt=0, le=100)]
_Number = Annotated[float, msgspec.Meta(ge=-1_000_000, le=1_000_000)]

# Written out, as every program of the coordinator reads this file and few need numpy, which recipes import; a test
# holds the list to the recipes that there are.
RecipeChoice = Literal[
    "auto",
    "fixed_hessian",
    "uncentred_fixed_hessian",
    "gradient_descent",
    "sufficient_statistics",
    "histogram_scorecard",
    "local_sgd",
    "opacus_fedavg",
]


class FleetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where data holders dial in: `address` as they reach it, `host` and `port` as our proxy listens.

    Flower's SuperLink listens on `superlink_port` of 127.0.0.1 alone; `metrics_port` 0 serves no metrics.
    """

    address: Address
    host: _Host
    port: _OpenPort
    superlink_port: _OpenPort
    metrics_port: _Port

    @property
    def name(self) -> str:
        """The host in `address`, without brackets: what the fleet's certificate is for."""
        return self.address.rpartition(":")[0].strip("[]")


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The consent registry whose lane heads runs are pinned to, and the key that signs them."""

    url: ServiceUrl
    key: PublicKeyHex
    ca: _CaName  # file of certificates; "" is the system's trust

    @property
    def public(self) -> bytes:
        """The registry's Ed25519 public key, 32 bytes."""
        return bytes.fromhex(self.key)

    def trust(self, directory: Path) -> str | None:
        """The certificates (PEM) that the registry's must descend from; None for those the system trusts.

        MalformedError if the file that `ca` names in `directory` is not there or holds no certificate.
        """
        from privacy.consent.linking import only_certificates  # with all of X.509: only when a registry is asked

        if not self.ca:
            return None
        try:
            return only_certificates((directory / self.ca).read_text(encoding="ascii"))
        except (OSError, ValueError, MalformedError):
            raise MalformedError(
                f"{self.ca}, which registry.ca names, is not a readable file of certificates in PEM. The coordinator "
                "should get it from the registry's operator again, or set ca = \"\" for the system's trust."
            ) from None


class RunSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long a run waits: for enough nodes to be online, and for the answers to each question."""

    nodes_deadline_s: _Seconds
    answer_deadline_s: _Seconds


class PointScaleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The scale that scores are published on."""

    base_score: _Number
    base_good_bad_odds: _Number
    points_to_double_odds: _Number
    minimum: _Number
    maximum: _Number


class PlanSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The terms of the next plan, but for its name and its data holders."""

    recipe: RecipeChoice
    epsilon: _Epsilon
    delta: Annotated[float, msgspec.Meta(gt=0, lt=0.01)]
    measurement_epsilon: _Epsilon
    trust: TrustModel
    aggregation: Aggregation
    dropouts_tolerated: Annotated[int, msgspec.Meta(ge=0)]
    minimum_holders: Annotated[int, msgspec.Meta(ge=1)]
    minimum_people: Annotated[int, msgspec.Meta(ge=1)]
    people: Annotated[int, msgspec.Meta(ge=1)]
    most_people: Annotated[int, msgspec.Meta(ge=1)]
    releases_per_window: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    measurement_bands: Annotated[int, msgspec.Meta(ge=2, le=1000)]
    valid_hours: Annotated[float, msgspec.Meta(gt=0, le=8760)]
    point_scale: PointScaleSettings


class CoordinatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One coordinator's settings file, parsed whole. Nothing has a default; files lie beside it."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Name
    schema: _FileName
    fleet: FleetSettings
    registry: RegistrySettings
    run: RunSettings
    plan: PlanSettings


@dataclass(frozen=True, slots=True)
class Home:
    """A coordinator's directory, with its settings read and checked."""

    directory: Path
    settings: CoordinatorSettings

    @classmethod
    def open(cls, directory: Path) -> "Home":
        """The coordinator in `directory`. UsageError if none is there, MalformedError for settings that are none."""
        return cls(directory, load_settings(directory / SETTINGS_FILE))

    def key(self) -> SigningKey:
        """The key that signs plans, bundles and the round log. RefusalError if it cannot be read."""
        try:
            return SigningKey.from_seed((self.directory / KEY_FILE).read_bytes())
        except (OSError, MalformedError):
            raise RefusalError(
                f"{KEY_FILE} cannot be read as the coordinator's {KEY_BYTES}-byte key. The coordinator should restore "
                "it from the copy kept safe: data holders answer to this key alone.",
                RefusalCode.INTEGRITY,
            ) from None

    def secret(self) -> str:
        """What Flower's programs here prove to each other, 64 hexadecimal digits. RefusalError if it is gone."""
        try:
            return self.secret_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RefusalError(
                f"{SECRET_FILE} cannot be read ({type(error).__name__}). The coordinator should write 64 random "
                "hexadecimal digits to it, readable by itself alone, and start `fedcredit coordinator serve` again.",
                RefusalCode.INTERNAL,
            ) from None

    @property
    def secret_file(self) -> Path:
        """The file of that secret."""
        return self.directory / SECRET_FILE

    @property
    def schema(self) -> Path:
        """The schema that all parties agreed on."""
        return self.directory / self.settings.schema

    @property
    def tls(self) -> Path:
        """Certificates and their keys."""
        return self.directory / "tls"

    @property
    def members(self) -> Path:
        """Who has been enrolled."""
        return self.directory / "members.json"

    @property
    def plans(self) -> Path:
        """Every plan that was signed, by its digest."""
        return self.directory / "plans"

    @property
    def plan(self) -> Path:
        """The current plan."""
        return self.directory / "plan.json"

    @property
    def runs(self) -> Path:
        """What finished runs gave, by run."""
        return self.directory / "runs"

    @property
    def round_log(self) -> Path:
        """The signed history of plans and runs."""
        return self.directory / "rounds.log"

    @property
    def status(self) -> Path:
        """What the running or last run has written about itself."""
        return self.directory / "status.json"

    @property
    def run_lock(self) -> Path:
        """Held for as long as a run runs."""
        return self.directory / "run.lock"

    @property
    def serving(self) -> Path:
        """What `fedcredit coordinator serve` has written about itself."""
        return self.directory / "serving.json"

    @property
    def serve_lock(self) -> Path:
        """Held for as long as `fedcredit coordinator serve` runs."""
        return self.directory / "serve.lock"

    @property
    def superlink(self) -> Path:
        """SuperLink's own directory: its state, its log."""
        return self.directory / "superlink"

    @property
    def state(self) -> Path:
        """SuperLink's database, there from its first start on."""
        return self.directory / STATE

    @property
    def bell(self) -> Path:
        """The pipe by which a run tells the door that there are messages."""
        return self.superlink / "bell"

    @property
    def operator(self) -> Path:
        """The directory of Flower's own commands."""
        return self.directory / "operator"

    @property
    def app(self) -> Path:
        """The staged app bundle that runs are submitted with."""
        return self.directory / "app"


def load_settings(path: Path) -> CoordinatorSettings:
    """The settings in `path`. MalformedError names a missing, unknown or ill-typed key; there are no defaults."""
    try:
        settings = read_settings(path, CoordinatorSettings)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"there is no {path.name} in {path.parent.resolve()}, so this is no coordinator's directory. Name one with "
            "--directory, or make one with `fedcredit coordinator init`."
        ) from None
    except OSError as error:
        raise RefusalError(
            f"{path.name} cannot be opened ({error.strerror}). The coordinator should give this program permission "
            "to read its directory.",
            RefusalCode.INTERNAL,
        ) from None
    except NotSettingsError as error:
        raise MalformedError(
            f"{path.name} is not a coordinator's settings: {error}. Every key is needed and none has a default; the "
            "coordinator should correct the file."
        ) from None
    if settings.fleet.port == settings.fleet.superlink_port:
        raise MalformedError(
            f"{path.name}: fleet.port and fleet.superlink_port are one, so data holders would meet SuperLink itself. "
            "The coordinator should choose another superlink_port."
        )
    return settings


def parse_settings(text: str) -> CoordinatorSettings:
    """The settings that `text` writes; raises what TOML or msgspec finds wrong."""
    return msgspec.convert(tomllib.loads(text), CoordinatorSettings, strict=True)
