"""What `fedcredit doctor` looks at in a certificate: its key, its dates, who vouches for it, and for which names."""

import ssl
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from federated.doctor import Verdict, ok, problem, warning

FEW_DAYS: Final = 14
_DAY_S: Final = 86_400


def certificate(
    path: Path, *, at: int, mend: str, key: Path | None = None, ca: Path | None = None, host: str | None = None
) -> Verdict:
    """A certificate file (PEM) at the instant `at`, with its private key, its authorities' file and a host name.

    What is None is not looked at. `mend` says how a new one is had.
    """
    if not (found := _read(path)):
        return problem(f"{path.name} is no readable certificate in PEM", mend)
    leaf = found[0]
    chain = [leaf]
    if key is not None and (wrong := _wrong_key(leaf, key)):
        return problem(wrong, mend)
    if ca is not None:
        # While an authority is changed, the old one and the new one are in the file.
        issuers = [one for one in _read(ca) if _issued(leaf, one)]
        if not issuers:
            return problem(f"{path.name} was not issued by any authority in {ca.name}", mend)
        chain.append(issuers[0])
    if host is not None and not _covers(leaf, host):
        return problem(f"{path.name} is not for {host}, but for {_names(leaf) or 'no name'}", mend)
    begins = max(one.not_valid_before_utc for one in chain)
    ends = min(one.not_valid_after_utc for one in chain)
    return dates(int(begins.timestamp()), int(ends.timestamp()), at=at, mend=mend)


def dates(begins: int, ends: int, *, at: int, mend: str) -> Verdict:
    """A certificate that is good from `begins` to `ends` (UTC seconds, the end excluded), at the instant `at`."""
    if at < begins:
        return problem(f"it is not valid before {_utc(begins)}: made in the future, or this clock is behind", mend)
    if at >= ends:
        return problem(f"it has expired, at {_utc(ends)}", mend)
    days = (ends - at) // _DAY_S
    if days < FEW_DAYS:
        return warning(f"it expires in {days} days, at {_utc(ends)}", mend)
    return ok(f"good for {days} days")


def in_der(path: Path) -> bytes | None:
    """The first certificate in a file, as it goes over the wire; None if there is none."""
    found = _read(path)
    return found[0].public_bytes(Encoding.DER) if found else None


def refused_by_tls(error: ssl.SSLCertVerificationError) -> str:
    """Why a certificate was not believed, in our words."""
    return _REFUSED.get(error.verify_code, "its certificate is not believed")


# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_REFUSED: Final = {
    9: "its certificate is not valid yet: it was made in the future, or this clock is behind",
    10: "its certificate has expired",
    18: "its certificate is signed by itself alone, and is not the one that is trusted here",
    19: "an authority that is not trusted here vouches for its certificate",
    20: "an authority that is not trusted here vouches for its certificate",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        return []


def _wrong_key(leaf: x509.Certificate, key: Path) -> str:
    try:
        public = load_pem_private_key(key.read_bytes(), None).public_key()
    except (OSError, ValueError, TypeError):  # TypeError: it has a passphrase
        return f"{key.name} is no readable private key in PEM without a passphrase"
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    same = public.public_bytes(*form) == leaf.public_key().public_bytes(*form)
    return "" if same else f"{key.name} is the key of another certificate"


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _covers(leaf: x509.Certificate, host: str) -> bool:
    listed = _alternatives(leaf)
    try:
        return ip_address(host) in listed.get_values_for_type(x509.IPAddress)
    except ValueError:
        names = [name.lower() for name in listed.get_values_for_type(x509.DNSName)]
        return host.lower() in names or f"*.{host.lower().partition('.')[2]}" in names


def _names(leaf: x509.Certificate) -> str:
    listed = _alternatives(leaf)
    return ", ".join([*listed.get_values_for_type(x509.DNSName), *map(str, listed.get_values_for_type(x509.IPAddress))])


def _alternatives(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return x509.SubjectAlternativeName([])


def _utc(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%MZ}"
