"""The federation's own certificate authority, and the two certificates it vouches for: the proxy's and SuperLink's.

Everything lies in `tls/`, whose names lead through one link, `tls/current`, to a folder that holds one whole set of
certificates and keys. A change writes a new folder and then turns the link, which the file system does at once: a
program that is killed, or a disk that is full, leaves the earlier set or the new one, and never a certificate beside
the key of another.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from federated.certificates import certificate_pem, certify, days_left, in_force, key_pem, read_certificates
from federated.files import write_whole
from federated.lock import alone
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

CA_DAYS: Final = 1095
SERVER_DAYS: Final = 90
SOON_DAYS: Final = 21
"""A certificate that runs out within so many days is due for renewal."""

CA, CA_KEY, NEXT_CA_KEY = "ca.pem", "ca.key", "ca-next.key"
FLEET, FLEET_KEY, SUPERLINK, SUPERLINK_KEY = "fleet.pem", "fleet.key", "superlink.pem", "superlink.key"
_LOCAL: Final = ("127.0.0.1", "localhost")
_CURRENT, _LOCK = "current", "lock"
_SET: Final = re.compile(r"set-([1-9][0-9]{0,8})\Z")
_AUTHORITY_CURVE: Final = ec.SECP384R1()
_SERVER_CURVE: Final = ec.SECP256R1()  # a handshake costs half as much, and such a key lives for 90 days

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Validity:
    """One certificate of the set: in which file, what it is for, and until when (UTC seconds)."""

    file: str
    role: str
    ends: int
    days_left: int
    in_force: bool


def make_tls(directory: Path, host: str, at: int) -> Path:
    """Make the authority and both certificates in `directory`/tls; `host` is how data holders reach the proxy.

    UsageError if there is one already: data holders trust it.
    """
    tls = directory / "tls"
    if (tls / CA_KEY).exists() or (tls / _CURRENT).exists():
        raise UsageError(
            f"{tls} holds the federation's certificates already, which data holders trust. To change them: "
            "`fedcredit coordinator certificates --renew` or `--new-ca`."
        )
    _mkdir(tls)
    with _alone(tls):
        ca, key = _new_authority(at)
        _store(tls, {CA: certificate_pem(ca), CA_KEY: key_pem(key), **_servers(ca, key, host, at)})
    return tls


def renew(directory: Path, at: int, *, host: str | None = None) -> None:
    """Make both server certificates anew, with new keys; `host` is None where it stays as it is.

    The authority stays, so no data holder notices. RefusalError if the authority itself has run out.
    """
    with _changing(directory) as (tls, files):
        ca, key = _authority(files)
        _require_in_force(ca, at)
        _store(tls, files | _servers(ca, key, host or _host(files), at))


def new_ca(directory: Path, at: int) -> None:
    """Make the authority that will follow. From now on both are in ca.pem; the earlier one still certifies.

    RefusalError if such an overlap has begun already.
    """
    with _changing(directory) as (tls, files):
        if NEXT_CA_KEY in files:
            raise RefusalError(
                "a new authority was made before and the earlier one still holds. Send every data holder a fresh "
                "welcome (`fedcredit coordinator enroll --all --out DIR`), and when they have taken it end the overlap "
                "with `--drop-old-ca`.",
                RefusalCode.POLICY,
            )
        ca, key = _new_authority(at)
        _store(tls, files | {CA: files[CA] + certificate_pem(ca), NEXT_CA_KEY: key_pem(key)})


def drop_old_ca(directory: Path, at: int) -> None:
    """End the overlap: the new authority alone remains and certifies proxy and SuperLink; the old key is removed."""
    with _changing(directory) as (tls, files):
        if NEXT_CA_KEY not in files:
            raise RefusalError(
                "there is one authority only, so none can be dropped. Make its successor first with `--new-ca`, and "
                "send every data holder a fresh welcome.",
                RefusalCode.POLICY,
            )
        key = _key(files[NEXT_CA_KEY])
        ca = _certificate_of(files[CA], key)
        _require_in_force(ca, at)
        kept = {name: content for name, content in files.items() if name != NEXT_CA_KEY}
        kept |= {CA: certificate_pem(ca), CA_KEY: files[NEXT_CA_KEY]}
        _store(tls, kept | _servers(ca, key, _host(files), at))


def authorities_pem(directory: Path) -> str:
    """What data holders are to trust: the authority in PEM, and during an overlap its successor too."""
    files = _load(directory / "tls")
    _authority(files)
    return files[CA].decode("ascii")


def validities(directory: Path, at: int) -> list[Validity]:
    """How long each certificate is still good, the authority's first. MalformedError or RefusalError if unreadable."""
    files = _load(directory / "tls")
    ca, _ = _authority(files)
    told = []
    for certificate in read_certificates(files[CA], what=CA):
        role = "vouches for the others" if certificate == ca else "will vouch for the others"
        told.append(_validity(CA, role, certificate, at))
    for name, role in ((FLEET, "proxy, which data holders reach"), (SUPERLINK, "SuperLink, behind the proxy")):
        told.append(_validity(name, role, read_certificates(files[name], what=name)[0], at))
    return told


def overlap_since(directory: Path) -> int | None:
    """When the authority that will follow was made (UTC seconds); None where no overlap has begun."""
    files = _load(directory / "tls")
    if NEXT_CA_KEY not in files:
        return None
    ca = _certificate_of(files[CA], _key(files[NEXT_CA_KEY]))
    return int(ca.not_valid_before_utc.timestamp()) + 3600  # it begins an hour before it was made


def _validity(file: str, role: str, certificate: x509.Certificate, at: int) -> Validity:
    ends = int(certificate.not_valid_after_utc.timestamp())
    return Validity(file, role, ends, days_left(certificate, at=at), in_force(certificate, at=at))


