"""A person's whole way in processes of their own, against a real registry over TLS."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from clients.registry_client import RegistryClient
from privacy.consent.canonical import base64url
from privacy.consent.linking import RegistryAddress, only_certificates, read_answer
from tests.clients.wallet.parties import CATEGORIES, NOTICE, PASSPHRASE, DataHolder, FakeRegistry

BIN = Path(sys.executable).parent / "fedcredit"


def fedcredit(*arguments: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [str(BIN), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "FEDCREDIT_PASSPHRASE": "not read from here"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert PASSPHRASE not in done.stdout + done.stderr
    return done.stdout


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """A registry at its address, in a process of its own, which has ended afterwards."""
    process = subprocess.Popen(
        [str(BIN), "registry", "serve", str(directory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"https://\S+", process.stdout.readline())
        assert found is not None
        yield found.group().rstrip("/")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.mark.slow
def test_a_person_links_grants_withdraws_freezes_and_takes_everything_out(tmp_path: Path) -> None:
    aster = DataHolder("aster", FakeRegistry())
    home, wallet_home, secret = tmp_path / "registry", tmp_path / "wallet", tmp_path / "passphrase"
    secret.write_text(PASSPHRASE)
    shown = fedcredit(
        "registry", "init", home, "--self-signed", "--port", "0", "--lane", f"aster={aster.identity.public.hex()}"
    )
    registry_key = re.search(r"[0-9a-f]{64}", shown)
    assert registry_key is not None
    certificate = next(home.glob("*.pem")).read_text()
    wallet = ("wallet", "--wallet", wallet_home, "--passphrase-file", secret)
    fedcredit(*wallet, "init")
    with served(home) as url:
        aster.publish(1, at=int(time.time()))
        with RegistryClient(url, ca=certificate) as registry:
            registry.publish_key_set("aster", aster.registry.key_sets["aster"])
        key = base64url(bytes.fromhex(registry_key.group()))
        address = RegistryAddress(url=url, key=key, ca=only_certificates(certificate))
        offer = replace(aster.offer(at=int(time.time())), registry=address, notice=NOTICE, categories=CATEGORIES)
        (tmp_path / "offer").write_bytes(aster.signed_offer(offer))
        fedcredit(*wallet, "link", tmp_path / "offer", "--out", tmp_path / "answer")
        answered = read_answer((tmp_path / "answer").read_bytes(), offer=offer, at=int(time.time()))
        granted = fedcredit(
            *wallet, "grant", "aster", "--purpose", "train", "--to", "open-scoring", "--data", "capacity", "--days",
            "300", "--retain-days", "30", "--epsilon", "1", "--share", "0.5",
        )  # fmt: skip
        assert "granted" in granted
        fedcredit(*wallet, "freeze")
        fedcredit(*wallet, "thaw")
        fedcredit(*wallet, "withdraw", "aster")
        deadline = time.monotonic() + 30
        while True:
            (holder,) = json.loads(fedcredit(*wallet, "status", "--json"))["holders"]
            if holder["record"]["receipt"] or time.monotonic() > deadline:
                break
        assert holder["record"] == holder["record"] | {"number": 4, "position": 3, "receipt": True, "promised": True}
        with RegistryClient(url, ca=certificate) as registry:
            records = [aster.opened_entry(entry) for entry in registry.entries("aster", 0, 4)]
    assert [(len(record.grants), record.frozen) for record in records] == [
        (1, False),
        (1, True),
        (1, False),
        (0, False),
    ]
    # The registry is gone: what is kept is enough, and a withdrawal waits in the wallet.
    fedcredit(*wallet, "export", "--out", tmp_path / "out")
    receipts = sorted((tmp_path / "out" / "receipts").iterdir())
    assert len(receipts) == 4
    for receipt in receipts:
        fedcredit("wallet", "receipts", "--verify", receipt, "--registry-key", registry_key.group(), "--person-key",
                  answered.hex())  # fmt: skip
    fedcredit(*wallet, "freeze", code=3)
    fedcredit(*wallet, "status", code=3)
