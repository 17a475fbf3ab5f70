"""What a data holder's refusal means and whose task it is, in words: nothing but the code has left its house."""

from typing import assert_never

from privacy.errors import RefusalCode


def meaning(code: RefusalCode) -> str:
    """One sentence about `code`, with what to do next."""
    match code:
        case RefusalCode.BUDGET:
            return (
                "the plan costs more epsilon or delta than its policy allows, or more than its people have left. Plan "
                "a smaller epsilon, or agree with the data holder on a larger one."
            )
        case RefusalCode.BUNDLE:
            return (
                "it has not approved this installation's app bundle. Tell it the digest; its operator compares "
                "versions and adds it to policy.bundles."
            )
        case RefusalCode.COHORT:
            return (
                "too few people there have a consent in force that covers the plan, or its tables are larger than its "
                "policy's most_people. Ask its operator; people may be asked for consent, or sit this run out."
            )
        case RefusalCode.CONSENT:
            return "consents changed while it answered. Ask it again."
        case RefusalCode.LANE:
            return (
                "its copy of the consent lane is not as new as this takes, or the registry does not answer it. Its "
                "operator should run `fedcredit holder sync`; then ask again."
            )
        case RefusalCode.PLAN:
            return (
                "the plan is not due, lacks it in the roster, or does not add up for it. Look at the plan's hours and "
                "roster (`fedcredit coordinator plan --show`), and write another."
            )
        case RefusalCode.POLICY:
            return (
                "its policy allows something in the plan or the hour not: recipe, trust model, peers, purposes, hours, "
                "fewest people or openings a day. Its operator sees which in its log and with `fedcredit holder "
                "preview`."
            )
        case RefusalCode.REPLAY:
            return "it was asked for something else under this name before. Write another plan."
        case RefusalCode.SCHEMA:
            return "it has another schema. Agree on one file with it, and write the plan anew."
        case RefusalCode.INTEGRITY:
            return (
                "something contradicts a signature, a hash or a history: the plan's signature, its lane or its ledger. "
                "Its operator should look into its log at once; nobody should run until that is explained."
            )
        case RefusalCode.INTERNAL:
            return "something broke at its end. Its operator sees what in its log, or with `fedcredit doctor`."
        case _:
            assert_never(code)
