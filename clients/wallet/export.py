"""Everything that a wallet knows, but for its secret, as plain files for the person and whoever they show them to."""

import json
from pathlib import Path
from typing import Any

import msgspec

from clients.wallet.report import status_of
from clients.wallet.state import Account, State, Written
from federated.files import write_whole
from privacy.consent.lane import read_checkpoint
from privacy.consent.linking import Notice, fingerprint
from privacy.consent.receipt import Receipt, write_receipt
from privacy.consent.record import ConsentRecord
from privacy.consent.submission import frame
from privacy.consent.ts27560 import receipt_view
from privacy.errors import RefusalCode, RefusalError, UsageError


def export_to(state: State, out: Path, *, at: int) -> int:
    """Write the files into the directory `out`, which must not exist or be empty; how many there are.

    keys.json, status.json, alarms.json, and for each data holder notices, records, sealed records, receipts and their
    ISO/IEC TS 27560 views. All of them are for the owner's eyes only (mode 0600).
    """
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(out.iterdir()):
            raise UsageError(f"{out} is not empty and is left as it is; name another directory with --out.")
        out.chmod(0o700)
        files = _files(state, at)
        for directory in sorted({name.split("/")[0] for name in files if "/" in name}):
            (out / directory).mkdir(mode=0o700)
    except OSError as error:
        raise RefusalError(
            f"{out} cannot be written ({error.strerror}). Name a directory that can, with --out.",
            RefusalCode.INTERNAL,
        ) from error
    for name, content in files.items():
        write_whole(out / name, content, secret=True)
    return len(files)


def _files(state: State, at: int) -> dict[str, bytes]:
    wallet = state.wallet()
    files = {
        "alarms.json": _pretty(msgspec.to_builtins(state.alarms)),
        "status.json": _pretty(status_of(state, at=at)),
        "keys.json": _pretty(
            {
                account.holder: {
                    "person_key": wallet.key_for(account.holder).public.hex(),
                    "registry_key": account.registry_key.hex(),
                    "holder_identity": account.identity_key.hex(),
                    "holder_fingerprint": fingerprint(account.identity_key),
                    "registry_url": account.registry.url,
                    "handle": account.handle,
                    "last_checkpoint": account.head.checkpoint if account.head else None,
                }
                for account in state.accounts
            }
        ),
    }
    for account in state.accounts:
        for notice in (*account.earlier_notices, account.notice):
            files[f"notices/{account.holder}-{notice.terms.id}-{notice.terms.sha256[:8]}.txt"] = notice.text.encode()
        for written in account.written:
            name = f"{account.holder}-{written.seq}"
            files[f"records/{name}.json"] = _pretty(_opened(written))
            files[f"sealed/{name}.bin"] = frame([written.submission])
            if written.receipt is not None:
                files[f"receipts/{name}.json"] = write_receipt(written.receipt)
                if (notice_seen := account.notice_of(written.record)) is not None:
                    view = _view(account, written.record, written.receipt, notice_seen, at)
                    files[f"views/{name}.jsonld"] = _pretty(view)
    return files


def _opened(written: Written) -> dict[str, Any]:
    return {
        "record": msgspec.to_builtins(written.record),
        "payload": written.payload,
        "signature": written.signature,
        "rho": written.rho,
        "leaf": written.leaf,
        "promise": written.promise,
        "written_at": written.written_at,
        "handed_directly_at": written.handed_directly_at,
        "given_up_at": written.given_up_at,
        "expired_key": written.expired_key,
    }


def _view(account: Account, record: ConsentRecord, receipt: Receipt, notice: Notice, at: int) -> dict[str, Any]:
    head = read_checkpoint(receipt.checkpoint, f"fedcredit/{account.holder}", account.registry_key)
    return receipt_view(
        record, notice=notice, registry_url=account.registry.url, position=receipt.position, head=head, at=at
    )


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
