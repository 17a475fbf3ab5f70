"""`report.json`: the figures of a run for machines. The keys are a contract; unknown is null, never 0."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

import numpy as np

from experiments.report.values import DemoResult, Evaluation, Fairness, HolderResult
from federated.metrics import Metrics

SCHEMA_VERSION: Final = 1
NOT_PRIVATE: Final = "NOT PRIVATE: the noise came from a seed, so this run protects nobody."

Json = dict[str, object]


def report_figures(result: DemoResult) -> Json:
    """Everything `report.json` says; `not_private`, `privacy.second_accountant` and `metrics.opacus_fedavg` go
    beyond the contract."""
    evaluations, privacy, consent = result.evaluations, result.privacy, result.consent
    figures: Json = {
        "schema_version": SCHEMA_VERSION,
        "not_private": result.not_private,
        "dataset": result.data.name,
        "rows": result.rows,
        "holders": len(result.holders),
        "rounds": result.rounds,
        "recipe": result.recipe,
        "privacy": {
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "unit": privacy.unit,
            "adjacency": privacy.adjacency,
            "accountant": privacy.accountant,
            "second_accountant": {"name": privacy.second_accountant, "epsilon": privacy.second_epsilon},
            "excludes": [NOT_PRIVATE, *privacy.excludes] if result.not_private else [*privacy.excludes],
        },
        "consent": {
            "subjects": consent.subjects,
            "rows_held": consent.rows_held,
            "rows_permitted": consent.rows_permitted,
            "rows_used_without_consent": consent.rows_used_without_consent,
            "refusals": dict(consent.refusals),
        },
        "metrics": {
            "pooled": _metrics(evaluations.pooled),
            "federated": _metrics(evaluations.federated),
            "federated_private": _metrics(evaluations.federated_private),
            "local_only": _metrics(evaluations.local_only),
            "opacus_fedavg": _metrics(evaluations.opacus_fedavg),
        },
        "per_holder": [_holder(holder) for holder in result.holders],
        "fairness": None if result.fairness is None else _fairness(result.fairness),
        "seconds": result.seconds,
        "versions": dict(result.versions),
    }
    return {key: _plain(value) for key, value in figures.items()}


def report_json(result: DemoResult) -> str:
    """The text of `report.json`, the same for the same result."""
    return json.dumps(report_figures(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _metrics(evaluation: Evaluation | None) -> Json:
    return {**(Metrics() if evaluation is None else evaluation.metrics).to_dict()}


def _holder(holder: HolderResult) -> Json:
    return {
        "name": holder.name,
        "rows": holder.rows,
        "people_permitted": holder.people_permitted,
        "auc_alone": holder.auc_alone,
        "bad_rate": holder.bad_rate,
    }


def _fairness(fairness: Fairness) -> Json:
    return {
        "cut_off": fairness.cut_off,
        "attributes": {
            attribute: {group: asdict(audited) for group, audited in groups.items()}
            for attribute, groups in fairness.attributes.items()
        },
    }


def _plain(value: object) -> object:
    """`value` without numpy types; a number that is none becomes null, which JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
