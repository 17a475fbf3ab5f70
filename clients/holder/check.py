"""Everything that a data holder needs before it serves, looked at one by one; nothing is changed.

Nobody is asked anything but the registry, and that for the lane's newest head alone.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from clients.holder.check_network import network
from clients.holder.check_stores import Table, stores
from clients.holder.desk import read_file
from clients.holder.finding import Finding, attempt, failure, ok, problem, warning
from clients.holder.gate import listed_in
from clients.holder.keys import HolderKeys
from clients.holder.policy import in_hours, own_bundle
from clients.holder.settings import HolderSettings, load_settings
from clients.holder.terms import NEEDED
from federated.schema import Schema
from federated.schema_toml import load_schema
from federated.toml_table import BLANK
from federated.trust import TrustModel
from privacy.consent.linking import fingerprint
from privacy.errors import FedcreditError, UsageError

_LARGEST_NOTICE = 1 << 16  # bytes
_OTHERS = 0o077


def findings(directory: Path, *, at: int, ask_registry: bool) -> list[Finding]:
    """All of them, in the order in which they are mended. UsageError if `directory` is none."""
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory. Name the data holder's own with --directory.")
    found: list[Finding] = []
    settings = attempt(found, "settings", lambda: load_settings(directory / "holder.toml"))
    if settings is None:
        return found
    found.append(ok("settings", f"{settings.holder}, for plans of {settings.policy.coordinator}"))
    keys = attempt(found, "keys", lambda: HolderKeys.load(directory / "keys"))
    if keys is not None:
        found.append(_keys(directory / "keys", keys))
    found += _policy(settings, at)
    found.append(_bundles(settings))
    found.append(_notice(directory, settings))
    schema = attempt(found, "schema", lambda: load_schema(directory / settings.schema))
    tables: list[Table] = []
    if schema is not None:
        found.append(ok("schema", f"{schema.name}, digest {schema.digest[:16]}..."))
        tables = _read(found, directory, settings, schema)
        found += _tables(settings, schema, tables)
    head = None
    if keys is not None and schema is not None:
        kept, head = stores(directory, settings, schema, keys, tables, at=at)
        found += kept
    found += network(directory, settings, head, at=at, ask_registry=ask_registry)
    return found


def _keys(directory: Path, keys: HolderKeys) -> Finding:
    told = f"identity {fingerprint(keys.identity.public)}; lane key of epoch {keys.current}"
    try:
        readable = sorted(path.name for path in directory.glob("*.key") if path.stat().st_mode & _OTHERS)
    except OSError:
        readable = []
    if readable:
        return problem("keys", f"others can read {', '.join(readable)}", f"chmod 600 {directory}/*; keep it so.")
    return ok("keys", told)


def _policy(settings: HolderSettings, at: int) -> Iterator[Finding]:
    policy = settings.policy
    lacking = [purpose.value for purpose in NEEDED if purpose not in policy.purposes]
    if lacking:
        yield warning(
            "policy",
            f"policy.purposes lacks {' and '.join(lacking)}, so every plan is refused",
            "Add them if this data holder is to take part in training.",
        )
    if not policy.peers:
        yield warning(
            "policy",
            "policy.peers names nobody, so every plan with another data holder is refused",
            "Get each other data holder's identity key from its owner and add it there.",
        )
    if TrustModel.COORDINATOR_NOISE in policy.trust_models:
        yield warning(
            "policy",
            "plans may let the coordinator see exact sums (coordinator_noise)",
            "Take it out of policy.trust_models unless the coordinator is to be trusted with them.",
        )
    if policy.accept_seeded_noise:
        yield warning(
            "policy",
            "noise from a seed is accepted: whatever it touches is NOT PRIVATE",
            "Set policy.accept_seeded_noise = false wherever rows are about real people.",
        )
    if not in_hours(policy.hours, at=at):
        yield warning("policy", f"nothing is answered now, only at {policy.hours} UTC", "Wait, or set policy.hours.")
    yield ok(
        "policy",
        f"at most epsilon {policy.largest_epsilon:g} at delta {policy.largest_delta:g} a run and person; "
        f"{policy.fewest_people} people and {policy.fewest_holders} data holders or more; hours {policy.hours} UTC",
    )


def _bundles(settings: HolderSettings) -> Finding:
    own, allowed = own_bundle(), settings.policy.bundles
    if own in allowed:
        return ok("app bundle", f"policy.bundles has this version's, {own}")
    return warning(
        "app bundle",
        f"policy.bundles lacks this version's, {own}" if allowed else "policy.bundles is empty: nobody is answered",
        f'Ask the coordinator which version it runs. If it is this one, add "{own}" to policy.bundles.',
    )


def _notice(directory: Path, settings: HolderSettings) -> Finding:
    name = settings.desk.notice
    try:
        text = read_file(directory / name, what="the notice that people read", most=_LARGEST_NOTICE).decode()
    except FedcreditError as error:
        return failure("notice", error)
    except UnicodeDecodeError:
        return problem("notice", f"{name} is not UTF-8 text", "Save it as UTF-8.")
    if not text.strip() or BLANK in text:
        found = f"{name} still says {BLANK}" if BLANK in text else f"{name} is empty"
        return problem("notice", found, "Finish the text: people agree to what stands there.")
    return ok("notice", f"{name}, as {settings.desk.notice_id}")


def _read(found: list[Finding], directory: Path, settings: HolderSettings, schema: Schema) -> list[Table]:
    tables = []
    for name in (settings.rows, settings.held_out):
        path = directory / name
        listed = attempt(found, "tables", partial(listed_in, path, schema, named=True))
        if listed is not None:
            tables.append(Table(name, listed))
    return tables


def _tables(settings: HolderSettings, schema: Schema, tables: list[Table]) -> Iterator[Finding]:
    policy = settings.policy
    for table in tables:
        rows = f"{table.name} has {table.listed.rows:,} rows"
        if not table.listed.has_outcome and set(NEEDED) <= set(policy.purposes):
            yield problem(
                "tables",
                f"{table.name} has no column of outcomes ({schema.outcome.column}), so every run is refused",
                "Add it, or take train and validate out of policy.purposes if rows are only to be scored.",
            )
        if table.listed.rows > policy.most_people:
            yield problem(
                "tables",
                f"{rows}, more than policy.most_people ({policy.most_people:,})",
                "Agree on a larger bound with the other data holders and the coordinator.",
            )
        elif table.listed.rows < policy.fewest_people:
            yield problem(
                "tables",
                f"{rows}, fewer than policy.fewest_people ({policy.fewest_people:,})",
                "Put more rows there, or lower policy.fewest_people.",
            )
        else:
            yield ok("tables", f"{rows}; what its cells hold, fedcredit schema check tells")
    if len(tables) == 2 and (both := len(tables[0].listed.customers & tables[1].listed.customers)):
        yield warning(
            "tables",
            f"{both:,} customers are in both tables",
            "They are trained on and never measured. Take them out of one table if that is not meant.",
        )
