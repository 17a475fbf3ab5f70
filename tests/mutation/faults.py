"""Faults that have cost others their guarantee, as exact replacements in the code; a text that moved is an error."""

from dataclasses import dataclass
from pathlib import Path

PROOF = "tests/privacy/proof"
NOISE = f"{PROOF}/test_noise.py"
REAL_RELEASES = f"{PROOF}/test_real_releases.py"
RECIPES = "tests/federated/recipes"
HOLDER = "tests/clients/holder"


@dataclass(frozen=True)
class Replacement:
    """One text in one file; it must stand there exactly once."""

    path: str
    old: str
    new: str

    def planted(self, text: str) -> str:
        """The file's text with the fault in it."""
        found = text.count(self.old)
        assert found == 1, f"{self.path} holds the text of a planted fault {found} times; write the fault anew"
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, in words, and where it is planted."""

    name: str
    replacements: tuple[Replacement, ...]
    proof: str = f"{PROOF}/test_charges.py"  # who is asked, as pytest names it; passes where nothing is planted

    def planted(self, root: Path) -> dict[str, str]:
        """Every file's text with the fault in it, by path; the files stay as they are."""
        texts: dict[str, str] = {}
        for replacement in self.replacements:
            path = replacement.path
            texts[path] = replacement.planted(texts.get(path) or (root / path).read_text(encoding="utf-8"))
        return texts


RELEASE = "clients/holder/release.py"
NODE = "clients/holder/node.py"
LOCAL_SGD = "federated/recipes/local_sgd.py"
CLIPPED_SUMS = "federated/recipes/clipped_sums.py"
FIXED_HESSIAN = "federated/recipes/fixed_hessian.py"
UNIT_ROWS = "federated/recipes/unit_rows.py"
SOURCE = "SecureNoise() if seed is None else SeededNoise(seed, label)"

FAULTS = (
    Fault(
        "noise halved where it is sized",
        (Replacement("privacy/discrete.py", "(1 + 1e-12) / mu) ** 2)", "(1 + 1e-12) / (2 * mu)) ** 2)"),),
    ),
    Fault(
        "noise halved where it is drawn",
        (Replacement(RELEASE, "shape.length, variance, chance)", "shape.length, variance // 4, chance)"),),
        NOISE,
    ),
    Fault(
        "noise x 0.1",
        (Replacement(RELEASE, "shape.length, variance, chance)", "shape.length, variance // 100, chance)"),),
        NOISE,
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
        "shares ignored in the centre's round",
        (
            Replacement(
                UNIT_ROWS,
                "rows.share[block] @ clip_to_norm(rows.x[block], radius)",
                "clip_to_norm(rows.x[block], radius).sum(axis=0)",
            ),
        ),
    ),
    Fault(
        "shares ignored in the head count",
        (Replacement(UNIT_ROWS, "rows.share[block].sum()", "len(rows.share[block])"),),
    ),
    Fault(
        "a probability that depends on who else is there",
        (
            Replacement(
                "federated/recipes/row_products.py", 'np.einsum("ij,j->i", rows, vector)', "rows @ vector",
            ),
        ),
        f"{RECIPES}/test_alone.py::test_no_instruction_lets_one_person_move_a_sum_further_than_the_sensitivity",
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
        (Replacement(RELEASE, SOURCE, 'SeededNoise(0, label.split("/")[0])'),),
        REAL_RELEASES,
    ),
    Fault(
        "the same noise at every data holder",
        (Replacement(RELEASE, SOURCE, 'SeededNoise(0, label.partition("/")[2])'),),
        REAL_RELEASES,
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
        REAL_RELEASES,
    ),
    Fault(
        "drop-outs forgotten in each data holder's part of the noise",
        (
            Replacement(
                "federated/releases.py", "return -(-self.variance // (members - dropouts_tolerated))",
                "return -(-self.variance // members)",
            ),
        ),
        NOISE,
    ),
    Fault(
        "masked sums with a quarter of the noise",
        (Replacement(RELEASE, "shape.length, variance, chance)", "shape.length, variance // 4, chance)"),),
        f"{PROOF}/test_masked_releases.py",
    ),
    Fault(
        "the coordinator's own noise forgotten",
        (Replacement("server/sums.py", "add_words([exact, grid.from_steps(drawn)])", "add_words([exact])"),),
        "tests/server/test_sums.py::test_the_coordinators_noise_is_added_once_and_has_the_plans_variance",
    ),
    Fault(
        "rounding left out of what a small share costs",
        (Replacement("federated/releases.py", "if self.variance == 0:\n", "if self.variance >= 0:\n"),),
        f"{HOLDER}/test_permits.py::test_what_rounding_alone_would_cost_is_kept_back_and_who_has_no_more_is_left_out",
    ),
    Fault(
        "rounding left out where a round is computed",
        (Replacement(NODE, "rows.outcome, weights(rows.shares))", "rows.outcome, rows.shares)"),),
        f"{HOLDER}/test_release.py::test_no_single_update_says_anything_and_their_unmasked_sum_is_the_plain_sum",
    ),
    Fault(
        "shares ignored in the measurement",
        (Replacement(NODE, "_counts(bands, weights * outcome,", "_counts(bands, (weights >= 0) * outcome,"),),
        REAL_RELEASES,
    ),
    Fault(
        "the measurement's base rate at full scale",
        (Replacement(NODE, "everybody = BASE_RATE_SCALE * np.array(", "everybody = 1 * np.array("),),
        REAL_RELEASES,
    ),
    Fault(
        "clipping off in local steps",
        (Replacement(CLIPPED_SUMS, "    np.minimum(residual, largest, out=residual)\n", ""),),
        f"{RECIPES}/test_local_sgd.py::test_no_person_moves_a_step_further_than_share_times_the_clipping_norm",
    ),
    Fault(
        "clipping off in networks",
        (
            Replacement(
                CLIPPED_SUMS, "(self._clipping_norm / np.maximum(length, self._clipping_norm)) * table", "table",
            ),
        ),
        f"{RECIPES}/test_local_sgd.py::test_no_person_moves_a_step_further_than_share_times_the_clipping_norm",
    ),
    Fault(
        "noise off in local steps",
        (Replacement(LOCAL_SGD, "if self._deviation:", "if self._deviation < 0:"),),
        f"{RECIPES}/test_local_sgd.py::test_a_silent_change_is_noise_of_exactly_the_charged_size",
    ),
    Fault(
        "one epoch of local steps charged, whatever was taken",
        (Replacement(LOCAL_SGD, "epochs=self._epochs(round_number))", "epochs=1)"),),
        f"{RECIPES}/test_local_sgd.py::test_steps_batches_and_noise_taken_are_the_ones_charged",
    ),
    Fault(
        "sampled steps judged at the plan's delta alone",
        (Replacement("clients/holder/permits.py", "passed |= passes(delta=own)", "_ = passes(delta=own)"),),
        f"{HOLDER}/test_own_delta.py::"
        "test_nobody_is_in_a_sampled_run_that_passes_the_cap_at_their_own_delta",
    ),
    Fault(
        "people counted for a dry run, and not charged",
        (
            Replacement(
                "clients/holder/coverage.py", "dict.fromkeys(allowances, 1.0)", "dict.fromkeys(allowances, 0.0)",
            ),
        ),
        f"{HOLDER}/test_coverage.py::test_everybody_who_is_counted_is_charged_and_nobody_else",
    ),
)  # fmt: skip
