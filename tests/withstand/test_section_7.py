"""Every item of the design's section 7 has tests, by name; none of them can go without this list noticing."""

import importlib
import re
from collections.abc import Callable

import pytest

_OWN = "tests.withstand"
_RULES = "tests.privacy.consent"
_HOLDER = "tests.clients.holder"
_WALLET = "tests.clients.wallet"
_REGISTRY = "tests.server.registry"

# The words of CONSENT.md, section 7.
DESIGN = """
forged signature; small-order key; replayed grant after withdrawal; rollback; split view; ciphertext cut at every
length and flipped at every byte; wrong recipient, lane, epoch, suite; forwarded record; swapped commitment; non-zero
padding; handles with padding variants, Cyrillic look-alikes, zero-width and newline characters; ids with path and SQL
payloads; year 9999, exp <= nbf, negative, float, boolean and string times; unknown purpose; duplicate keys; huge,
deep or non-canonical JSON; two records with one seq; second record with the same tag; clock skew of 121 s, an hour,
minus a day; expiry inside a round; DST hour twice; withheld, dropped, reordered, substituted ciphertext; plan with a
wrong root or a future size; unlinked subject; score consent used to train; old key after rotation; registry restored
from backup; disk full and read-only database during append; kill -9 during append; two processes on one SQLite file;
100,000 garbage ciphertexts in a lane; logs, exceptions and responses never contain a handle, a key or a purpose
"""

