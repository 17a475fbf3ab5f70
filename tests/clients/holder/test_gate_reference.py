"""The gate asks about everybody at once; here the design's rule is read aloud, one person after the other."""

import math
from functools import partial
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.holder.gate import Question, decide_all
from privacy.consent.budget import aggregation_share, allowance_mu_squared
from privacy.consent.canonical import base64url
from privacy.consent.gate import Allow, GatePolicy, Interval, decide
from privacy.consent.lane import Head
from privacy.consent.merkle import EMPTY_ROOT
from privacy.consent.projection import ALLOW, REASON_CODES, Projection
from privacy.consent.record import ConsentRecord, Grant, Purpose, Signer, Terms, TrainingBudget
from privacy.consent.view import Conflict, LaneView
from privacy.discrete import mu_on_grid

AT = 1_793_491_200
DAY_S = 86_400
SUBJECTS = [bytes([number]) * 32 for number in range(6)]
CATEGORIES = frozenset({"capacity", "history"})
RECORD = ConsentRecord(
    aud="aster-bank",
    aud_kid=1,
    sub=base64url(bytes(32)),
    kid=base64url(bytes(16)),
    seq=1,
    prev=None,
    iat=AT,
    frozen=False,
    grants=(),
    terms=Terms(id="notice-1", sha256=base64url(bytes(32)), lang="en"),
    jur="TW",
    signer=Signer.SELF,
)


class Privacy(msgspec.Struct):
    epsilon: float = 1.0
    measurement_epsilon: float = 0.5
    delta: float = 1e-5
    releases_per_window: int = 2


class Plan(msgspec.Struct):
    """As much of a plan as the gate looks at."""

    coordinator: str = "open-scoring"
    not_before: int = AT
    ends: int = AT + 3600
    privacy: Privacy = msgspec.field(default_factory=Privacy)


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """So that many people are allowed: five of six times what is usual."""
    return st.sampled_from((usual,) * 5 * len(others) + others)


def standings() -> st.SearchStrategy[ConsentRecord | Conflict]:
    budgets = st.builds(
        TrainingBudget,
        share_milli=st.sampled_from((1, 300, 1000)),
        eps_milli=mostly(1000, 100, 250, 999, 8000),
        delta_log10=st.sampled_from((-5, -6)),
        window_s=st.sampled_from((DAY_S, 30 * DAY_S)),
    )

    def record(granted: Grant, frozen: bool) -> ConsentRecord:
        return msgspec.structs.replace(RECORD, grants=(granted,), frozen=frozen)

    granted = st.builds(
        Grant,
        purpose=mostly(Purpose.TRAIN, Purpose.VALIDATE),
        to=mostly("open-scoring", "somebody-else"),
        data=mostly(("capacity", "history"), ("capacity",)),
        nbf=mostly(AT - DAY_S, AT - 120, AT - 119),
        exp=mostly(AT + DAY_S, AT + 3600 + 121, AT + 3600 + 120),
        reconfirm_by=mostly(AT + DAY_S, AT + 3600 + 120),
        retain_s=st.just(DAY_S),
        dp=st.one_of(budgets, budgets, budgets, st.none()),
    )
    return st.builds(record, granted, mostly(False, True)) | st.just(Conflict(1))


def one_by_one(
    views: list[dict[bytes, ConsentRecord | Conflict]],
    handle: bytes,
    plan: Plan,
    purpose: Purpose,
    spent: float,
    counted: float,
) -> tuple[float, float] | str:
    """What `handle` is allowed, share and allowance, or why not: the design's rule read aloud."""
    epsilon = plan.privacy.measurement_epsilon if purpose is Purpose.VALIDATE else plan.privacy.epsilon
    plan_mu = mu_on_grid(epsilon, plan.privacy.delta)
    share = allowance = math.inf
    for view in views:
        decision = decide(
            LaneView(Head(0, EMPTY_ROOT), view), handle, purpose=purpose, recipient=plan.coordinator,
            interval=Interval(plan.not_before, plan.ends), categories=CATEGORIES,
            policy=GatePolicy(clock_skew_s=120),
        )  # fmt: skip
        if not isinstance(decision, Allow):
            return decision.reason.value
        if decision.budget is None:
            return "budget"
        here = aggregation_share(decision.budget, plan_mu=plan_mu, delta=1e-5, releases_per_window=2)
        allowed = allowance_mu_squared(decision.budget)
        kept_back = counted if counted > allowed / 100 else allowed / 100
        if here == 0 or spent + kept_back + (here * plan_mu) ** 2 > allowed * (1 + 1e-9):
            return "budget"
        share, allowance = min(share, here), min(allowance, allowed)
    return share, allowance


@settings(max_examples=300)
@given(
    st.lists(st.dictionaries(st.sampled_from(SUBJECTS), standings(), min_size=3), min_size=1, max_size=3),
    st.sets(st.sampled_from(SUBJECTS), min_size=3),
    mostly(Purpose.TRAIN, Purpose.VALIDATE),
    st.sampled_from((0.0, 0.0001, 0.003)),
    st.sampled_from((0.0, 0.0001, 0.003)),
)
def test_everybody_at_once_is_everybody_one_by_one(
    views: list[dict[bytes, ConsentRecord | Conflict]],
    linked: set[bytes],
    purpose: Purpose,
    spent: float,
    counted: float,
) -> None:
    plan = Plan()
    asked = Question(
        views=tuple(partial(Projection.of, list(view.items())) for view in views),
        links={f"customer {handle[0]}": handle for handle in sorted(linked)},
        plan=plan,  # type: ignore[arg-type]
        purpose=purpose,
        categories=CATEGORIES,
        policy=GatePolicy(clock_skew_s=120),
        spent=dict.fromkeys(linked, spent),
        counted=dict.fromkeys(linked, counted),
    )
    decisions = decide_all(asked)
    for place, handle in enumerate(sorted(linked)):
        code = int(decisions.codes[place])
        allowed = (float(decisions.shares[place]), float(decisions.allowances[place]))
        found = allowed if code == ALLOW else REASON_CODES[code].value
        assert found == one_by_one(views, handle, plan, purpose, spent, counted)
    assert decisions.same_as(decide_all(asked))
