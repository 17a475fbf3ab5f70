"""The federation's certificates: trusted where they should be, nowhere else, and whole whatever interrupts a change."""

import os
import shutil
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from federated.certificates import certificate_pem, certify, days_left
from federated.lock import alone
from privacy.errors import MalformedError, RefusalError, UsageError
from server.deploy import tls

AT = 1_793_491_200
HOUR_S, DAY_S = 3600, 86_400
HOST = "fleet.example"
PAIRS = (("fleet.pem", "fleet.key"), ("superlink.pem", "superlink.key"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tls.make_tls(tmp_path, HOST, AT)
    return tmp_path


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def believed(trust: bytes, shown: bytes, host: str, *, at: int) -> bool:
    """Whether whoever trusts `trust` believes `shown` to be `host`: the library's own verifier, by RFC 5280."""
    policy = PolicyBuilder().store(Store(certificates(trust))).time(datetime.fromtimestamp(at, UTC))
    name = x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
    leaf, *between = certificates(shown)
    try:
        policy.build_server_verifier(name).verify(leaf, between)
    except VerificationError:
        return False
    return True


def handshake(directory: Path, trust: str, host: str, certificate: str = "fleet.pem", key: str = "fleet.key") -> None:
    """A whole TLS handshake in memory; raises ssl.SSLError unless the caller believes that it speaks to `host`."""
    answering = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    answering.load_cert_chain(directory / "tls" / certificate, directory / "tls" / key)
    calling = ssl.create_default_context(cadata=trust)
    to_server, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        calling.wrap_bio(to_caller, to_server, server_hostname=host),
        answering.wrap_bio(to_server, to_caller, server_side=True),
    ]
    for _ in range(6):
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not ends


def test_a_handshake_succeeds_for_the_names_in_the_certificate_alone(tmp_path: Path) -> None:
    now = int(datetime.now(UTC).timestamp())  # OpenSSL asks the machine for the time
    tls.make_tls(tmp_path, HOST, now)
    trust = (tmp_path / "tls" / "ca.pem").read_text()
    for host in (HOST, "127.0.0.1", "localhost"):
        handshake(tmp_path, trust, host)
    handshake(tmp_path, trust, "127.0.0.1", "superlink.pem", "superlink.key")
    with pytest.raises(ssl.SSLError, match="mismatch"):
        handshake(tmp_path, trust, "other.example")
    with pytest.raises(ssl.SSLError, match="mismatch"):  # SuperLink cannot pass for the proxy
        handshake(tmp_path, trust, HOST, "superlink.pem", "superlink.key")
    tls.make_tls(tmp_path / "another", HOST, now)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(tmp_path, (tmp_path / "another" / "tls" / "ca.pem").read_text(), HOST)


@pytest.mark.parametrize(
    ("at", "good"),
    [
        (AT - HOUR_S, True), (AT - HOUR_S - 1, False), (AT + 90 * DAY_S, True), (AT + 90 * DAY_S + 1, False),
    ],
)  # fmt: skip
def test_a_certificate_is_good_from_an_hour_before_it_was_made_for_ninety_days(
    directory: Path, at: int, good: bool
) -> None:
    trust, fleet = (directory / "tls" / "ca.pem").read_bytes(), (directory / "tls" / "fleet.pem").read_bytes()
    assert believed(trust, fleet, HOST, at=at) is good
    assert believed(trust, fleet, "127.0.0.1", at=at) is good


def test_only_the_authority_vouches_and_for_no_further_authority(directory: Path) -> None:
    folder = directory / "tls"
    trust = (folder / "ca.pem").read_bytes()
    ca, fleet = certificates(trust)[0], certificates((folder / "fleet.pem").read_bytes())[0]
    stranger = ec.generate_private_key(ec.SECP256R1())
    for name, issuer, below in (("fleet.key", fleet, False), ("ca.key", ca, True)):
        key = load_pem_private_key((folder / name).read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        if below:  # an authority below ours, and what it signs
            middle = certify(
                stranger.public_key(), name="m", hosts=(), signs_others=True, key=key, issuer=issuer, at=AT, days=9
            )  # fmt: skip
            leaf = certify(
                stranger.public_key(), name="l", hosts=(HOST,), signs_others=False, key=stranger, issuer=middle,
                at=AT, days=9,
            )  # fmt: skip
            chain = certificate_pem(leaf) + certificate_pem(middle)
        else:
            leaf = certify(
                stranger.public_key(), name="l", hosts=(HOST,), signs_others=False, key=key, issuer=issuer,
                at=AT, days=9,
            )  # fmt: skip
            chain = certificate_pem(leaf) + certificate_pem(issuer)
        assert not believed(trust, chain, HOST, at=AT)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert usage.key_cert_sign
    assert not usage.digital_signature


def test_keys_are_for_their_owner_alone_and_the_rest_of_the_contract_is_there(directory: Path) -> None:
    for name in ("ca.key", "fleet.key", "superlink.key"):
        assert stat.S_IMODE((directory / "tls" / name).stat().st_mode) == 0o600
    for name in ("ca.pem", "fleet.pem", "superlink.pem"):
        assert b"PRIVATE" not in (directory / "tls" / name).read_bytes()
    assert stat.S_IMODE((directory / "tls").stat().st_mode) == 0o700


def test_certificates_are_made_once(directory: Path) -> None:
    before = (directory / "tls" / "ca.pem").read_bytes()
    with pytest.raises(UsageError, match="renew"):
        tls.make_tls(directory, HOST, AT)
    assert (directory / "tls" / "ca.pem").read_bytes() == before


def test_renewal_makes_new_keys_that_the_same_authority_vouches_for(directory: Path) -> None:
    folder = directory / "tls"
    before = {name: (folder / name).read_bytes() for pair in PAIRS for name in pair}
    trust, later = (folder / "ca.pem").read_bytes(), AT + 80 * DAY_S
    tls.renew(directory, later)
    assert (folder / "ca.pem").read_bytes() == trust
    assert all((folder / name).read_bytes() != content for name, content in before.items())
    assert believed(trust, (folder / "fleet.pem").read_bytes(), HOST, at=later + 90 * DAY_S)
    assert not believed(trust, before["fleet.pem"], HOST, at=later + 90 * DAY_S)
    assert stat.S_IMODE((folder / "fleet.key").stat().st_mode) == 0o600


def test_renewal_takes_a_new_address_if_the_settings_name_one(directory: Path) -> None:
    tls.renew(directory, AT, host="10.1.2.3")
    trust, fleet = tls.authorities_pem(directory).encode(), (directory / "tls" / "fleet.pem").read_bytes()
    assert believed(trust, fleet, "10.1.2.3", at=AT)
    assert not believed(trust, fleet, HOST, at=AT)
    tls.renew(directory, AT)
    assert believed(trust, (directory / "tls" / "fleet.pem").read_bytes(), "10.1.2.3", at=AT)


@pytest.mark.parametrize("spoil", [None, b"spoilt"])
def test_renewal_mends_what_is_lost_as_long_as_the_authority_is_whole(directory: Path, spoil: bytes | None) -> None:
    current = (directory / "tls" / "current").resolve()
    for name in ("fleet.pem", "fleet.key", "superlink.key"):
        (current / name).unlink()
        if spoil is not None:
            (current / name).write_bytes(spoil)
    with pytest.raises(MalformedError):
        tls.validities(directory, AT + DAY_S)
    with pytest.raises(MalformedError, match=r"fleet\.pem"):
        tls.renew(directory, AT)  # for which name, nobody knows
    tls.renew(directory, AT, host=HOST)
    check_whole(directory, trust=None)


def test_an_authority_is_replaced_without_a_gap_and_then_worth_nothing(directory: Path) -> None:
    def shown() -> bytes:
        return (directory / "tls" / "fleet.pem").read_bytes()

    old, old_key = tls.authorities_pem(directory).encode(), (directory / "tls" / "ca.key").read_bytes()
    tls.new_ca(directory, AT)
    both, during = tls.authorities_pem(directory).encode(), shown()
    assert len(certificates(both)) == 2
    # During the overlap: who has taken the new welcome and who has not both believe the proxy, renewed or not.
    tls.renew(directory, AT)
    for certificate in (during, shown()):
        assert believed(old, certificate, HOST, at=AT)
        assert believed(both, certificate, HOST, at=AT)
    with pytest.raises(RefusalError, match="drop-old-ca"):
        tls.new_ca(directory, AT)
    assert tls.overlap_since(directory) == AT

    tls.drop_old_ca(directory, AT)
    new = tls.authorities_pem(directory).encode()
    assert len(certificates(new)) == 1
    assert believed(both, shown(), HOST, at=AT)  # has taken the welcome of the overlap
    assert believed(new, shown(), HOST, at=AT)
    assert not believed(old, shown(), HOST, at=AT)
    assert not believed(new, during, HOST, at=AT)  # revoked: whoever copied the old keys gains nothing
    assert old_key not in [file.read_bytes() for file in (directory / "tls").rglob("*") if file.is_file()]
    assert not (directory / "tls" / "ca-next.key").is_symlink()
    assert tls.overlap_since(directory) is None
    with pytest.raises(RefusalError, match="new-ca"):
        tls.drop_old_ca(directory, AT)


Change = Callable[[Path], None]
CHANGES: dict[str, Change] = {
    "renew": lambda directory: tls.renew(directory, AT + DAY_S),
    "new_ca": lambda directory: tls.new_ca(directory, AT + DAY_S),
    "drop_old_ca": lambda directory: tls.drop_old_ca(directory, AT + DAY_S),
}


class KilledError(BaseException):
    """Stands for kill -9: nothing in the code catches it."""


@pytest.mark.parametrize(("change", "copied"), [*((change, False) for change in CHANGES), ("renew", True)])
def test_a_change_killed_at_any_step_leaves_pairs_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, copied: bool
) -> None:
    tls.make_tls(tmp_path / "first", HOST, AT)
    if change == "drop_old_ca":
        tls.new_ca(tmp_path / "first", AT)
    before = tls.authorities_pem(tmp_path / "first").encode()  # what data holders trust meanwhile
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing here depends on the disk, and it is slow
    allowed, steps = 0, 0

    def counted(name: str, owner: object) -> None:
        real = getattr(owner, name)

        def step(*args: object, **kwargs: object) -> object:
            nonlocal steps
            if steps == allowed:
                raise KilledError
            steps += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, step)

    counted("write_whole", tls)
    for name in ("symlink_to", "replace", "unlink", "mkdir", "rename"):
        counted(name, Path)
    for name in ("rmdir", "unlink"):  # inside rmtree
        counted(name, os)
    while True:
        steps = -(10**6)
        directory = tmp_path / f"{allowed}"
        shutil.copytree(tmp_path / "first", directory, symlinks=not copied)
        steps = 0
        try:
            CHANGES[change](directory)
            killed = False
        except KilledError:
            killed = True
        steps = -(10**6)
        if copied:  # without links, the names are turned into links one by one, the first time
            assert all(one.in_force for one in tls.validities(directory, AT + DAY_S))
        else:
            check_whole(directory, trust=before)
        tls.renew(directory, AT + DAY_S)  # whatever was left, the next change goes through
        check_whole(directory, trust=None)
        if not killed:
            break
        allowed += 1
    assert allowed > 10  # it was killed that often


