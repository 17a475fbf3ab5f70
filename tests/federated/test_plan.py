"""A plan is signed, canonical, complete and adds up; a run's name depends on it and on the pinned lanes."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.plans import default_plan
from federated.encoder import Encoder
from federated.plan import RosterEntry, SignedPlan, TrainingPlan, read_plan, recipe_of, run_id, sign_plan
from federated.recipes.base import RecipeName
from federated.schema_toml import load_schema
from federated.trust import Aggregation, TrustModel
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from tests.small_federation import DATA

AT = 1_793_491_200
KEY = SigningKey.from_seed(b"k" * 32)
ROSTER = [RosterEntry(name, bytes([number]) * 32) for number, name in enumerate(("aster-bank", "birch-telecom"))]
SCHEMA = load_schema(DATA / "schema.toml")
PLAN = default_plan("first", SCHEMA, ROSTER, epsilon=1.0, at=AT, seed=None, people=20_000)


def _signed(payload: bytes) -> SignedPlan:
    return SignedPlan(payload, KEY.sign(PayloadType.PLAN, payload))


def _with(plain: dict[str, Any]) -> SignedPlan:
    return _signed(msgspec.json.encode(plain, order="sorted"))


def _plain() -> dict[str, Any]:
    plain = json.loads(msgspec.json.encode(PLAN, order="sorted"))
    assert isinstance(plain, dict)
    return plain


def test_a_signed_plan_is_read_back_whole() -> None:
    signed = sign_plan(PLAN, KEY)
    assert read_plan(signed, KEY.public) == PLAN
    assert recipe_of(PLAN, Encoder(SCHEMA)).name is RecipeName.FIXED_HESSIAN


def test_the_payload_is_json_with_sorted_keys_and_no_white_space() -> None:
    def sorted_only(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert pairs == sorted(pairs, key=lambda pair: pair[0])
        return dict(pairs)

    payload = sign_plan(PLAN, KEY).payload
    assert json.loads(payload, object_pairs_hook=sorted_only)["ends"] == PLAN.ends
    assert not set(payload.replace(json.dumps(PLAN.reason).encode(), b"")) & set(b" \n\t")
    assert read_plan(_with(_plain()), KEY.public) == PLAN  # so what is broken below is the only thing broken


@given(st.data())
def test_a_changed_byte_of_plan_or_signature_is_tampering(data: st.DataObject) -> None:
    signed = sign_plan(PLAN, KEY)
    payload, signature = bytearray(signed.payload), bytearray(signed.signature)
    changed = data.draw(st.sampled_from([payload, signature]))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(TamperingError):
        read_plan(SignedPlan(bytes(payload), bytes(signature)), KEY.public)


def test_another_coordinators_signature_or_a_signature_of_another_kind_is_tampering() -> None:
    payload = sign_plan(PLAN, KEY).payload
    with pytest.raises(TamperingError):
        read_plan(sign_plan(PLAN, SigningKey.from_seed(b"o" * 32)), KEY.public)
    with pytest.raises(TamperingError):
        read_plan(SignedPlan(payload, KEY.sign(PayloadType.UPDATE, payload)), KEY.public)


def _paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The place of every key in a document, objects inside lists too."""
    found: list[tuple[str | int, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += ([(*path, key)] if isinstance(value, dict) else []) + _paths(inner, (*path, key))
    return found


KEYS = [path for path in _paths(_plain()) if path[0] != "point_scale" or len(path) == 1]


def test_there_are_keys_to_take_away() -> None:
    assert len(KEYS) > 25
    assert ("roster", 0, "identity") in KEYS
    assert ("recipe", "epsilon") in KEYS


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_no_key_may_be_missing_and_none_may_be_added_beside_it(path: tuple[str | int, ...]) -> None:
    missing, more = _plain(), _plain()
    for plain, change in ((missing, "missing"), (more, "more")):
        inside: Any = plain
        for step in path[:-1]:
            inside = inside[step]
        if change == "missing":
            del inside[path[-1]]
        else:
            inside[f"{path[-1]}s"] = inside[path[-1]]
        with pytest.raises(MalformedError):
            read_plan(_with(plain), KEY.public)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        sign_plan(PLAN, KEY).payload + b" ",
        sign_plan(PLAN, KEY).payload.replace(b'"version":1', b'"version":1.0'),
        sign_plan(PLAN, KEY).payload.replace(b'"version":1', b'"version":true'),
        sign_plan(PLAN, KEY).payload.replace(b'"version":1', b'"version":2,"version":1'),
        sign_plan(PLAN, KEY).payload.replace(b'"seed":null', b'"seed":"1"'),
        sign_plan(PLAN, KEY).payload.replace(b'"trust":"shared_noise"', b'"trust":"nobody"'),
        sign_plan(PLAN, KEY).payload.replace(b'"aggregation":"sum"', b'"aggregation":"mean"'),
        sign_plan(PLAN, KEY).payload.replace(b'"epsilon":1.0', b'"epsilon":1e0'),
        sign_plan(PLAN, KEY).payload.replace(b'"epsilon":1.0', b'"epsilon":NaN'),
    ],
)
def test_a_signed_payload_that_is_no_canonical_plan_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        read_plan(_signed(payload), KEY.public)


