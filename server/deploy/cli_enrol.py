"""`fedcredit coordinator enroll` and `certificates`: who takes part, and the certificates that they connect by."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privacy.errors import RefusalCode, RefusalError, UsageError

if TYPE_CHECKING:
    from server.deploy.members import Member
    from server.deploy.settings import Home

PATH = click.Path(path_type=Path)

_directory_option = click.option(
    "--directory", type=PATH, default=Path(), show_default=True, help="The coordinator's directory."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.command(epilog="Example: fedcredit coordinator enroll request.json --out welcome.json --directory open-scoring")
@click.argument("request_file", metavar="[REQUEST]", type=PATH, required=False)
@click.option("--fingerprint", default=None, help="The request's fingerprint as the data holder read it out to you.")
@click.option("--out", type=PATH, default=None, help="File for the welcome; with --all, a directory.")
@click.option("--again", is_flag=True, help="Take back a data holder that was revoked.")
@click.option("--welcome", "welcomed", metavar="HOLDER", default=None, help="Write HOLDER a fresh welcome.")
@click.option("--all", "everybody", is_flag=True, help="Write everybody who is enrolled a fresh welcome.")
@click.option("--revoke", metavar="HOLDER", default=None, help="Shut HOLDER out, from now on.")
@click.option("--list", "listed", is_flag=True, help="Tell who is enrolled, since when, and who was revoked.")
@_directory_option
@_json_option
def enroll(
    request_file: Path | None, fingerprint: str | None, out: Path | None, again: bool, welcomed: str | None,
    everybody: bool, revoke: str | None, listed: bool, directory: Path, as_json: bool,
) -> None:  # fmt: skip
    """Enrol the data holder that wrote REQUEST (fedcredit holder join --request) and write its welcome.

    Ring the data holder up at a number that you had before, and let it read out its fingerprint: give that as
    --fingerprint, or type it when asked. The welcome is no secret; send it back. Once somebody joins, changes keys or
    leaves, and after every new version or certificate authority, send everybody a fresh one (--all).
    """
    chosen = [request_file is not None, welcomed is not None, everybody, revoke is not None, listed]
    if sum(chosen) != 1:
        raise UsageError("Give one of: a request, --welcome HOLDER, --all, --revoke HOLDER, --list.")
    if request_file is None and (fingerprint is not None or again):
        raise UsageError("--fingerprint and --again go with a request; give its file too.")
    if (out is not None) == (revoke is not None or listed):
        raise UsageError("--out says where welcomes go: give it with a request, --welcome or --all, and only then.")
    from server.deploy.settings import Home

    home = Home.open(directory)
    if request_file is not None and out is not None:
        _enrol(home, request_file, fingerprint, out, again=again, as_json=as_json)
    elif out is not None:
        _welcome(home, welcomed, out, as_json=as_json)
    elif revoke is not None:
        _revoke(home, revoke, as_json=as_json)
    else:
        _list(home, as_json=as_json)


@click.command(epilog="Example: fedcredit coordinator certificates --renew --directory open-scoring")
@click.option("--renew", is_flag=True, help="Make the proxy's and SuperLink's certificates anew, with new keys.")
@click.option("--new-ca", is_flag=True, help="Make the authority that will follow; both are trusted meanwhile.")
@click.option("--drop-old-ca", is_flag=True, help="End that: only the new authority is left.")
@_directory_option
@_json_option
def certificates(renew: bool, new_ca: bool, drop_old_ca: bool, directory: Path, as_json: bool) -> None:
    """How long each certificate is still good; exit code 3 when one has run out.

    Renew every two months: data holders notice nothing. To replace the authority, or if its key or the proxy's may have
    been seen by others: --new-ca, a fresh welcome to everybody (enroll --all), and once they have taken it
    --drop-old-ca, then fresh welcomes once more. After each of these restart `fedcredit coordinator serve`.
    """
    if renew + new_ca + drop_old_ca > 1:
        raise UsageError("--renew, --new-ca and --drop-old-ca are steps of their own; give one at a time.")
    from server.deploy import tls
    from server.deploy.settings import Home

    home, at = Home.open(directory), _now()
    lines = []
    if renew:
        tls.renew(directory, at, host=home.settings.fleet.name)
        lines = ["Renewed. Restart `fedcredit coordinator serve`; data holders need to do nothing."]
    elif new_ca:
        tls.new_ca(directory, at)
        lines = [
            "A new authority is made, and the earlier one still holds. Send everybody a fresh welcome (fedcredit "
            "coordinator enroll --all --out DIR); when all have taken it: --drop-old-ca."
        ]
    elif drop_old_ca:
        late = _not_welcomed_since(home, tls.overlap_since(directory))
        tls.drop_old_ca(directory, at)
        lines = [
            "The new authority alone is left. Restart `fedcredit coordinator serve`, and send fresh welcomes: until "
            "they take one, data holders trust the earlier authority too."
        ]
        if late:
            lines.append(f"Written no welcome since the new authority was made, so shut out until then: {late}.")
    told = tls.validities(directory, at)
    ended = [one for one in told if not one.in_force]
    facts = {"certificates": [
        {"file": one.file, "role": one.role, "ends": _utc(one.ends), "days_left": one.days_left,
         "in_force": one.in_force} for one in told
    ]}  # fmt: skip
    for one in told:
        state = f"{one.days_left:5d} days left" if one.in_force else "  not in force"
        due = "  renew now" if one.in_force and one.days_left <= tls.SOON_DAYS else ""
        lines.append(f"{one.file:14}{state}, until {_utc(one.ends)}  {one.role}{due}")
    _tell(as_json, facts, *lines)
    if ended:
        raise RefusalError(
            f"{len(ended)} of {len(told)} certificates are not in force at this machine's time ({_utc(at)}), so data "
            "holders cannot connect. If the clock is right, the coordinator should run this command with --renew, or "
            "with --new-ca if the authority itself has run out.",
            RefusalCode.POLICY,
        )


def _enrol(home: "Home", path: Path, fingerprint: str | None, out: Path, *, again: bool, as_json: bool) -> None:
    from federated.app_bundle import digest
    from federated.files import write_whole
    from server.deploy import enrolment
    from server.deploy.members import Admission

    def ask(holder: str, expected: str) -> str:
        if fingerprint is not None:
            return fingerprint
        click.echo(f"{holder} asks to join. The fingerprint of its request: {expected}", err=True)
        click.echo("Ring it up at a number that you had before, and let it read out its own.", err=True)
        answer: str = click.prompt("What it reads out", err=True)
        return answer

    enrolment.check_place(out)
    welcomes = enrolment.Welcomes.of(home, bundle=digest())  # all that can go wrong does before anybody is rung up
    data, at = enrolment.read_file(path), _now()
    done = enrolment.enrol(home, data, ask=ask, again=again, at=at)
    write_whole(out, welcomes.to(done.holder, at=at))
    words = {
        Admission.NEW: f"{done.holder} is enrolled.",
        Admission.AGAIN: f"{done.holder} is enrolled once more.",
        Admission.NEW_NODE_KEY: f"{done.holder} has a new node key; its earlier one is no longer let in.",
        Admission.UNCHANGED: f"{done.holder} was enrolled with these keys before; nothing has changed.",
    }
    _tell(
        as_json,
        {"holder": done.holder, "fingerprint": done.fingerprint, "change": done.admission.value, "welcome": str(out)},
        f"{words[done.admission]} Its welcome is in {out}: send it back, any way will do.",
        "The others learn of it by a fresh welcome: fedcredit coordinator enroll --all --out DIR"
        if done.admission in (Admission.NEW, Admission.AGAIN)
        else "It takes the welcome with `fedcredit holder join`, then starts `fedcredit holder serve` again.",
    )


def _welcome(home: "Home", holder: str | None, out: Path, *, as_json: bool) -> None:
    from federated.app_bundle import digest
    from federated.files import write_whole
    from server.deploy import enrolment
    from server.deploy.members import Members

    if holder is None:
        enrolment.make_directory(out)
        files = {name: out / f"{name}.json" for name in sorted(Members(home.directory).current())}
        if not files:
            raise UsageError("nobody is enrolled, so there is nobody to welcome. Enrol a data holder's request first.")
    else:
        files = {holder: out}
    for file in files.values():
        enrolment.check_place(file)
    welcomes = enrolment.Welcomes.of(home, bundle=digest())
    for name, file in files.items():
        write_whole(file, welcomes.to(name, at=_now()))
    _tell(
        as_json,
        {"welcomes": {name: str(file) for name, file in files.items()}},
        *(f"welcome for {name} written to {file}" for name, file in files.items()),
        "Each takes its own with `fedcredit holder join FILE`.",
    )


def _revoke(home: "Home", holder: str, *, as_json: bool) -> None:
    from server.deploy.members import Members

    changed = Members(home.directory).revoke(holder, at=_now())
    _tell(
        as_json,
        {"revoked": holder, "before": not changed},
        f"{holder} is shut out from now on." if changed else f"{holder} was revoked before; nothing has changed.",
        "Plans name their data holders, so make a new one without it. The others should take it off their policies: "
        "fresh welcomes (fedcredit coordinator enroll --all --out DIR) no longer name it.",
    )


def _list(home: "Home", *, as_json: bool) -> None:
    from federated.enrolment import fingerprint_of
    from server.deploy.members import Members

    members = Members(home.directory).load()
    facts, lines = [], []
    for holder, member in sorted(members.items()):
        shown = fingerprint_of(holder, member.identity, member.node_key)
        facts.append(
            {"holder": holder, "identity": member.identity, "fingerprint": shown, "enrolled": _utc(member.enrolled),
             "revoked": _utc_or_none(member.revoked), "welcomed": _utc_or_none(member.welcomed)}
        )  # fmt: skip
        lines.append(f"{holder:24} {shown}  since {_utc(member.enrolled)}{_ended(member)}")
    _tell(as_json, {"members": facts}, *(lines or ["Nobody is enrolled yet."]))


def _ended(member: "Member") -> str:
    return "" if member.revoked is None else f"  REVOKED {_utc(member.revoked)}"


def _not_welcomed_since(home: "Home", since: int | None) -> str:
    from server.deploy.members import Members

    current = Members(home.directory).current()
    return ", ".join(sorted(h for h, member in current.items() if since and (member.welcomed or 0) < since))


def _tell(as_json: bool, facts: dict[str, Any], *lines: str) -> None:
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for line in lines:
            click.echo(line)


def _now() -> int:
    return int(time.time())


def _utc(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _utc_or_none(at: int | None) -> str | None:
    return None if at is None else _utc(at)
