"""`fedcredit wallet grant | withdraw | freeze | thaw`: four wishes, one and the same kind of record."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import click

from clients.wallet.access import Access, show_alarms
from clients.wallet.book import Book
from clients.wallet.sending import Delivery, Sender
from clients.wallet.state import Account
from clients.wallet.wishes import Wishes, matches
from federated.files import write_whole
from privacy.consent.budget import TIERS, tier_of
from privacy.consent.limits import DAY_S, MAX_GRANT_S, MAX_RETAIN_S, NAME_PATTERN
from privacy.consent.record import Grant, Purpose, TrainingBudget, Uses
from privacy.consent.submission import frame
from privacy.errors import FedcreditError, RefusalCode, RefusalError, TamperingError, UsageError

_STATISTICS = (Purpose.TRAIN, Purpose.VALIDATE)
_MOST_DAYS = MAX_GRANT_S // DAY_S
_DECIMAL = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?\Z", re.ASCII)
# A day that has only just begun has not begun by a clock that is late; twice the skew that clocks may have, and room.
_YOUNG_S = 600
_FORGOTTEN = (
    "This wallet was made again from its code, and does not know the shares that were lent before, here or at other "
    "data holders. They may still count: keep them and this one at 1 together, or wait until their windows have passed."
)


def whole_days(at: int, days: int) -> tuple[int, int]:
    """The first and last instant (exclusive), UTC midnights, of so many days of which today is the first.

    The second would tell data holders who compare that one person granted at all of them. A day that began less than
    ten minutes ago is begun a day early, so that a grant counts at once; never more than 400 days in all.
    """
    today = at - at % DAY_S
    begin = today - DAY_S if at - today < _YOUNG_S else today
    return begin, min(today + days * DAY_S, begin + MAX_GRANT_S)


def _thousandths(most: int) -> Callable[[str], int]:
    """Reads a decimal number as a whole number of thousandths: a float would not be what the person typed."""

    def number(value: str) -> int:
        milli = int(Decimal(value) * 1000) if _DECIMAL.match(value) else 0
        if not 1 <= milli <= most:
            raise click.BadParameter(f"from 0.001 to {most / 1000:g}, with at most three decimals, is needed.")
        return milli

    return number


def name(value: str) -> str:
    """Reads the name of a recipient or data holder."""
    if not re.match(NAME_PATTERN, value) or len(value) > 64:
        raise click.BadParameter("lower-case letters and digits, joined by . _ or -, are needed.")
    return value


_PURPOSE = click.Choice([purpose.value for purpose in Purpose])
_DIRECT = click.option(
    "--direct-out", type=click.Path(path_type=Path), default=None,
    help="Write the sealed record into this file as well, to hand it to the data holder in any other way.",
)  # fmt: skip


@click.command(
    epilog="Example: fedcredit wallet grant aster --purpose train --to open-scoring --data capacity --days 365 "
    "--retain-days 365 --epsilon 1 --share 0.5"
)
@click.argument("holder", type=name)
@click.option("--purpose", type=_PURPOSE, required=True, help="What the data may be used for; none implies another.")
@click.option("--to", type=name, required=True, help="The coordinator or lender that it is granted to.")
@click.option("--data", multiple=True, required=True, help="A category of data; give it once for each.")
@click.option(
    "--days",
    type=click.IntRange(1, _MOST_DAYS),
    required=True,
    help="In force for so many days of UTC; today is the first.",
)
@click.option("--reconfirm-days", type=click.IntRange(1, _MOST_DAYS), default=None,
              help="Pause after so many days until it is granted again; as --days if not given.")  # fmt: skip
@click.option("--retain-days", type=click.IntRange(0, MAX_RETAIN_S // DAY_S), required=True,
              help="How long results may be kept.")  # fmt: skip
@click.option("--epsilon", type=_thousandths(100_000), default=None,
              help="train, validate: the most that statistics may tell of you in one window.")  # fmt: skip
@click.option("--share", type=_thousandths(1000), default=None,
              help="train, validate: your part in the sum, 1 at most over all data holders.")  # fmt: skip
@click.option("--delta-log10", type=click.IntRange(-15, -3), default=-5, show_default=True,
              help="train, validate: epsilon holds but for this probability, as a power of ten.")  # fmt: skip
@click.option("--window-days", type=click.IntRange(1, _MOST_DAYS), default=365, show_default=True,
              help="train, validate: the window in which epsilon is the most.")  # fmt: skip
@click.option("--uses", type=click.IntRange(1, 1_000_000), default=None, help="score, monitor: at most so many answers")
@click.option("--per-days", type=click.IntRange(1, _MOST_DAYS), default=None, help="in any so many days.")
@_DIRECT
@click.pass_obj
def grant(
    access: Access, holder: str, purpose: str, to: str, data: tuple[str, ...], days: int, reconfirm_days: int | None,
    retain_days: int, epsilon: int | None, share: int | None, delta_log10: int, window_days: int, uses: int | None,
    per_days: int | None, direct_out: Path | None,
) -> None:  # fmt: skip
    """Add one grant to your wishes at HOLDER, or replace the one for the same purpose and recipient.

    It counts at once. Days are whole days of UTC and today is the first, so that data holders who compare what they
    have cannot tell by the second that two grants are one person's.

    A wallet made again with `init --recover` does not know the shares that you lent before. They may still count until
    their windows have passed: it is then for you to keep all shares together, those and new ones, at 1.
    """
    kind = Purpose(purpose)
    pause = days if reconfirm_days is None else reconfirm_days
    if pause > days:
        raise UsageError("--reconfirm-days cannot be more than --days; a grant that has ended needs no confirmation.")
    budget, limit = _terms(kind, epsilon, share, delta_log10, window_days, uses, per_days)
    at = access.world.now()
    begin, end = whole_days(at, days)
    wanted = Grant(
        purpose=kind, to=to, data=tuple(sorted(set(data))), nbf=begin, exp=end,
        reconfirm_by=min(whole_days(at, pause)[1], end), retain_s=retain_days * DAY_S, dp=budget, uses=limit,
    )  # fmt: skip

    def change(account: Account) -> Callable[[Wishes], Wishes]:
        if unknown := sorted(set(data) - set(account.categories)):
            raise UsageError(
                f"--data {unknown[0]!r} is no category there; this data holder has: {', '.join(account.categories)}."
            )
        return lambda wishes: wishes.granting(wanted)

    _carry_out(access, [holder], change, direct_out, done="granted", lends=budget is not None, at=at)
    if budget is not None:
        _tell_tier(budget)


@click.command(epilog="Example: fedcredit wallet withdraw aster")
@click.argument("holder", type=name, required=False)
@click.option("--purpose", type=_PURPOSE, default=None, help="Only what was granted for this purpose.")
@click.option("--to", type=name, default=None, help="Only what was granted to this recipient.")
@click.option("--all", "everywhere", is_flag=True, help="At every data holder, instead of one.")
@_DIRECT
@click.pass_obj
def withdraw(
    access: Access, holder: str | None, purpose: str | None, to: str | None, everywhere: bool, direct_out: Path | None
) -> None:  # fmt: skip
    """Take back everything granted at HOLDER, or what the options name. It can always be done."""
    if (holder is None) != everywhere:
        raise UsageError("name one data holder, or give --all for every one.")
    wanted = None if purpose is None else Purpose(purpose)

    def change(account: Account) -> Callable[[Wishes], Wishes]:
        ever = [grant for written in account.written for grant in written.record.grants]
        # A misspelt withdrawal must not look like one that was done.
        narrowed = not everywhere and (wanted is not None or to is not None)
        if narrowed and account.known and not any(matches(grant, wanted, to) for grant in ever):
            raise UsageError(
                "nothing of that kind was ever granted there; `fedcredit wallet status` shows what is. Without options "
                "everything there is withdrawn."
            )
        return lambda wishes: wishes.without(purpose=wanted, to=to)

    _carry_out(access, [holder] if holder else None, change, direct_out, done="withdrawn", at=access.world.now())


@click.command(epilog="Example: fedcredit wallet freeze")
@click.argument("holder", type=name, required=False)
@_DIRECT
@click.pass_obj
def freeze(access: Access, holder: str | None, direct_out: Path | None) -> None:
    """Stop every use at every data holder, or at HOLDER alone. What you granted stays written, and rests."""
    _carry_out(
        access, [holder] if holder else None, lambda _: lambda wishes: wishes.with_freeze(True), direct_out,
        done="frozen", at=access.world.now(),
    )  # fmt: skip


@click.command(epilog="Example: fedcredit wallet thaw aster")
@click.argument("holder", type=name, required=False)
@_DIRECT
@click.pass_obj
def thaw(access: Access, holder: str | None, direct_out: Path | None) -> None:
    """End a freeze at every data holder, or at HOLDER alone. What you granted before is in force again."""
    _carry_out(
        access, [holder] if holder else None, lambda _: lambda wishes: wishes.with_freeze(False), direct_out,
        done="thawed", at=access.world.now(),
    )  # fmt: skip


def _carry_out(
    access: Access, holders: list[str] | None, change: Callable[[Account], Callable[[Wishes], Wishes]],
    direct_out: Path | None, *, done: str, at: int, lends: bool = False,
) -> None:  # fmt: skip
    """Change the wishes at each data holder by itself: one that cannot be reached stops no other."""
    if direct_out is not None and (holders is None or direct_out.exists()):
        what = "needs one data holder: name it" if holders is None else "exists and is left as it is: name another"
        raise UsageError(f"the file for --direct-out {what}.")
    failures: list[FedcreditError] = []
    with access.opened() as book:
        before = book.state.alarms
        sender = access.sender(book)
        names = holders or [account.holder for account in book.state.accounts]
        for each in names:
            if lends and book.state.recovered and not _lent_since(book.account(each)):
                click.echo(_FORGOTTEN, err=True)
            failure = _at_one(book, sender, each, change, done=done, alone=holders is not None, at=at)
            if failure is not None:
                failures.append(failure)
        if direct_out is not None and (newest := book.account(names[0]).newest) is not None:
            write_whole(direct_out, frame([newest.submission]), secret=True)
            click.echo(f"The sealed record is in {direct_out}; the data holder can take it from there.", err=True)
        alarmed = book.state.alarms != before
        if alarmed:
            show_alarms(book)
    if not names:
        click.echo("This wallet is linked to nobody; there is nothing to change.", err=True)
    if alarmed:
        raise TamperingError("a registry broke its word just now, see above. Your wishes are kept in the wallet.")
    if failures:
        raise _together(failures, len(names), done)


def _at_one(
    book: Book, sender: Sender, holder: str, change: Callable[[Account], Callable[[Wishes], Wishes]], *, done: str,
    alone: bool, at: int,
) -> FedcreditError | None:  # fmt: skip
    try:
        delivery = sender.change(holder, change(book.account(holder)), at=at)
    except FedcreditError as error:
        if alone:
            raise
        click.echo(f"{holder}: not {done}: {error}", err=True)
        return error
    click.echo(f"{holder}: {_outcome(book.account(holder), delivery, done)}")
    return None if delivery.arrived else delivery.failure


def _lent_since(account: Account) -> bool:
    """Whether a record that this wallet knows lent a share there."""
    return any(grant.dp is not None for written in account.written for grant in written.record.grants)


def _outcome(account: Account, delivery: Delivery, done: str) -> str:
    newest = account.newest
    if delivery.unchecked:
        return f"NOT CHECKED, and nothing was written: {delivery.failure}"
    if newest is None:
        return f"{done}; nothing was ever granted there, so there is nothing to send."
    if delivery.promised and newest.receipt is not None:
        return f"{done}. Record {newest.seq} is in the lane, and the receipt is kept."
    if delivery.promised:
        why = "" if delivery.failure is None else f" ({delivery.failure})"
        return f"{done}. The registry promised record {newest.seq}; `fedcredit wallet status` fetches the receipt{why}."
    if delivery.direct:
        return f"{done}. The data holder took record {newest.seq} itself; the registry did not: {delivery.failure}"
    side_door = "" if delivery.direct_failure is None else f" Nor was it taken directly: {delivery.direct_failure}"
    return f"signed and kept, but NOT DELIVERED: {delivery.failure}{side_door}"


def _together(failures: list[FedcreditError], asked: int, done: str) -> FedcreditError:
    """One failure for several, of the gravest family."""
    gravest = max(failures, key=lambda error: error.exit_code)
    text = (
        f"{len(failures)} of {asked} data holders could not be told; see above. What was signed is kept in the wallet "
        f"and not written again: run the same command once more, or `fedcredit wallet status`, until all are {done}. "
        "To hand it in yourself add --direct-out FILE: the data holder takes the file with `fedcredit holder take`."
    )
    return RefusalError(text, RefusalCode.LANE) if isinstance(gravest, RefusalError) else type(gravest)(text)


def _terms(
    purpose: Purpose, epsilon: int | None, share: int | None, delta_log10: int, window_days: int, uses: int | None,
    per_days: int | None,
) -> tuple[TrainingBudget | None, Uses | None]:  # fmt: skip
    if purpose in _STATISTICS:
        if epsilon is None or share is None or uses is not None or per_days is not None:
            raise UsageError("train and validate need --epsilon and --share, and take no --uses or --per-days.")
        budget = TrainingBudget(
            share_milli=share, eps_milli=epsilon, delta_log10=delta_log10, window_s=window_days * DAY_S
        )
        return budget, None
    if uses is None or per_days is None or epsilon is not None or share is not None:
        raise UsageError("score and monitor need --uses and --per-days, and take no --epsilon or --share.")
    return None, Uses(n=uses, per_s=per_days * DAY_S)


def _tell_tier(budget: TrainingBudget) -> None:
    epsilon = budget.eps_milli / 1000
    tier = tier_of(epsilon)
    if tier is None:
        click.echo(
            f"Epsilon {epsilon:g} is below {TIERS[0]:g}, the smallest that counts: with it you take no part in "
            f"anything. Grant {TIERS[0]:g} or more to take part.",
            err=True,
        )
    elif tier < epsilon:
        click.echo(f"Epsilon {epsilon:g} counts as {tier:g}: caps are rounded down to one of a few.", err=True)
