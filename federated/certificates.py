"""X.509 certificates that an organisation signs itself (RFC 5280): one way of writing and of reading them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privacy.errors import MalformedError

EARLY: Final = timedelta(hours=1)
"""A certificate begins this long before it is made, for machines whose clocks are behind."""

_DAY_S: Final = 86_400


def certify(
    public: ec.EllipticCurvePublicKey,
    *,
    name: str,
    hosts: Sequence[str],
    signs_others: bool,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    at: int,
    days: int,
) -> x509.Certificate:
    """A certificate for `public`, signed by `key` whose own certificate is `issuer`; None is self-signed.

    With `hosts` a server may show it for these names and addresses; with `signs_others` it vouches for certificates
    of servers, and for no further authority. Valid from an hour before `at` (UTC seconds) for `days` after it.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.fromtimestamp(at, UTC)
    own = x509.SubjectKeyIdentifier.from_public_key(public)
    above = own if issuer is None else issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usage = x509.KeyUsage(
        digital_signature=bool(hosts), key_cert_sign=signs_others, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - EARLY)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=signs_others, path_length=0 if signs_others else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(own, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
    )
    if hosts:
        names = [_general_name(host) for host in dict.fromkeys(hosts)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(key, SHA384() if key.curve.key_size > 256 else SHA256())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key in PEM (PKCS 8), without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_certificates(pem: bytes, *, what: str) -> list[x509.Certificate]:
    """The certificates in `pem`, at least one; `what` names them in errors. Raises MalformedError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion):
        raise MalformedError(
            f"{what} cannot be read as certificates in PEM. Whoever put it there should take it from its maker again."
        ) from None


def read_authorities(pem: bytes, *, what: str) -> list[x509.Certificate]:
    """The certificates in `pem`, every one of which vouches for servers and is signed by itself. MalformedError."""
    certificates = read_certificates(pem, what=what)
    if not all(_is_authority(certificate) for certificate in certificates):
        raise MalformedError(
            f"{what} holds a certificate that may not vouch for others, or is not signed by itself; only the "
            "coordinator's authorities belong there. The coordinator should look at "
            "`fedcredit coordinator certificates` and write it again."
        )
    return certificates


def days_left(certificate: x509.Certificate, *, at: int) -> int:
    """Whole days from `at` (UTC seconds) until the certificate runs out; negative once it has."""
    return int(certificate.not_valid_after_utc.timestamp() - at) // _DAY_S


def in_force(certificate: x509.Certificate, *, at: int) -> bool:
    """Whether `at` (UTC seconds) lies within the certificate's dates."""
    return certificate.not_valid_before_utc.timestamp() <= at <= certificate.not_valid_after_utc.timestamp()


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except Exception:  # a hostile certificate fails in many ways, and all of them mean no
        return False
    return constraints.ca and usage.key_cert_sign


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