BROKEN: list[dict[str, Any]] = [
    {"version": 2},
    {"roster": []},
    {"roster": [ROSTER[0], ROSTER[0]]},
    {"roster": [RosterEntry("Aster Bank", bytes(32)), ROSTER[1]]},
    {"roster": [RosterEntry("aster-bank\n", bytes(32)), ROSTER[1]]},
    {"roster": [RosterEntry("../aster", bytes(32)), ROSTER[1]]},
    {"roster": [RosterEntry("aster-bank", bytes(31)), ROSTER[1]]},
    {"minimum_holders": 0},
    {"minimum_holders": 3},
    {"minimum_people": 0},
    {"dropouts_tolerated": -1},
    {"dropouts_tolerated": 1},  # of two data holders: not more than three for each
    {"minimum_holders": 1},  # a secure sum over one hides nothing
    {"aggregation": Aggregation.MEDIAN},  # needs to see what the masks hide
    {"aggregation": Aggregation.TRIMMED_MEAN, "trust": TrustModel.COORDINATOR_NOISE},
    {"reason": ""},
    {"reason": "x" * 501},
    {"reason": "cheap\n  allowed  epsilon: 0.001"},
    {"name": ""},
    {"name": "x" * 65},
    {"name": "first\nSo this data holder would take part."},
    {"name": "first\x1b[2J"},
    {"name": "first\u202e"},
    {"coordinator": ""},
    {"coordinator": "x" * 65},
    {"coordinator": "open-scoring\r"},
    {"most_people": 0},
    {"most_people": 100_000_001},
    {"not_before": AT, "ends": AT},
    {"not_before": -1},
    {"measurement_bands": 1},
    {"measurement_bands": 1001},
    {"recipe": {}},
    {"recipe": {"name": "fixed_hessian"}},
    {"recipe": {**PLAN.recipe, "name": "no_such_recipe"}},
    {"recipe": {**PLAN.recipe, "steps": "8"}},
    {"recipe": {**PLAN.recipe, "epsilon": 2.0}},
    {"recipe": {**PLAN.recipe, "delta": 1e-6}},
    {"recipe": {**PLAN.recipe, "epsilon": None}},
]
TERMS: list[dict[str, Any]] = [
    {"epsilon": 0.0},
    {"epsilon": -1.0},
    {"epsilon": 101.0},
    {"epsilon": 2.0},  # lawful, but not the recipe's
    {"delta": 0.0},
    {"delta": 0.01},
    {"measurement_epsilon": 0.0},
    {"measurement_epsilon": 101.0},
    {"measurement_epsilon": float("nan")},
    {"measurement_epsilon": float("inf")},
    {"releases_per_window": 0},
    {"releases_per_window": 1001},
]
# Wrong in the privacy terms and in the recipe alike, so that the two agree.
ALIKE: list[dict[str, float]] = [{"epsilon": 0.0}, {"epsilon": 101.0}, {"delta": 0.0}, {"delta": 0.01}]
PLANS = [msgspec.structs.replace(PLAN, **change) for change in BROKEN] + [
    msgspec.structs.replace(PLAN, privacy=msgspec.structs.replace(PLAN.privacy, **change)) for change in TERMS
]
PLANS += [
    msgspec.structs.replace(
        PLAN, privacy=msgspec.structs.replace(PLAN.privacy, **change), recipe={**PLAN.recipe, **change}
    )
    for change in ALIKE
]


@pytest.mark.parametrize("plan", PLANS, ids=[str(number) for number in range(len(PLANS))])
def test_a_plan_that_does_not_add_up_is_neither_signed_nor_read(plan: TrainingPlan) -> None:
    with pytest.raises(MalformedError):
        sign_plan(plan, KEY)
    with pytest.raises(MalformedError):
        read_plan(_signed(msgspec.json.encode(plan, order="sorted")), KEY.public)


def test_a_run_is_named_by_its_plan_and_its_lanes_and_nothing_else() -> None:
    signed = sign_plan(PLAN, KEY)
    lanes = {"aster-bank": "head 1", "birch-telecom": "head 2"}
    name = run_id(signed, lanes)
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    assert run_id(signed, dict(reversed(lanes.items()))) == name
    assert run_id(SignedPlan(signed.payload, bytes(64)), lanes) == name
    assert run_id(sign_plan(msgspec.structs.replace(PLAN, name="second"), KEY), lanes) != name


@given(
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
def test_other_lane_heads_make_another_run(left: dict[str, str], right: dict[str, str]) -> None:
    """A withdrawal moves a head, so no release made before it is mistaken for one made after."""
    signed = sign_plan(PLAN, KEY)
    assert (run_id(signed, left) == run_id(signed, right)) is (left == right)


MANY = [RosterEntry(f"holder-{number}", bytes([number]) * 32) for number in range(1, 8)]


@pytest.mark.parametrize(("dropouts", "fewest", "adds_up"), [(2, 7, True), (2, 6, False), (1, 4, True), (1, 3, False)])
def test_more_than_three_data_holders_must_stay_for_each_drop_out(dropouts: int, fewest: int, adds_up: bool) -> None:
    """Otherwise half could be told that one left and the other half that it stayed, and it would be unmasked."""
    plan = msgspec.structs.replace(PLAN, roster=MANY, dropouts_tolerated=dropouts, minimum_holders=fewest)
    if adds_up:
        assert read_plan(sign_plan(plan, KEY), KEY.public) == plan
    else:
        with pytest.raises(MalformedError, match="drop-out"):
            sign_plan(plan, KEY)


@pytest.mark.parametrize("aggregation", Aggregation)
def test_visible_updates_may_be_aggregated_in_every_way(aggregation: Aggregation) -> None:
    plan = msgspec.structs.replace(PLAN, trust=TrustModel.HOLDER_NOISE, aggregation=aggregation, minimum_holders=1)
    assert read_plan(sign_plan(plan, KEY), KEY.public) == plan


def test_a_plan_for_another_schema_has_no_recipe_here() -> None:
    plan = msgspec.structs.replace(PLAN, schema_digest="0" * 64)
    with pytest.raises(RefusalError) as caught:
        recipe_of(plan, Encoder(SCHEMA))
    assert caught.value.code is RefusalCode.SCHEMA
