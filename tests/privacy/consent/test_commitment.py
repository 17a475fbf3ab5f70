import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.commitment import commit_to_subjects, subjects_without_consent
from privacy.errors import MalformedError, TamperingError
from tests.privacy.consent import reference_merkle
from tests.privacy.consent.samples import digest

SALT = digest("salt")
handle_sets = st.sets(st.binary(min_size=32, max_size=32), max_size=20)


@given(handle_sets, st.randoms(use_true_random=False))
def test_it_is_the_references_root_over_sorted_hmacs_in_any_order(handles: set[bytes], chance: object) -> None:
    expected = reference_merkle.mth(sorted(hmac.new(SALT, handle, "sha256").digest() for handle in handles))
    assert commit_to_subjects(SALT, handles) == expected
    assert commit_to_subjects(SALT, sorted(handles, reverse=True)) == expected


@given(handle_sets, handle_sets)
def test_those_without_consent_are_counted(used: set[bytes], allowed: set[bytes]) -> None:
    commitment = commit_to_subjects(SALT, used)
    count = subjects_without_consent(used, salt=SALT, commitment=commitment, allowed=allowed)
    assert count == len(used - allowed)
    assert subjects_without_consent(used, salt=SALT, commitment=commitment, allowed=used | allowed) == 0


@given(handle_sets.filter(bool))
def test_another_list_or_salt_does_not_open_it(handles: set[bytes]) -> None:
    listed = sorted(handles)
    commitment = commit_to_subjects(SALT, listed)
    for used, salt in ((listed[1:], SALT), ([*listed, digest("more")], SALT), (listed, digest("other salt"))):
        with pytest.raises(TamperingError):
            subjects_without_consent(used, salt=salt, commitment=commitment, allowed=handles)


def test_wrong_sizes_and_doubles_are_refused() -> None:
    handle = digest("handle")
    for salt, handles in ((SALT[1:], [handle]), (SALT, [handle[1:]]), (SALT, [handle, handle])):
        with pytest.raises(MalformedError):
            commit_to_subjects(salt, handles)