ITEMS: dict[str, tuple[str, ...]] = {
    "the standards' own vectors": (
        f"{_RULES}.test_vectors::test_every_vector_file_is_the_one_whose_origin_is_written_down",
        f"{_RULES}.test_merkle::test_published_inclusion_proofs_get_their_verdicts",
        f"{_RULES}.test_merkle::test_published_consistency_proofs_get_their_verdicts",
        f"{_RULES}.test_lane::test_published_notes_verify_and_their_keys_are_named_as_published",
        f"{_RULES}.test_lane::test_published_checkpoint_bodies_get_their_verdicts",
        f"{_RULES}.test_sealing::test_the_reference_opens_the_published_ciphertexts_and_our_keys_are_the_published_ones",
        f"{_RULES}.test_signing::test_wycheproof_verdicts_hold",
        f"{_RULES}.test_canonical::test_json_test_suite_is_judged_as_by_two_other_libraries",
    ),
    "forged signature": (
        f"{_OWN}.test_records::test_a_forged_signature_grants_nothing",
        f"{_OWN}.test_records::test_somebody_elses_key_inside_the_record_grants_nothing",
        f"{_RULES}.test_view::test_a_forgery_grants_nothing",
        f"{_HOLDER}.test_lane_standings::test_a_flood_of_forged_newer_records_hides_nothing",
    ),
    "small-order key": (
        f"{_OWN}.test_records::test_a_small_order_key_signs_nothing_even_if_it_was_linked",
        f"{_RULES}.test_signing::test_no_cctv_signature_with_a_small_order_key_or_r_verifies",
        f"{_RULES}.test_linking::test_small_order_keys_are_refused_everywhere",
    ),
    "replayed grant after withdrawal": (
        f"{_OWN}.test_records::test_a_grant_replayed_after_the_withdrawal_stays_withdrawn",
        f"{_RULES}.test_audit::test_an_old_grant_logged_again_after_the_withdrawal_is_no_excuse",
    ),
    "rollback": (
        f"{_OWN}.test_lanes::test_a_rollback_is_refused_at_every_size",
        f"{_HOLDER}.test_lane::test_a_lying_registry_is_noticed_and_nothing_of_it_is_kept",
        f"{_HOLDER}.test_lane::test_a_restored_backup_is_noticed",
        f"{_WALLET}.test_collecting::test_every_lie_about_the_log_is_an_alarm_with_its_evidence",
        f"{_WALLET}.test_wishes::test_a_key_set_that_is_forged_expired_or_older_than_one_seen_is_not_sealed_to",
    ),
    "split view": (
        f"{_OWN}.test_wallets::test_a_split_view_is_seen_once_the_two_compare",
        f"{_OWN}.test_wallets::test_a_split_view_in_which_only_the_withdrawal_is_missing_is_seen_too",
        f"{_RULES}.test_audit::test_a_receipt_for_another_entry_at_its_position_shows_two_histories",
    ),
    "ciphertext cut at every length and flipped at every byte": (
        f"{_OWN}.test_records::test_a_ciphertext_cut_at_every_length_and_flipped_at_every_byte_grants_nothing",
        f"{_OWN}.test_records::test_a_ciphertext_changed_under_its_own_stub_fails_the_whole_lane",
        f"{_RULES}.test_sealing::test_a_ciphertext_cut_at_any_length_does_not_open",
    ),
    "wrong recipient": (
        f"{_OWN}.test_records::test_a_grant_to_another_recipient_is_no_grant",
        f"{_HOLDER}.test_scoring::test_consent_to_one_lender_says_nothing_about_another_in_the_same_batch",
    ),
    "wrong lane": (
        f"{_OWN}.test_records::test_a_record_of_another_lane_counts_nowhere_else",
        f"{_RULES}.test_sealing::test_another_lane_epoch_key_or_commitment_does_not_open",
    ),
    "wrong epoch": (
        f"{_OWN}.test_records::test_a_record_of_another_epoch_grants_nothing",
        f"{_HOLDER}.test_epochs::test_a_record_that_claims_an_epoch_it_is_not_sealed_to_is_garbage",
    ),
    "wrong suite": (
        f"{_OWN}.test_records::test_a_record_of_another_suite_grants_nothing",
        f"{_RULES}.test_sealing::test_another_or_an_unknown_suite_is_refused",
    ),
    "forwarded record": (f"{_OWN}.test_records::test_a_forwarded_record_counts_at_nobody_else",),
    "swapped commitment": (
        f"{_OWN}.test_records::test_a_swapped_commitment_opens_nothing",
        f"{_RULES}.test_sealing::test_a_commitment_to_something_else_is_tampering_even_if_sealed_by_one_who_knows_the_key",
    ),
    "non-zero padding": (
        f"{_OWN}.test_records::test_padding_that_is_not_zero_is_refused",
        f"{_RULES}.test_sealing::test_padding_that_is_not_zero_is_refused",
    ),
    "handles with padding variants, Cyrillic look-alikes, zero-width and newline characters": (
        f"{_OWN}.test_record_fields::test_handles_with_other_spellings_are_nobodys",
        f"{_RULES}.test_canonical::test_handles_have_one_spelling",
        f"{_RULES}.test_linking::test_an_offer_out_of_range_is_refused",
    ),
    "ids with path and SQL payloads": (
        f"{_OWN}.test_record_fields::test_ids_with_path_and_sql_payloads_are_refused_and_run_nothing",
        f"{_OWN}.test_record_fields::test_customer_numbers_are_data_and_never_code",
        f"{_REGISTRY}.test_http::test_an_unknown_lane_is_not_there_and_is_not_repeated",
        f"{_REGISTRY}.test_http::test_a_path_that_is_no_tile_is_refused",
        f"{_HOLDER}.test_desk::test_what_cannot_be_a_customer_number_gets_no_offer",
    ),
    "year 9999, exp <= nbf, negative, float, boolean and string times": (
        f"{_OWN}.test_record_fields::test_times_that_cannot_be_meant_grant_nothing",
        f"{_RULES}.test_record::test_a_grant_out_of_range_is_refused",
        f"{_RULES}.test_record::test_a_field_out_of_range_is_refused",
    ),
    "unknown purpose": (f"{_OWN}.test_record_fields::test_an_unknown_purpose_grants_nothing",),
    "duplicate keys": (
        f"{_OWN}.test_record_fields::test_duplicate_keys_are_refused_wherever_they_are",
        f"{_RULES}.test_record::test_duplicate_keys_are_refused",
    ),
    "huge, deep or non-canonical JSON": (
        f"{_OWN}.test_record_fields::test_huge_deep_and_non_canonical_json_is_refused",
        f"{_RULES}.test_record::test_huge_and_deep_payloads_are_refused",
        f"{_RULES}.test_canonical::test_what_is_not_the_one_encoding_is_refused",
        f"{_REGISTRY}.test_http::test_a_body_beyond_the_limit_is_not_read_to_its_end",
    ),
    "two records with one seq": (
        f"{_OWN}.test_records::test_two_records_with_one_seq_deny_until_a_newer_one",
        f"{_HOLDER}.test_lane_direct::test_two_records_under_one_number_are_a_conflict_wherever_they_came_in",
    ),
    "second record with the same tag": (
        f"{_OWN}.test_records::test_a_second_record_with_the_same_tag_hides_neither",
        f"{_REGISTRY}.test_http::test_a_taken_tag_is_a_conflict_and_nothing_of_its_request_is_kept",
        f"{_WALLET}.test_linking::test_a_record_that_lost_its_place_to_another_copys_is_not_sent_again",
    ),
    "clock skew of 121 s, an hour, minus a day": (
        f"{_OWN}.test_clocks::test_a_clock_that_is_off_by_121_seconds_an_hour_or_minus_a_day_stretches_no_grant",
        f"{_OWN}.test_clocks::test_a_lane_copy_whose_clock_jumps_is_never_younger_than_it_is",
        f"{_HOLDER}.test_freshness::test_a_clock_set_back_makes_no_old_lane_young",
        f"{_HOLDER}.test_freshness::test_a_sync_from_the_future_is_nobodys_word",
        f"{_WALLET}.test_collecting::test_clocks_that_differ_are_no_broken_promise",
    ),
    "expiry inside a round": (
        f"{_OWN}.test_clocks::test_a_grant_that_ends_inside_a_round_covers_none_of_it",
        f"{_HOLDER}.test_gate::test_a_consent_that_ends_within_the_plan_does_not_cover_it",
        f"{_RULES}.test_audit::test_a_consent_that_runs_out_in_mid_round_is_none",
    ),
    "DST hour twice": (f"{_OWN}.test_clocks::test_an_hour_that_a_local_clock_shows_twice_is_two_instants",),
    "withheld, dropped, reordered, substituted ciphertext": (
        f"{_OWN}.test_lanes::test_a_withheld_dropped_reordered_or_substituted_ciphertext_fails_the_whole_lane",
        f"{_OWN}.test_lanes::test_a_registry_that_signs_its_own_lie_is_caught_by_the_stub",
        f"{_OWN}.test_lanes::test_a_registry_that_signs_another_history_is_caught_by_who_knew_the_first",
        f"{_OWN}.test_lanes::test_a_ciphertext_taken_out_of_the_registrys_database_fails_the_lane",
        f"{_HOLDER}.test_lane_erasure::test_a_missing_ciphertext_without_its_tombstone_fails_the_whole_sync",
    ),
    "plan with a wrong root or a future size": (
        f"{_OWN}.test_lanes::test_a_plan_pinned_to_a_wrong_root_or_a_future_size_gets_no_decision",
        f"{_HOLDER}.test_node::test_a_run_pinned_elsewhere_is_refused",
        f"{_HOLDER}.test_freshness::test_a_run_pinned_to_another_history_is_refused",
        f"{_HOLDER}.test_freshness::test_a_run_pinned_to_a_newer_head_than_the_last_sync_is_joined_after_another",
    ),
    "unlinked subject": (
        f"{_OWN}.test_records::test_an_unlinked_subject_is_denied_whatever_it_signed",
        f"{_HOLDER}.test_gate::test_whoever_is_not_linked_is_left_out",
        f"{_HOLDER}.test_scoring::test_whoever_is_unlinked_by_another_process_is_not_scored",
    ),
    "score consent used to train": (
        f"{_OWN}.test_records::test_score_consent_does_not_train_and_none_implies_another",
        f"{_HOLDER}.test_gate::test_consent_to_the_other_purpose_or_recipient_is_none",
        f"{_RULES}.test_audit::test_consent_to_be_scored_does_not_train_and_consent_to_train_does_not_measure",
    ),
    "old key after rotation": (
        f"{_OWN}.test_records::test_an_old_key_after_a_rotation_opens_what_it_must_and_undoes_nothing",
        f"{_OWN}.test_records::test_a_withdrawal_by_the_side_door_outlives_the_key_that_it_was_sealed_to",
        f"{_OWN}.test_records::test_a_persons_old_key_says_nothing_after_another_was_linked",
        f"{_HOLDER}.test_epochs::test_after_a_rotation_both_epochs_open_and_the_new_one_is_current",
        f"{_REGISTRY}.test_store::test_a_record_for_a_key_that_is_no_longer_published_is_refused",
    ),
    "registry restored from backup": (
        f"{_OWN}.test_wallets::test_a_registry_restored_from_a_backup_is_refused_by_the_data_holder_and_turns_the_wallet_red",
        f"{_REGISTRY}.test_store::test_an_older_copy_of_the_database_is_noticed_by_whoever_knew_more",
    ),
    "disk full and read-only database during append": (
        f"{_OWN}.test_databases::test_a_registry_whose_database_is_hindered_refuses_an_append_and_keeps_what_it_promised",
        f"{_OWN}.test_databases::test_a_lane_copy_whose_database_is_hindered_keeps_all_or_nothing_of_a_sync",
        f"{_REGISTRY}.test_serve::test_a_database_that_becomes_read_only_or_full_refuses_and_loses_nothing",
        "tests.clients.test_ledger::test_a_full_disk_refuses_and_a_retry_goes_through",
    ),
    "kill -9 during append": (
        f"{_REGISTRY}.test_kill::test_a_registry_killed_while_it_appends_keeps_what_it_acknowledged",
        f"{_REGISTRY}.test_kill::test_a_registry_killed_while_it_serves_keeps_what_it_promised",
        f"{_HOLDER}.test_lane_sync::test_a_process_killed_at_any_instant_leaves_a_whole_lane",
        "tests.clients.test_ledger::test_kill_9_at_any_moment_leaves_nothing_half",
        f"{_WALLET}.test_wishes::test_killed_in_the_middle_the_same_bytes_are_sent_and_no_number_is_used_twice",
    ),
    "two processes on one SQLite file": (
        f"{_REGISTRY}.test_store::test_two_processes_appending_at_once_lose_nothing_and_store_nothing_twice",
        f"{_REGISTRY}.test_serve::test_two_processes_serve_one_database",
        "tests.clients.test_ledger::test_two_processes_share_one_ledger",
        f"{_HOLDER}.test_lane::test_what_one_process_does_another_sees_and_does_not_undo",
        f"{_WALLET}.test_wallet_files::test_two_commands_at_once_are_not_possible",
    ),
    "100,000 garbage ciphertexts in a lane": (
        f"{_OWN}.test_lanes::test_100_000_garbage_ciphertexts_change_no_decision",
        f"{_OWN}.test_lanes::test_a_flood_of_a_strangers_records_in_somebodys_name_changes_no_decision",
    ),
    "logs, exceptions and responses never contain a handle, a key or a purpose": (
        f"{_OWN}.test_hygiene::test_the_ear_hears_every_form_and_the_grep_finds_it",
        f"{_OWN}.test_hygiene::test_a_whole_scene_leaves_no_handle_key_tag_or_purpose_anywhere",
        f"{_OWN}.test_hygiene_of_a_run::test_a_run_with_every_kind_of_refusal_says_nothing_about_anybody",
        f"{_REGISTRY}.test_http::test_logs_and_answers_hold_no_tag_key_or_address",
        f"{_HOLDER}.test_side_door::test_a_failure_inside_tells_nothing_outside",
        f"{_HOLDER}.test_node::test_whatever_fails_only_a_code_leaves_and_no_row_reaches_the_log",
        f"{_WALLET}.test_wallet_files::test_errors_name_no_handle_key_or_purpose",
    ),
    "property: order of arrival never matters": (
        f"{_RULES}.test_gate::test_the_order_of_arrival_never_matters",
        f"{_RULES}.test_view::test_the_order_of_arrival_never_matters",
        f"{_OWN}.test_any_history::TestAnyHistory",
    ),
    "property: a withdrawal is never undone by anything older": (
        f"{_RULES}.test_gate::test_a_withdrawal_is_never_undone_by_anything_older",
        f"{_RULES}.test_view::test_a_withdrawal_is_never_undone_by_anything_older",
        f"{_OWN}.test_any_history::TestAnyHistory",
    ),
    "property: garbage in a lane changes no decision": (
        f"{_RULES}.test_view::test_garbage_in_a_lane_changes_no_decision",
        f"{_RULES}.test_audit::test_neither_order_nor_garbage_changes_a_decision",
        f"{_OWN}.test_any_history::TestAnyHistory",
    ),
    "property: parsers never crash and never accept two encodings": tuple(
        f"{_RULES}.{name}"
        for name in (
            "test_canonical::test_arbitrary_bytes_never_crash_the_parser",
            "test_record::test_arbitrary_bytes_never_crash_the_parser",
            "test_record::test_any_other_spelling_of_a_record_is_refused",
            "test_envelope::test_arbitrary_bytes_never_crash_and_what_is_accepted_has_one_encoding",
            "test_lane::test_arbitrary_text_never_crashes_the_checkpoint_readers",
            "test_lane::test_every_accepted_leaf_is_written_again_as_it_was",
            "test_submission::test_arbitrary_bytes_never_crash_the_parser",
            "test_tiles::test_arbitrary_bundles_never_crash_and_have_one_encoding",
            "test_receipt::test_arbitrary_bytes_never_crash_the_reader",
            "test_key_set::test_arbitrary_bytes_never_crash_the_reader",
            "test_promise::test_arbitrary_bytes_never_crash_the_reader",
            "test_tombstone::test_arbitrary_bytes_never_crash_the_reader",
            "test_linking::test_arbitrary_bytes_never_crash_the_readers",
        )
    ),
}


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_has_tests_that_exist(item: str) -> None:
    assert ITEMS[item]
    for place in ITEMS[item]:
        module, name = place.split("::")
        found: object = getattr(importlib.import_module(module), name, None)
        assert isinstance(found, Callable), place  # type: ignore[arg-type]
        # Collected by pytest under this name, and not skipped.
        assert re.match(r"test_|Test", name)
        marks = {mark.name for mark in getattr(found, "pytestmark", [])}
        assert not marks & {"skip", "skipif", "xfail"}, place


def test_no_item_of_the_design_is_missing() -> None:
    wanted = [item.strip() for item in DESIGN.replace("\n", " ").split(";")]
    assert len(wanted) == 32
    for item in wanted:
        parts = [f"wrong {what}" for what in item[6:].split(", ")] if item.startswith("wrong ") else [item]
        assert all(part in ITEMS for part in parts), item


def test_no_test_is_named_twice_for_one_item() -> None:
    for item, places in ITEMS.items():
        assert len(set(places)) == len(places), item
