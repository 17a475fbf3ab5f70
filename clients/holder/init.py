"""A new data holder's directory: fresh keys, settings with every key explained, and a notice to finish."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clients.holder.desk import read_file
from clients.holder.keys import HolderKeys
from clients.holder.policy import ANSWERED, own_bundle
from clients.holder.settings import HolderSettings
from federated.files import write_whole
from federated.recipes.base import RecipeName
from federated.toml_table import BLANK
from federated.trust import TrustModel
from privacy.consent.limits import ServiceUrl
from privacy.consent.linking import only_certificates
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

SETTINGS, NOTICE, CERTIFICATES, KEYS = "holder.toml", "notice.txt", "registry-ca.pem", "keys"
_LARGEST_CA = 1 << 16  # bytes
_TRUSTED = (TrustModel.SHARED_NOISE, TrustModel.HOLDER_NOISE)  # neither needs trust in the coordinator


@dataclass(frozen=True, slots=True)
class Start:
    """What a new data holder must know about itself and the parties it will meet; keys as 64 hexadecimal digits."""

    holder: str
    registry_url: str
    registry_key: str
    registry_ca: Path | None
    coordinator: str
    coordinator_key: str
    jurisdiction: str
    language: str
    contact: str
    side_door: str


def make_directory(directory: Path, start: Start) -> SigningKey:
    """Write a data holder's directory and return its identity. Nothing that is there is overwritten.

    UsageError if any of the files exists or if `start` gives no settings; RefusalError if the disk is full.
    """
    for name in (SETTINGS, NOTICE, CERTIFICATES, KEYS):
        if (directory / name).exists():
            raise UsageError(
                f"{directory / name} exists and is left as it is: a data holder's keys are made once. Name a new "
                "directory."
            )
    settings = _settings(start)
    notice = _NOTICE.format(
        holder=start.holder, coordinator=start.coordinator, contact=start.contact or f"{BLANK}: who and where"
    )
    certificates = None if start.registry_ca is None else _certificates(start.registry_ca)
    keys = HolderKeys(SigningKey.generate(), {1: LaneKey.generate()})
    try:
        (directory / KEYS).mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise RefusalError(
            f"{directory / KEYS} could not be made ({error.strerror}). Give write permission or name another "
            "directory, then run the command again.",
            RefusalCode.INTERNAL,
        ) from None
    keys.save(directory / KEYS)
    if certificates is not None:
        write_whole(directory / CERTIFICATES, certificates.encode())
    write_whole(directory / NOTICE, notice.encode())
    write_whole(directory / SETTINGS, settings.encode())  # last: a directory without it is no data holder's
    return keys.identity


def _settings(start: Start) -> str:
    for option, url in (("--registry-url", start.registry_url), ("--side-door", start.side_door)):
        try:
            # Wallets read it too, and their rule is the narrower one.
            msgspec.convert(url or None, ServiceUrl | None)
        except msgspec.ValidationError:
            raise UsageError(
                f"{option} must be https://host, with a port and a path if need be and without a final slash, or "
                "http://127.0.0.1 on one machine. Correct it; nothing was made."
            ) from None
    text = _SETTINGS.format(
        holder=_quoted(start.holder),
        url=_quoted(start.registry_url),
        key=_quoted(start.registry_key),
        ca=_quoted("" if start.registry_ca is None else CERTIFICATES),
        jurisdiction=_quoted(start.jurisdiction),
        language=_quoted(start.language),
        side_door=_quoted(start.side_door),
        coordinator=_quoted(start.coordinator),
        coordinator_key=_quoted(start.coordinator_key),
        bundle=_quoted(own_bundle()),
        purposes=", ".join(_quoted(purpose.value) for purpose in ANSWERED),
        recipes=", ".join(_quoted(name.value) for name in RecipeName),
        trust_models=", ".join(_quoted(trust.value) for trust in _TRUSTED),
    )
    try:
        msgspec.convert(tomllib.loads(text), HolderSettings, strict=True)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        # Its text names the place and the pattern, and no value.
        raise UsageError(f"what was given makes no settings: {error}. Correct that option; nothing was made.") from None
    return text


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return msgspec.json.encode(text).decode()


def _certificates(path: Path) -> str:
    try:
        return only_certificates(read_file(path, what="the registry's certificates in PEM", most=_LARGEST_CA).decode())
    except UnicodeDecodeError:
        raise MalformedError(
            f"{path.name} is not PEM text; ask the registry's operator for its certificates again."
        ) from None


_NOTICE = """\
Consent to the use of your records at {holder}

What for. You choose for each purpose: to train a credit scorecard together with other data holders; to check how good
it is; to have your score computed for a lender that you name. Saying yes to one is not saying yes to another.

What leaves {holder}. Your records never do. For training and checking, {coordinator} receives sums over many
people with noise added, within the privacy budget that you set. For a score, the lender that you name receives the
score and the reasons for it.

