"""The certificate that the SuperNode shows the worker beside it, made anew for each life of the programs.

While the SuperNode is down anybody on the machine may listen on its port. Who cannot show this certificate is sent
nothing by the worker, and gives it nothing.
"""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from federated.certificates import certificate_pem, certify, key_pem
from federated.files import write_whole

CERTIFICATE, KEY = "runtime.pem", "runtime.key"
_YEAR: Final = 365


def certify_anew(place: Path, *, at: int) -> None:
    """Write a new certificate and its key. It is valid however wrong the clock is: both ends are on this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certify(
        key.public_key(),
        name="supernode",
        hosts=["127.0.0.1"],
        signs_others=True,
        key=key,
        issuer=None,
        at=max(at - 10 * _YEAR * 86_400, 86_400),
        days=30 * _YEAR,
    )
    write_whole(place / KEY, key_pem(key), secret=True)
    write_whole(place / CERTIFICATE, certificate_pem(certificate), secret=True)
