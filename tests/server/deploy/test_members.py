"""The list of data holders: who may be admitted, what replaces what, and whose node keys are let in."""

import stat
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from federated.enrolment import EnrolmentRequest, node_key_text
from federated.lock import alone
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalError, UsageError
from server.deploy import members as members_module
from server.deploy.members import Admission, Members

AT = 1_793_491_200
KEYS = [node_key_text(ec.derive_private_key(7**number, ec.SECP384R1()).public_key()) for number in range(40, 48)]
IDENTITIES = [SigningKey.from_seed(sha256(bytes([number])).digest()).public.hex() for number in range(4)]


def request(holder: str = "aster", identity: int = 0, key: int = 0) -> EnrolmentRequest:
    return EnrolmentRequest(holder=holder, identity=IDENTITIES[identity], node_key=KEYS[key], issued_at=AT)


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(tmp_path)


def test_nobody_is_enrolled_at_first_and_whoever_is_admitted_then_is(members: Members, tmp_path: Path) -> None:
    assert members.load() == {}
    assert members.keys().to_have == {}
    assert members.admit(request(), at=AT) is Admission.NEW
    assert members.admit(request("birch", 1, 1), at=AT + 1) is Admission.NEW
    assert members.keys().to_have == {KEYS[0]: "aster", KEYS[1]: "birch"}
    assert Members(tmp_path).current()["birch"].enrolled == AT + 1
    assert stat.S_IMODE((tmp_path / "members.json").stat().st_mode) == 0o644  # public keys only


def test_a_list_that_was_lost_is_not_begun_anew(members: Members, tmp_path: Path) -> None:
    (tmp_path / "superlink").mkdir()
    (tmp_path / "superlink" / "state.db").touch()
    for ask in (members.load, members.current, members.keys, lambda: members.admit(request(), at=AT)):
        with pytest.raises(MalformedError, match=r"members\.json is missing.*restore"):
            ask()
    assert not (tmp_path / "members.json").exists()
    (tmp_path / "superlink" / "state.db").rename(tmp_path / "away")
    assert members.admit(request(), at=AT) is Admission.NEW


def test_the_same_request_again_changes_nothing(members: Members, tmp_path: Path) -> None:
    members.admit(request(), at=AT)
    before = (tmp_path / "members.json").stat().st_mtime_ns
    assert members.admit(request(), at=AT + 9) is Admission.UNCHANGED
    assert (tmp_path / "members.json").stat().st_mtime_ns == before


def test_a_new_node_key_replaces_the_old_one_which_is_never_taken_again(members: Members) -> None:
    members.admit(request(), at=AT)
    assert members.admit(request(key=1), at=AT + 1) is Admission.NEW_NODE_KEY
    assert members.keys().to_have == {KEYS[1]: "aster"}
    assert members.load()["aster"].enrolled == AT
    with pytest.raises(RefusalError, match="replaced before"):  # the old request, once more
        members.admit(request(), at=AT + 2)
    members.admit(request(key=2), at=AT + 3)
    members.revoke("aster", at=AT + 4)
    for key in (0, 1):
        with pytest.raises(RefusalError, match="replaced before"):
            members.admit(request(key=key), at=AT + 5, again=True)


def test_who_is_revoked_stays_out_until_taken_back_on_purpose(members: Members) -> None:
    members.admit(request(), at=AT)
    assert members.revoke("aster", at=AT + 5)
    assert not members.revoke("aster", at=AT + 9)
    assert members.load()["aster"].revoked == AT + 5
    assert members.current() == {}
    assert members.keys().to_have == {}
    for key in (0, 1):
        with pytest.raises(RefusalError, match="--again"):
            members.admit(request(key=key), at=AT + 10)
    with pytest.raises(RefusalError, match="--new-node-key"):  # SuperLink would not let it in
        members.admit(request(), at=AT + 10, again=True)
    assert members.admit(request(key=1), at=AT + 10, again=True) is Admission.AGAIN
    assert members.keys().to_have == {KEYS[1]: "aster"}
    members.revoke("aster", at=AT + 11)
    assert members.admit(request(key=2, identity=1), at=AT + 12, again=True) is Admission.AGAIN  # lost its keys
    assert members.load()["aster"].former == (KEYS[0], KEYS[1])


def test_nobody_gets_another_ones_keys_under_another_id(members: Members) -> None:
    members.admit(request(), at=AT)
    members.admit(request(key=1), at=AT)
    with pytest.raises(RefusalError, match="identity key is another"):
        members.admit(request("birch", identity=0, key=2), at=AT)
    for key in (0, 1):  # the former one neither
        with pytest.raises(RefusalError, match="node key is another"):
            members.admit(request("birch", identity=1, key=key), at=AT, again=True)
    members.revoke("aster", at=AT)
    for key in (0, 1):  # and not those of somebody revoked
        with pytest.raises(RefusalError, match="node key is another"):
            members.admit(request("birch", identity=1, key=key), at=AT)
    assert set(members.load()) == {"aster"}