How long. Until the date that you choose, at most 400 days. You can change, freeze or withdraw at any time from your
own device, in one step and without giving reasons; it takes effect at the next sync, usually within a minute. Saying
no has no disadvantage. Results computed before are not undone.

Erasure. Ask {holder} and everything about your consent is erased; what remains are random-looking entries in a log.

Questions and complaints: {contact}
"""

_SETTINGS = """\
# A data holder's settings. Every key is needed, none has a default, and unknown keys are refused.
# Files are named relative to this one.
version = 1

# This data holder's id: also the name of its lane at the consent registry, and what people's records are addressed to.
holder = {holder}

# The schema all parties agreed on (fedcredit schema check SCHEMA TABLE), and the tables in this data holder's house:
# the sample that models are developed on, and people whom no model has seen, for measuring it. A table's name ends in
# .csv, .csv.gz, .parquet or .sql.toml, which names a database and what to ask it.
schema = "schema.toml"
rows = "rows.csv"
held_out = "held_out.csv"

[registry]
# Where the consent registry serves: https, or http to this machine alone.
url = {url}
# Its public key (64 hexadecimal digits), which signs every checkpoint and promise. Get it from its operator by a
# second way and compare.
key = {key}
# File with the certificates (PEM) that vouch for its address; "" is the system's own trust.
ca = {ca}

[desk]
# What people are offered when they link a wallet: the law that holds (ISO 3166 country), the notice's language,
jurisdiction = {jurisdiction}
language = {language}
# the text they read before they say yes, and its name. A changed text needs a new name: records refer to both.
notice = "notice.txt"
notice_id = "notice-1"
# Where people can hand in a withdrawal directly if the registry does not take it (fedcredit holder side-door), as they
# reach it from outside; "" is nowhere.
side_door = {side_door}

[policy]
# Who may plan runs, and the keys (64 hexadecimal digits each) of which one signs its plans. Get each from its owner by
# a second way and compare. While the coordinator changes its key, both are here; an old one stays until nobody audits
# the runs that it planned any more.
coordinator = {coordinator}
coordinator_keys = [{coordinator_key}]
# The versions of the coordinator's program that we answer over the network, each by the digest of its app bundle (64
# hexadecimal digits). Nothing of a bundle ever runs here: answers come from the toolkit that is installed here alone.
# What is written is the digest of the version that made this file; `fedcredit holder check` tells that of the version
# that is installed now. [] answers nobody.
bundles = [{bundle}]
# What letters may ask rows for: "train" (rounds), "validate" (measuring the result on held-out people; a run needs
# both) and "score" (points of people who apply for credit). Each person's own consent is needed besides.
purposes = [{purposes}]
# The ways of training that are allowed here.
recipes = [{recipes}]
# Whom a plan may ask us to trust. "shared_noise": each data holder adds its part of one noise, and the coordinator sees
# sums only; "holder_noise": we add all the noise that our people need, and the coordinator sees our updates;
# "coordinator_noise": the coordinator adds the noise and sees exact sums over the data holders.
trust_models = [{trust_models}]
# The most that one run may cost one person, whatever the person's own budget would still allow.
largest_epsilon = 1.0
largest_delta = 1e-5
# A plan that may begin with fewer data holders than this is refused: a sum over few says more about each of them.
fewest_holders = 2
# With fewer permitted people than this, this data holder sits the run out.
fewest_people = 30
# A number that all data holders agree on: no more people than this are in all their tables together. A plan whose sums
# have room for fewer is refused, and so is every run while one of our tables holds more rows than this: otherwise
# a sum that runs over would tell something about the people in it.
most_people = 1_000_000
# How many runs the coordinator may open in 24 hours. Each tells it whether enough people are permitted, for nothing;
# opening the same run again tells nothing new and is not counted.
most_openings_per_day = 24
# The hours (UTC) in which letters are answered, the end excluded; "22:00-06:00" goes over midnight, "00:00-24:00" is
# always. A run that is not over by then waits, or goes on without us.
hours = "00:00-24:00"
# An answer that takes more seconds than this is broken off: nothing is sent.
answer_within_s = 300
# By how many seconds any two parties' clocks may differ.
clock_skew_s = 120
# While the registry cannot be reached, for how many seconds the last sync will do to read rows and to score people: so
# long may a withdrawal go unheard there. Nothing new is ever released without a sync that succeeds at that moment.
longest_lane_age_s = 60
# While it can be reached, how many seconds old a sync may be before rows are read or anybody is scored.
sync_every_s = 15
# For experiments on public data only: whatever a seed has touched is NOT PRIVATE.
accept_seeded_noise = false

[policy.peers]
# The other data holders whose sums and noise are shared with ours, one a line: id = "identity key in 64 hexadecimal
# digits". Get each key from its owner. A roster that names anybody else is refused.
"""
