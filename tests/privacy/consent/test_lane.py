import hashlib
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.lane import (
    LEAF_BYTES,
    Head,
    Stub,
    TombstoneStub,
    check_growth,
    open_note,
    parse_checkpoint_body,
    parse_leaf,
    read_checkpoint,
    tag_of,
    write_checkpoint,
)
from privacy.consent.merkle import TreeHead, consistency_proof, leaf_hash
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError, TamperingError
from tests.privacy.consent.samples import digest
from tests.privacy.consent.vectors import FOLDER, vectors

ORIGIN = "registry.example/holder-01"
KEY = SigningKey.from_seed(digest("log key"))
HEAD = Head(20852163, digest("root"))
NOTE = write_checkpoint(HEAD, ORIGIN, KEY)
TOMBSTONE = TombstoneStub(digest("tag")[:16], 7, digest("leaf"), digest("statement"))
STUB = Stub(digest("tag")[:16], 3, digest("commit"), digest("ciphertext"))


def test_published_checkpoint_bodies_get_their_verdicts() -> None:
    cases = vectors("checkpoint/parse_cases.json")
    assert {case["ok"] for case in cases} == {True, False}
    for case in cases:
        try:
            parse_checkpoint_body(case["body"])
            verdict = True
        except MalformedError:
            verdict = False
        assert verdict is case["ok"], case["desc"]


def test_a_root_has_one_spelling() -> None:
    root = b64encode(bytes(32)).decode()
    assert root == "A" * 43 + "="
    assert parse_checkpoint_body(f"log\n1\n{root}\n") == ("log", Head(1, bytes(32)))
    for other in ("A" * 42 + "B=", "A" * 43, "A" * 43 + "==", "A" * 42 + "==", "_" * 43 + "="):
        with pytest.raises(MalformedError):
            parse_checkpoint_body(f"log\n1\n{other}\n")


def test_published_notes_verify_and_their_keys_are_named_as_published() -> None:
    published = vectors("checkpoint/signed_note.json")
    for case in published["kat"]:
        name, _, key = case["vkey"].split("+", 2)
        public = b64decode(key)[1:]
        assert open_note(case["note"], name=name, public=public) == "This is an example message.\n"
        with pytest.raises(TamperingError):
            open_note(case["note"].replace("example message", "exemple message"), name=name, public=public)
    assert len(published["keypairs"]) == 3
    for pair in published["keypairs"]:
        name, key_hash, public = pair["vkey"].split("+", 2)
        log = SigningKey.from_seed(b64decode(pair["skey"].split("+", 4)[4])[1:])
        assert log.public == b64decode(public)[1:]
        note = write_checkpoint(HEAD, name, log)
        assert b64decode(note.split(" ")[-1])[:4].hex() == key_hash
        assert read_checkpoint(note, name, log.public) == HEAD


def test_the_cosigned_example_is_laid_out_as_we_write() -> None:
    example = (FOLDER / "checkpoint/c2sp_example_cosigned.txt").read_text(encoding="utf-8")
    body, _, signatures = example.partition("\n\n")
    origin, head = parse_checkpoint_body(body + "\n")
    ours = write_checkpoint(head, origin, KEY)
    assert ours.partition("\n\n")[0] == body
    assert ours.splitlines()[-1].split(" ")[:2] == signatures.splitlines()[0].split(" ")[:2]
    with_witness = ours + signatures.splitlines()[1] + "\n"
    assert read_checkpoint(with_witness, origin, KEY.public) == head