def _new_authority(at: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(_AUTHORITY_CURVE)
    # Two authorities stand beside each other during an overlap: by their names people can tell which is which.
    name = f"fedcredit federation {datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    ca = certify(
        key.public_key(), name=name, hosts=(), signs_others=True, key=key, issuer=None, at=at, days=CA_DAYS
    )  # fmt: skip
    return ca, key


def _servers(ca: x509.Certificate, key: ec.EllipticCurvePrivateKey, host: str, at: int) -> Files:
    def issue(name: str, hosts: Sequence[str]) -> tuple[bytes, bytes]:
        own = ec.generate_private_key(_SERVER_CURVE)
        # Not beyond the authority's own end, when connections would fail anyway, without anybody being told why.
        days = min(SERVER_DAYS, days_left(ca, at=at))
        certificate = certify(
            own.public_key(), name=name, hosts=hosts, signs_others=False, key=key, issuer=ca, at=at, days=days
        )  # fmt: skip
        return certificate_pem(certificate), key_pem(own)

    fleet, fleet_key = issue("fedcredit fleet", (host, *_LOCAL))
    superlink, superlink_key = issue("fedcredit SuperLink", _LOCAL)
    return {FLEET: fleet, FLEET_KEY: fleet_key, SUPERLINK: superlink, SUPERLINK_KEY: superlink_key}


def _host(files: Files) -> str:
    """The first name in the fleet's certificate: the one that data holders dial."""
    if FLEET not in files:
        raise _broken(f"{FLEET} is not there")
    fleet = read_certificates(files[FLEET], what=FLEET)[0]
    names = fleet.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(next(iter(names)).value)


def _authority(files: Files) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = _key(files[CA_KEY])
    return _certificate_of(files[CA], key), key


def _certificate_of(pem: bytes, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    for certificate in read_certificates(pem, what=CA):
        if certificate.public_key() == key.public_key():
            return certificate
    raise _broken(f"{CA} holds no certificate for the authority's key")


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _broken("the authority's key cannot be read")
    return key


def _require_in_force(ca: x509.Certificate, at: int) -> None:
    if not in_force(ca, at=at) or days_left(ca, at=at) < 1:
        raise RefusalError(
            "the authority's own certificate runs out today, has run out, or its time has not come: what it signs now "
            "nobody would believe. If this machine's clock is right, the coordinator should make a new one with "
            "`--new-ca`, end the overlap with `--drop-old-ca`, and send every data holder a fresh welcome.",
            RefusalCode.POLICY,
        )


def _load(tls: Path, *, needed: Sequence[str] = (FLEET, FLEET_KEY, SUPERLINK, SUPERLINK_KEY)) -> Files:
    """The set that holds: the authority's files, those that are `needed`, and of the others what is there."""
    # Through one folder that is resolved first: a change in between cannot mix two sets.
    folder = (tls / _CURRENT).resolve() if (tls / _CURRENT).is_dir() else tls
    try:
        files = {name: (folder / name).read_bytes() for name in (CA, CA_KEY, *needed)}
        for name in (FLEET, FLEET_KEY, SUPERLINK, SUPERLINK_KEY, NEXT_CA_KEY):
            if (folder / name).exists():
                files[name] = (folder / name).read_bytes()
    except OSError as error:
        if folder != tls and folder != (tls / _CURRENT).resolve():  # changed meanwhile, and the earlier set is gone
            return _load(tls, needed=needed)
        raise _broken(f"{Path(error.filename or tls).name} cannot be read ({error.strerror})") from None
    return files


def _store(tls: Path, files: Files) -> None:
    """Make `files` the set that holds, and remove the others."""
    taken = [int(found[1]) for path in tls.iterdir() if (found := _SET.match(path.name))]
    folder = tls / f"set-{max(taken, default=0) + 1}"
    _mkdir(folder)
    for name, content in files.items():
        write_whole(folder / name, content, secret=name.endswith(".key"))
    try:
        _turn(tls, folder.name)
        for name in files:
            _link(tls / name, f"{_CURRENT}/{name}")
        for path in tls.iterdir():
            if path.is_symlink() and not path.exists():  # a name that the new set no longer has
                path.unlink()
            elif _SET.match(path.name) and path != folder:
                shutil.rmtree(path)
    except OSError as error:
        raise _unwritable(tls, error) from None


def _turn(tls: Path, name: str) -> None:
    current = tls / _CURRENT
    if current.is_dir() and not current.is_symlink():
        # A copy of the directory that followed links. The same files lie under their own names too.
        current.rename(tls / f"{name}0")
    _link(current, name)
    descriptor = os.open(tls, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(path: Path, target: str) -> None:
    if path.is_symlink() and os.readlink(path) == target:  # noqa: PTH115 (a text, not a path)
        return
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _mkdir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unwritable(path, error) from None


@contextmanager
def _changing(directory: Path) -> Iterator[tuple[Path, Files]]:
    tls = directory / "tls"
    if not tls.is_dir():
        raise _broken("there is no folder tls")
    with _alone(tls):
        yield tls, _load(tls, needed=())


@contextmanager
def _alone(tls: Path) -> Iterator[None]:
    with alone(tls / _LOCK, "another command is changing the certificates now; run this one again when it is done."):
        yield


def _unwritable(path: Path, error: OSError) -> RefusalError:
    return RefusalError(
        f"{path.name} could not be written ({error.strerror}); the certificates that were there still hold. Make room "
        "or give write permission, then run the command again.",
        RefusalCode.INTERNAL,
    )


def _broken(found: str) -> MalformedError:
    return MalformedError(
        f"the federation's certificates are not whole: {found}. The coordinator should restore the folder tls from the "
        "copy kept safe; a new federation gets it from `fedcredit coordinator init`."
    )
