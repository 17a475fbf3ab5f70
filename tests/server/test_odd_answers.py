"""Whatever one data holder answers instead of its update or its shares, it is named and the others go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from federated.messages import Dealt, Header, Letter, Received, Refused, Revealed, ScoreAnswers, Update
from federated.releases import dealing_statement, release_name
from federated.trust import TrustModel
from privacy.consent.signing import PayloadType
from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Words
from tests.server.fakes import LAST, FakeHolder
from tests.server.table import EVERYBODY, Change, check_sums, five

A, B, *_ = EVERYBODY


def _flipped(holder: FakeHolder, letter: Letter) -> Letter:
    words = np.array(letter.arrays["words"])
    words[0] ^= np.uint64(1)
    return Letter(letter.header, {"words": words})


def _with(**changes: object) -> Change:
    def change(holder: FakeHolder, letter: Letter) -> Letter:
        assert isinstance(letter.header, Update | Revealed)
        return Letter(msgspec.structs.replace(letter.header, **changes), letter.arrays)

    return change


def _arrays(make: Callable[[Words], dict[str, Any]]) -> Change:
    return lambda _, letter: Letter(letter.header, make(letter.arrays["words"]))


def _instead(header: Header) -> Change:
    return lambda _holder, _letter: Letter(header)


def _signed_shorter(holder: FakeHolder, letter: Letter) -> Letter:
    return holder.signed_update(2, letter.arrays["words"][:-1])


def _earlier(holder: FakeHolder, letter: Letter) -> Letter:
    return holder.signed_update(1, letter.arrays["words"])


def _endless_ledger(holder: FakeHolder, letter: Letter) -> Letter:
    return holder.signed_update(2, letter.arrays["words"], mark=msgspec.structs.replace(holder.mark, size=2**60))


def _empty_ledger(holder: FakeHolder, letter: Letter) -> Letter:
    return holder.signed_update(2, letter.arrays["words"], mark=msgspec.structs.replace(holder.mark, size=0))


ODD_UPDATES: dict[str, tuple[Change, str]] = {
    "a flipped bit": (_flipped, "signature"),
    "a word less": (_arrays(lambda words: {"words": words[:-1]}), "4 whole numbers"),
    "a word less, signed": (_signed_shorter, "4 whole numbers"),
    "another shape": (_arrays(lambda words: {"words": words.reshape(2, 2)}), "4 whole numbers"),
    "floats": (_arrays(lambda words: {"words": words.astype(np.float64)}), "4 whole numbers"),
    "NaN": (_arrays(lambda _: {"words": np.full(4, np.nan)}), "4 whole numbers"),
    "no numbers": (_arrays(lambda _: {}), "arrays"),
    "more arrays": (_arrays(lambda words: {"words": words, "more": words}), "arrays"),
    "another commitment": (_with(commitment=bytes([1]) * 32), "signature"),
    "no commitment": (_with(commitment=b""), "commits to nothing"),
    "another's name": (_with(holder=B), "another's name"),
    "another's release": (_with(release=release_name("0" * 32, 2)), "another release"),
    "an earlier release": (_earlier, "another release"),
    "no signature": (_with(signature=b""), "signature"),
    "a ledger without end": (_endless_ledger, "ledger"),
    "a ledger without an entry": (_empty_ledger, "no entry"),
    "something else": (_instead(ScoreAnswers(A, [])), "ScoreAnswers"),
    "another step": (_instead(Received(A, "0" * 32, [])), "Received"),
    "a refusal": (_instead(Refused(A, RefusalCode.BUDGET)), "budget"),
    "a refusal in another's name": (_instead(Refused(B, RefusalCode.LANE)), "lane"),
}


@pytest.mark.parametrize("trust", [TrustModel.SHARED_NOISE, TrustModel.HOLDER_NOISE])
@pytest.mark.parametrize("what", ODD_UPDATES)
def test_an_odd_update_is_named_and_survived(tmp_path: Path, what: str, trust: TrustModel) -> None:
    made = five(tmp_path, trust)
    change, said = ODD_UPDATES[what]
    _, releases = made.run({("update 2", A): change})
    check_sums(made, releases, {2: (A,)})
    assert said in releases[1].left_out[A]
    assert releases[1].left_out.keys() == {A}


def _wrong_share(holder: FakeHolder, letter: Letter) -> Letter:
    header = letter.header
    assert isinstance(header, Revealed)
    seeds = {name: bytes([entry[0] ^ 1]) + entry[1:] for name, entry in header.seeds.items()}
    return holder.signed_reveal(2, seeds, header.keys)


def _without_one(holder: FakeHolder, letter: Letter) -> Letter:
    header = letter.header
    assert isinstance(header, Revealed)
    return holder.signed_reveal(2, {name: share for name, share in header.seeds.items() if name != B}, header.keys)


def _short_shares(holder: FakeHolder, letter: Letter) -> Letter:
    header = letter.header
    assert isinstance(header, Revealed)
    return holder.signed_reveal(2, {name: share[:-1] for name, share in header.seeds.items()}, header.keys)


ODD_REVEALS: dict[str, tuple[Change, str]] = {
    "wrong shares": (_wrong_share, "does not fit what the others"),
    "wrong shares, unsigned": (_with(seeds=dict.fromkeys(EVERYBODY, bytes(115))), "signature"),
    "too few": (_without_one, "of others than was asked"),
    "short ones": (_short_shares, "wrong size"),
    "another's name": (_with(holder=B), "another's name"),
    "another release": (_with(release=release_name("0" * 32, 2)), "another release"),
    "something else": (_instead(Received(A, "0" * 32, [])), "Received"),
    "a refusal": (_instead(Refused(A, RefusalCode.REPLAY)), "replay"),
}


@pytest.mark.parametrize("what", ODD_REVEALS)
def test_an_odd_reveal_is_named_and_survived(tmp_path: Path, what: str) -> None:
    made = five(tmp_path)
    change, said = ODD_REVEALS[what]
    _, releases = made.run({("unmasking 2", A): change})
    check_sums(made, releases, {})
    assert said in releases[1].unhelpful[A]
    assert releases[1].unhelpful.keys() == {A}
    assert releases[1].left_out == {}


def test_more_liars_than_are_tolerated_end_the_run_without_a_sum(tmp_path: Path) -> None:
    made = five(tmp_path)
    with pytest.raises(RefusalError, match=r"masks of release 2 cannot be taken off.*stays charged") as caught:
        made.run({("unmasking 2", A): _wrong_share, ("unmasking 2", B): _wrong_share})
    assert caught.value.code is RefusalCode.COHORT
    assert len(made.recipe.seen) == 1


def test_shares_that_do_not_open_leave_out_whom_they_were_for(tmp_path: Path) -> None:
    """Only the recipient can tell, and it says no more than a code: it is named, and the dealer is not."""
    made = five(tmp_path)

    def garbage_for_b(holder: FakeHolder, letter: Letter) -> Letter:
        assert isinstance(letter.header, Dealt)
        sealed = letter.header.sealed | {B: bytes(len(letter.header.sealed[B]))}
        signature = holder.identity.sign(PayloadType.DEALING, dealing_statement(holder.run, A, sealed))
        return Letter(Dealt(A, holder.run, sealed, signature))

    _, releases = made.run({("dealing", A): garbage_for_b})
    check_sums(made, releases, dict.fromkeys(range(1, LAST + 1), (B,)))
    assert all(release.left_out.keys() == {B} for release in releases)