@given(size=st.integers(0, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_a_written_checkpoint_is_read_back(size: int, root: bytes) -> None:
    assert read_checkpoint(write_checkpoint(Head(size, root), ORIGIN, KEY), ORIGIN, KEY.public) == Head(size, root)


@given(st.integers(0, len(NOTE) - 1), st.characters(codec="utf-8"))
def test_a_checkpoint_changed_anywhere_is_refused(place: int, character: str) -> None:
    changed = NOTE[:place] + character + NOTE[place + 1 :]
    if changed != NOTE:
        with pytest.raises(FedcreditError):
            read_checkpoint(changed, ORIGIN, KEY.public)
    with pytest.raises(FedcreditError):
        read_checkpoint(NOTE[:place], ORIGIN, KEY.public)


@given(st.text())
def test_arbitrary_text_never_crashes_the_checkpoint_readers(text: str) -> None:
    for reader in (parse_checkpoint_body, lambda note: read_checkpoint(note, ORIGIN, KEY.public)):
        with pytest.raises(FedcreditError):
            reader(text)


def test_other_keys_origins_and_doubled_signatures_are_refused() -> None:
    other = SigningKey.from_seed(digest("another log key"))
    with pytest.raises(TamperingError):
        read_checkpoint(NOTE, ORIGIN, other.public)
    with pytest.raises(TamperingError):
        read_checkpoint(NOTE, "registry.example/holder-02", KEY.public)
    with pytest.raises(TamperingError):
        read_checkpoint(NOTE + NOTE.splitlines()[-1] + "\n", ORIGIN, KEY.public)
    for origin in ("", "two words", "a+b", "a\nb", "å"):
        with pytest.raises(MalformedError):
            write_checkpoint(HEAD, origin, KEY)


def test_a_note_whose_text_names_another_log_is_tampering() -> None:
    body = NOTE.partition("\n\n")[0].replace("holder-01", "holder-02") + "\n"
    key_hash = hashlib.sha256(ORIGIN.encode() + b"\n\x01" + KEY.public).digest()[:4]
    line = b64encode(key_hash + KEY.sign_raw(body.encode())).decode()
    with pytest.raises(TamperingError, match="another log"):
        read_checkpoint(f"{body}\n— {ORIGIN} {line}\n", ORIGIN, KEY.public)


def test_a_head_may_grow_and_never_go_back_or_fork() -> None:
    tree = TreeHead(leaf_hash(b"%d" % number) for number in range(12))
    heads = {size: Head(size, tree.root_at(size)) for size in range(13)}
    for old in range(13):
        for new in range(old, 13):
            proof = consistency_proof(tree, old, new) if old else []
            check_growth(heads[old], heads[new], proof)
            if old:
                with pytest.raises(TamperingError):
                    check_growth(Head(old, digest("fork")), heads[new], proof)
            if new > old:
                with pytest.raises(TamperingError, match="went back"):
                    check_growth(heads[new], heads[old], proof)


def test_a_stub_has_one_encoding_and_one_reading() -> None:
    leaf = STUB.leaf()
    fields = STUB.tag + (3).to_bytes(8, "big") + STUB.commit + STUB.ciphertext_sha256
    assert leaf == b"fedcredit/stub/v1\x01" + fields
    assert Stub.parse(leaf) == STUB
    for wrong in (leaf[:-1], leaf + b"\0", b"F" + leaf[1:], leaf.replace(b"v1\x01", b"v1\x02"), b""):
        with pytest.raises(MalformedError):
            Stub.parse(wrong)


@given(st.one_of(st.binary(max_size=120), st.binary(min_size=88, max_size=88).map(STUB.leaf()[:18].__add__)))
def test_arbitrary_bytes_never_crash_the_stub_reader(data: bytes) -> None:
    try:
        assert Stub.parse(data).leaf() == data
    except MalformedError:
        wrong_shape = len(data) != 106 or not data.startswith(b"fedcredit/stub/v1\x01")
        assert wrong_shape or not 1 <= int.from_bytes(data[34:42], "big") < 2**63


def test_a_tombstones_stub_has_one_encoding_and_is_never_read_as_a_records() -> None:
    leaf = TOMBSTONE.leaf()
    fields = TOMBSTONE.tag + (7).to_bytes(8, "big") + TOMBSTONE.erased_leaf + TOMBSTONE.statement_sha256
    assert leaf == b"fedcredit/stub/v1\x02" + fields
    assert len(leaf) == len(STUB.leaf()) == LEAF_BYTES == 106
    assert [parse_leaf(one.leaf()) for one in (TOMBSTONE, STUB)] == [TOMBSTONE, STUB]
    with pytest.raises(MalformedError):
        Stub.parse(leaf)
    for kind in (0, 3, 255):
        with pytest.raises(MalformedError):
            parse_leaf(leaf[:17] + bytes([kind]) + leaf[18:])
    assert (STUB.beside_sha256, TOMBSTONE.beside_sha256) == (STUB.ciphertext_sha256, TOMBSTONE.statement_sha256)


@given(
    st.one_of(
        st.binary(max_size=120),
        st.builds(
            lambda kind, rest: STUB.leaf()[:17] + bytes([kind]) + rest,
            st.integers(0, 3),
            st.binary(min_size=88, max_size=88),
        ),
    )
)
def test_every_accepted_leaf_is_written_again_as_it_was(data: bytes) -> None:
    try:
        assert parse_leaf(data).leaf() == data
    except MalformedError:
        number = int.from_bytes(data[34:42], "big")
        shaped = len(data) == 106 and data.startswith(b"fedcredit/stub/v1")
        sound = {1: 1 <= number < 2**63, 2: number < 2**63}
        assert not (shaped and sound.get(data[17], False))


def test_fields_of_another_size_make_no_stub_and_no_head() -> None:
    for tag, epoch, commit in ((b"short", 1, digest("c")), (bytes(16), 0, digest("c")), (bytes(16), 1, b"")):
        with pytest.raises(MalformedError):
            Stub(tag, epoch, commit, digest("c"))
    for tag, position, leaf in ((b"short", 1, bytes(32)), (bytes(16), -1, bytes(32)), (bytes(16), 1, b"")):
        with pytest.raises(MalformedError):
            TombstoneStub(tag, position, leaf, digest("c"))
    for size, root in ((-1, bytes(32)), (2**63, bytes(32)), (1, bytes(31))):
        with pytest.raises(MalformedError):
            Head(size, root)


def test_a_tag_is_the_same_on_retry_and_another_for_another_record() -> None:
    secret = digest("wallet")
    tags = [tag_of(secret, aud=aud, seq=seq) for aud in ("holder-01", "holder-02") for seq in (1, 2)]
    assert tag_of(secret, aud="holder-01", seq=1) == tags[0]
    assert len(set(tags)) == 4
    assert {len(tag) for tag in tags} == {16}
