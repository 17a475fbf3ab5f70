"""A preview in words for whoever decides, and as facts for machines. Neither holds a handle, a key or a row."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, assert_never

from clients.holder.consents import utc
from clients.holder.ledger_told import NEIGHBOURING, UNIT
from clients.holder.letters import Kind, Leaving
from clients.holder.preview import Preview, purpose_of
from federated.coverage import DEVIATION
from federated.exclusions import exclusions
from federated.releases import measurement_stage
from federated.trust import TrustModel
from privacy.consent.record import Purpose

NOTHING_DONE = "Nothing was sent, charged or written. How many people are permitted stays in the house."
_UNCOUNTED = (
    "Bytes are the letters' content: what TLS and Flower wrap around it comes on top and holds nothing of ours. In "
    "place of any letter a refusal may leave, which is our name and a code. Answers to score requests are no part of a "
    "plan."
)


def tell(preview: Preview, *, at: int) -> tuple[dict[str, Any], list[str]]:
    """Facts and lines."""
    return _facts(preview, at), [*_head(preview), *_letters(preview), *_sources(preview), *_price(preview),
                                 *_judgement(preview), NOTHING_DONE]  # fmt: skip


def to_whom(preview: Preview, kind: Kind) -> str:
    """Who can read a letter of this kind; all of them go to the coordinator, over one connection."""
    coordinator = preview.run.plan.coordinator
    match kind:
        case Kind.DEALT:
            return f"each other data holder, sealed, through {coordinator}"
        case Kind.JOINED | Kind.RECEIVED | Kind.UPDATE | Kind.REVEALED:
            return coordinator
        case _:
            assert_never(kind)


def what(preview: Preview, kind: Kind) -> str:
    """What a letter of this kind says, in words."""
    match kind:
        case Kind.JOINED:
            keys = "fresh public keys of this run, " if preview.run.plan.trust.is_masked else ""
            return f"our signed yes, {keys}how far our ledger is; and so, that enough people are permitted here"
        case Kind.DEALT:
            return "shares of our masks' secrets, sealed to each other data holder; made by chance, of no row"
        case Kind.RECEIVED:
            return "that everybody's shares arrived and open"
        case Kind.UPDATE:
            return f"sums over our permitted people, {_seen(preview)}; a commitment to who they are, for auditors only"
        case Kind.REVEALED:
            return "shares that take the masks off the sum of all, never off our part alone"
        case _:
            assert_never(kind)


def _seen(preview: Preview) -> str:
    if preview.noise[1].whole is None and preview.run.recipe.is_private:
        masked = preview.run.plan.trust.is_masked
        read = "masked: only the sum over all data holders can be read" if masked else "and the coordinator reads them"
        return f"in the rounds with the noise that our people need inside them, {read}"
    match preview.run.plan.trust:
        case TrustModel.SHARED_NOISE:
            return "with our part of the noise, masked: only the sum over all data holders can be read"
        case TrustModel.HOLDER_NOISE:
            return "with all the noise that our people need: the coordinator reads them"
        case TrustModel.COORDINATOR_NOISE:
            return "WITHOUT NOISE, masked: the coordinator reads the exact sum over all data holders"
        case trust:
            assert_never(trust)


def _release(preview: Preview, stage: int | None) -> str:
    run = preview.run
    return "measurement" if stage == measurement_stage(run.recipe) else f"round {stage} of {run.recipe.rounds}"


def _head(preview: Preview) -> Iterator[str]:
    run, plan = preview.run, preview.run.plan
    yield f"Plan {plan.name} of {plan.coordinator}, digest {run.digest}"
    yield f"  {run.recipe.name.value}: {plan.reason}"
    yield (
        f"  {len(plan.roster)} data holders, at least {plan.minimum_holders}; {plan.trust.value}; "
        f"due from {utc(plan.not_before)} to {utc(plan.ends)}"
    )
    if not preview.named:
        yield "  Without --checkpoints the run has no name yet; everything else is as it will be."
    elif preview.made_before:
        yield (
            f"  This very run was begun here: {preview.made_before} of its releases were made and charged, and would "
            "be sent again as they are."
        )
    if plan.seed is not None or not run.recipe.is_private:
        yield "  NOT PRIVATE: its noise is seeded or there is none."


def _letters(preview: Preview) -> Iterator[str]:
    yield f"What would leave this house, in this order, all of it to {preview.run.plan.coordinator}:"
    yield "      bytes  numbers  letter"
    for letters in _alike(preview):
        size, numbers = sum(letter.size for letter in letters), letters[0].numbers
        yield f"{size:>11,}  {f'{numbers:,}' if numbers else '':>7}  {_named(preview, letters)}"
    yield f"{sum(letter.size for letter in preview.letters):>11,}           in {len(preview.letters)} letters"
    for kind in dict.fromkeys(letter.kind for letter in preview.letters):
        yield f"  {kind.value}: {what(preview, kind)}."
    yield f"  noise: its standard deviation, over the most that one person can add. {_UNCOUNTED}"
    yield (
        f"  Before runs the coordinator may ask whether we would take part (a dry run): each time about "
        f"{preview.enquiry_size:,} bytes more, with the number of people who may be trained on, noised by "
        f"{DEVIATION:.0f} people; {preview.enquiry_cost.text()} for each, charged each time that it asks about another "
        "plan or over other lane heads, until the hundredth of their budget that is kept for it is used up."
    )


def _alike(preview: Preview) -> Iterator[list[Leaving]]:
    """The letters before the first release one by one, then those of one kind of releases that are alike."""
    yield from ([letter] for letter in preview.letters if letter.stage is None)
    later = [letter for letter in preview.letters if letter.stage is not None]
    lengths = {letter.stage: letter.numbers for letter in later if letter.kind is Kind.UPDATE}

    def sort(letter: Leaving) -> tuple[object, ...]:
        stage = letter.stage or 0
        return purpose_of(preview.run, stage), lengths[stage], preview.noise[stage]

    for _, releases in groupby(later, sort):
        some = list(releases)
        for kind in dict.fromkeys(letter.kind for letter in some):
            yield [letter for letter in some if letter.kind is kind]


def _named(preview: Preview, letters: Sequence[Leaving]) -> str:
    kind, stages = letters[0].kind, [letter.stage for letter in letters if letter.stage is not None]
    if not stages:
        return kind.value
    told = f"{kind.value} in {_span(preview, stages)}"
    if kind is Kind.UPDATE:
        source = preview.sources[purpose_of(preview.run, stages[0])]
        told += f", from {source.table} to {source.purpose.value}; noise {_noise_words(preview, stages[0])}"
    return told


def _sources(preview: Preview) -> Iterator[str]:
    yield "What it is made of:"
    for purpose, source in preview.sources.items():
        found = f"{source.people:,} people permitted now" if source.people is not None else f"not known: {source.why}"
        yield f"  {purpose.value}: rows of {source.table}; {found}"


def _price(preview: Preview) -> Iterator[str]:
    run, recipe = preview.run, preview.run.recipe
    yield f"What it costs one person with share 1 (unit: {UNIT}; {NEIGHBOURING}), who is in one of the two tables:"
    for purpose, cost in preview.costs.items():
        no_bound = purpose is Purpose.TRAIN and not recipe.is_private
        yield f"  {purpose.value}: {'NOT PRIVATE, without a bound' if no_bound else cost.text()}"
    promised = run.plan.privacy
    yield (
        f"  promised: epsilon {promised.epsilon:g} to train and {promised.measurement_epsilon:g} to measure, at delta "
        f"{promised.delta:g}"
    )
    yield f"  accounted by: {recipe.accountant}"
    yield from (f"  not covered: {text}" for text in _excludes(preview))


def _excludes(preview: Preview) -> tuple[str, ...]:
    run = preview.run
    return exclusions(run.plan, run.recipe, holders=len(run.plan.roster))


def _noise_words(preview: Preview, stage: int) -> str:
    noise = preview.noise[stage]
    if noise.whole is None:
        return "inside the numbers" if preview.run.recipe.is_private else "NONE"
    own = f"{noise.own:.3g} ours" if noise.own is not None else "none of ours"
    return f"{own}, {noise.whole:.3g} in the whole sum"


def _span(preview: Preview, stages: Sequence[int]) -> str:
    if len(stages) == 1:
        return _release(preview, stages[0])
    return f"rounds {stages[0]} to {stages[-1]} of {preview.run.recipe.rounds}, together"


def _judgement(preview: Preview) -> Iterator[str]:
    refused = [term for term in preview.terms if not term.holds]
    yield "What our policy says:"
    for term in preview.terms:
        if term.holds:
            yield f"  allowed  {term.name}: {term.asked}"
        else:
            yield f"  REFUSED  {term.name}: {term.refusal} ({term.code.value})"
    yield (
        f"So this data holder would refuse the plan now, for {len(refused)} of {len(preview.terms)} terms."
        if refused
        else "So this data holder would take part. It syncs its lane once more before it reads a row."
    )


def _facts(preview: Preview, at: int) -> dict[str, Any]:
    run, plan = preview.run, preview.run.plan
    return {
        "at": at,
        "plan": {"name": plan.name, "digest": run.digest, "coordinator": plan.coordinator,
                 "recipe": run.recipe.name.value, "trust": plan.trust.value, "not_before": plan.not_before,
                 "ends": plan.ends},
        "run": run.name if preview.named else None,
        "releases_made_before": preview.made_before,
        "allowed": all(term.holds for term in preview.terms),
        "letters": [
            {
                "kind": letter.kind.value,
                "release": None if letter.stage is None else _release(preview, letter.stage),
                "to": to_whom(preview, letter.kind),
                "what": what(preview, letter.kind),
                "numbers": letter.numbers,
                "bytes": letter.size,
                **_made_of(preview, letter),
            }
            for letter in preview.letters
        ],
        "bytes": sum(letter.size for letter in preview.letters),
        "dry_run": {"bytes_about": preview.enquiry_size, "deviation": DEVIATION, **preview.enquiry_cost.facts()},
        "sources": [
            {"purpose": purpose.value, "table": source.table, "people_permitted": source.people, "why": source.why}
            for purpose, source in preview.sources.items()
        ],
        "cost": {
            "unit": UNIT,
            "neighbouring": NEIGHBOURING,
            "accountant": run.recipe.accountant,
            "promised": {"epsilon": plan.privacy.epsilon, "measurement_epsilon": plan.privacy.measurement_epsilon,
                         "delta": plan.privacy.delta},
            **{purpose.value: cost.facts() for purpose, cost in preview.costs.items()},
            "excludes": list(_excludes(preview)),
        },
        "terms": [
            {"term": term.name, "asked": term.asked, "allowed": term.holds,
             "refusal": None if term.holds else term.refusal, "code": None if term.holds else term.code.value}
            for term in preview.terms
        ],
        "stays_in_the_house": True,
    }  # fmt: skip


def _made_of(preview: Preview, letter: Leaving) -> dict[str, Any]:
    if letter.kind is not Kind.UPDATE or letter.stage is None:
        return {"purpose": None, "table": None, "noise_own": None, "noise_whole": None}
    purpose, noise = purpose_of(preview.run, letter.stage), preview.noise[letter.stage]
    return {
        "purpose": purpose.value,
        "table": preview.sources[purpose].table,
        "noise_own": noise.own,
        "noise_whole": noise.whole,
    }
