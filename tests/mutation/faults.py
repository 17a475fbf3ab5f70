"""Faults that have cost others their guarantee, as exact replacements in the code; a text that moved is an error."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Replacement:
    """One text in one file; it must stand there exactly once."""

    path: str
    old: str
    new: str

    def plant(self, tree: Path) -> None:
        file = tree / self.path
        text = file.read_text(encoding="utf-8")
        found = text.count(self.old)
        assert found == 1, f"{self.path} holds the text of a planted fault {found} times; write the fault anew"
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Fault:
    """What goes wrong, in words, and how it is planted."""

    name: str
    replacements: tuple[Replacement, ...]
    proof: str = "charges"  # which proof tests are asked; all of them pass where nothing is planted


RELEASE = "clients/holder/release.py"
FIXED_HESSIAN = "federated/recipes/fixed_hessian.py"
UNIT_ROWS = "federated/recipes/unit_rows.py"

FAULTS = (
    Fault(
        "noise halved where it is sized",
        (Replacement("privacy/discrete.py", "(1 + 1e-12) / mu) ** 2)", "(1 + 1e-12) / (2 * mu)) ** 2)"),),
    ),
    Fault(
        "noise halved where it is drawn",
        (Replacement(RELEASE, "shape.length, variance, chance)", "shape.length, variance // 4, chance)"),),
        "noise",
    ),
    Fault(
        "noise x 0.1",
        (Replacement(RELEASE, "shape.length, variance, chance)", "shape.length, variance // 100, chance)"),),
        "noise",
    ),
    Fault(
        "clipping off",
        (
            Replacement(
                UNIT_ROWS, "scale * np.minimum(1.0, radius / np.maximum(norms, 1e-12))", "np.full_like(norms, scale)"
            ),
        ),
    ),
    Fault(
        "clipping off in the centre's round",
        (
            Replacement(
                UNIT_ROWS,
                "rows.share[block] @ clip_to_norm(rows.x[block], radius)",
                "rows.share[block] @ rows.x[block]",
            ),
        ),
    ),
    Fault(
        "every round spends the whole budget, and one is charged",
        (
            Replacement(
                FIXED_HESSIAN,
                "unit_rows.total_mu(self.epsilon, self.delta) * math.sqrt(part)",
                "unit_rows.total_mu(self.epsilon, self.delta) * (part >= 0)",
            ),
            Replacement(
                FIXED_HESSIAN,
                "return GaussianSpend(mu) if self.is_private",
                "return GaussianSpend(mu * math.sqrt(self._part(round_number))) if self.is_private",
            ),
        ),
    ),
    Fault(
        "the same noise in every round",
        (Replacement(RELEASE, "return SecureNoise()", "return SeededNoise(0, self._holder)"),),
        "real_releases",
    ),
    Fault(
        "the same noise at every data holder",
        (Replacement(RELEASE, "return SecureNoise()", 'return SeededNoise(0, f"{run.digest}/{stage}/{use}")'),),
        "real_releases",
    ),
    Fault(
        "shares ignored",
        (
            Replacement(
                UNIT_ROWS,
                "residual = rows.share[block] * (probability_of(log_odds) - rows.bad[block])",
                "residual = probability_of(log_odds) - rows.bad[block]",
            ),
        ),
    ),
    Fault(
        "shares ignored in the curvature",
        (Replacement(UNIT_ROWS, "(unit * rows.share[block, None]).T @ unit", "unit.T @ unit"),),
    ),
    Fault(
        "centre not charged",
        (
            Replacement(
                FIXED_HESSIAN,
                "return GaussianSpend(mu) if self.is_private",
                "return GaussianSpend(mu * (self._stage(round_number) is not _Stage.CENTRE)) if self.is_private",
            ),
        ),
    ),
    Fault(
        "measurement not charged",
        (
            Replacement(
                "clients/holder/node.py", "spend=lambda _: measurement_spend(run.plan),",
                "spend=lambda _: type(measurement_spend(run.plan))(0.0),",
            ),
        ),
        "real_releases",
    ),
    Fault(
        "drop-outs forgotten in each data holder's part of the noise",
        (
            Replacement(
                "federated/releases.py", "return -(-self.variance // (members - dropouts_tolerated))",
                "return -(-self.variance // members)",
            ),
        ),
        "noise",
    ),
)  # fmt: skip