def check_whole(directory: Path, *, trust: bytes | None) -> None:
    """Every certificate fits its key and is believed by who has ca.pem, or `trust`, as programs read the files."""
    assert all(one.in_force for one in tls.validities(directory, AT + DAY_S))
    folder = directory / "tls"
    for certificate, key in PAIRS:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / certificate, folder / key)
        for authorities in filter(None, ((folder / "ca.pem").read_bytes(), trust)):
            assert believed(authorities, (folder / certificate).read_bytes(), "127.0.0.1", at=AT + DAY_S)


def test_a_full_disk_leaves_the_earlier_set(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in (directory / "tls").iterdir() if path.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("symlink_to", "mkdir"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, name, full)
            with pytest.raises(RefusalError, match="No space left"):
                tls.renew(directory, AT)
        assert {path.name: path.read_bytes() for path in (directory / "tls").iterdir() if path.is_file()} == before


def test_two_changes_at_once_are_refused(directory: Path) -> None:
    with alone(directory / "tls" / "lock", "x"), pytest.raises(RefusalError, match="another command"):
        tls.renew(directory, AT)


def test_an_end_is_told_before_and_after_it_has_come(directory: Path) -> None:
    def told(at: int) -> dict[str, tuple[int, bool]]:
        return {one.file: (one.days_left, one.in_force) for one in tls.validities(directory, at)}

    assert told(AT)["fleet.pem"] == (90, True)
    assert told(AT)["ca.pem"] == (1095, True)
    assert told(AT + 89 * DAY_S + 1)["superlink.pem"] == (0, True)
    assert told(AT + 90 * DAY_S + 1)["fleet.pem"] == (-1, False)
    assert told(AT - 2 * HOUR_S)["fleet.pem"] == (90, False)  # this machine's clock is wrong
    assert days_left(certificates((directory / "tls" / "ca.pem").read_bytes())[0], at=AT + 95 * DAY_S) == 1000


def test_an_authority_that_has_run_out_certifies_nothing_and_can_be_replaced(directory: Path) -> None:
    late = AT + 1095 * DAY_S
    with pytest.raises(RefusalError, match="new-ca"):
        tls.renew(directory, late)
    tls.new_ca(directory, late)
    tls.drop_old_ca(directory, late)
    trust, fleet = tls.authorities_pem(directory).encode(), (directory / "tls" / "fleet.pem").read_bytes()
    assert believed(trust, fleet, HOST, at=late + DAY_S)


def test_near_the_authoritys_end_certificates_end_with_it(directory: Path) -> None:
    tls.renew(directory, AT + 1090 * DAY_S)
    assert {one.days_left for one in tls.validities(directory, AT + 1090 * DAY_S)} == {5}


@pytest.mark.parametrize("spoil", ["ca.key", "ca.pem", "fleet.pem", "current", "all", "swapped"])
def test_certificates_that_are_not_whole_are_told_in_words(directory: Path, tmp_path: Path, spoil: str) -> None:
    folder = directory / "tls"
    if spoil == "all":
        shutil.rmtree(folder)
    elif spoil == "current":
        os.unlink(folder / "current")  # noqa: PTH108 (the link, not what it leads to)
    elif spoil == "swapped":
        tls.make_tls(tmp_path / "another", HOST, AT)
        (folder / "ca.pem").write_bytes((tmp_path / "another" / "tls" / "ca.pem").read_bytes())
    else:
        (folder / spoil).write_bytes(b"spoilt")
    with pytest.raises(MalformedError, match=r"whole|PEM"):
        tls.validities(directory, AT)