def test_another_identity_for_a_known_id_is_refused_with_what_to_do(members: Members) -> None:
    members.admit(request(), at=AT)
    with pytest.raises(RefusalError, match="--revoke") as refused:
        members.admit(request(identity=1), at=AT, again=True)
    assert IDENTITIES[1] not in str(refused.value)
    assert members.load()["aster"].identity == IDENTITIES[0]


def test_the_time_of_a_welcome_only_ever_rises(members: Members) -> None:
    members.admit(request(), at=AT)
    times = [members.welcome("aster", at=at)[1] for at in (AT, AT, AT - 500, AT + 100)]
    assert times == [AT, AT + 1, AT + 2, AT + 100]
    with pytest.raises(UsageError, match="aster"):
        members.welcome("birch", at=AT)
    members.revoke("aster", at=AT)
    with pytest.raises(RefusalError, match="revoked"):
        members.welcome("aster", at=AT)
    with pytest.raises(UsageError, match="enrolled are: aster"):
        members.revoke("birch", at=AT)


def test_after_a_clock_that_was_ahead_no_welcome_is_written_that_nobody_would_take(members: Members) -> None:
    members.admit(request(), at=AT)
    assert members.welcome("aster", at=AT + 3600)[1] == AT + 3600
    assert members.welcome("aster", at=AT + 1)[1] == AT + 3601
    before = members.load()
    with pytest.raises(RefusalError, match=r"clock.*--revoke.*--new-node-key.*--again"):
        members.welcome("aster", at=AT)
    assert members.load() == before
    # What it says to do helps.
    members.revoke("aster", at=AT)
    members.admit(request(key=1), at=AT, again=True)
    assert members.welcome("aster", at=AT)[1] == AT


def test_an_empty_list_is_begun_and_never_put_in_anothers_place(members: Members, tmp_path: Path) -> None:
    with alone(tmp_path / ".members.lock", "x"):
        members.begin()  # whoever has the lock writes it
    assert not (tmp_path / "members.json").exists()
    members.begin()
    assert (tmp_path / "members.json").read_bytes() == b"{}"
    members.admit(request(), at=AT)
    members.begin()
    assert set(members.load()) == {"aster"}


def test_two_commands_at_once_are_refused(members: Members, tmp_path: Path) -> None:
    with alone(tmp_path / ".members.lock", "x"), pytest.raises(RefusalError, match="another command"):
        members.admit(request(), at=AT)
    assert members.load() == {}


def test_a_full_federation_admits_nobody(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_MEMBERS", 1)
    members.admit(request(), at=AT)
    with pytest.raises(RefusalError, match="no more than 1"):
        members.admit(request("birch", 1, 1), at=AT)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b"[" * 5000, b'{"aster": {}}', b'{"aster": {"identity": "x"}}', b'{"A": null}'],
)
def test_a_spoilt_list_is_told_in_words_and_lets_nobody_in(members: Members, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "members.json").write_bytes(content)
    for reads in (members.load, members.keys, lambda: members.admit(request(), at=AT)):
        with pytest.raises(MalformedError, match=r"members\.json"):
            reads()
    assert (tmp_path / "members.json").read_bytes() == content


def test_a_list_with_the_four_agreed_fields_is_read(members: Members, tmp_path: Path) -> None:
    entry = {"identity": IDENTITIES[0], "node_key": KEYS[0], "enrolled": AT, "revoked": None}
    (tmp_path / "members.json").write_bytes(msgspec.json.encode({"aster": entry}))
    assert members.keys().to_have == {KEYS[0]: "aster"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "again", "revoke"]), st.sampled_from(["aster", "birch", "cedar"]),
        st.integers(0, 3), st.integers(0, 5),
    ),
    max_size=12,
)  # fmt: skip


@given(STEPS)
def test_whatever_happens_keys_are_one_holders_and_nobody_revoked_is_let_in(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int, int]]
) -> None:
    members = Members(tmp_path_factory.mktemp("m"))
    out: set[str] = set()
    for number, (what, holder, identity, key) in enumerate(steps):
        try:
            if what == "revoke":
                members.revoke(holder, at=AT + number)
                out.add(holder)
            elif members.admit(request(holder, identity, key), at=AT + number, again=what == "again"):
                if holder in out:
                    assert what == "again"
                out.discard(holder)
        except (RefusalError, UsageError):
            pass
        listed, have = members.load(), members.keys().to_have
        assert {holder for holder, member in listed.items() if member.revoked is not None} == out
        assert sorted(have.values()) == sorted(set(listed) - out)
        assert not set(have) & {key for member in listed.values() for key in member.former}
        ever = {key for member in listed.values() for key in (member.node_key, *member.former)}
        assert members.keys().to_remove == ever - set(have)
        everybodys = [key for member in listed.values() for key in {member.node_key, *member.former}]
        assert len(everybodys) == len(set(everybodys))
        assert len({member.identity for member in listed.values()}) == len(listed)
