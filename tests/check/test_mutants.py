"""Every mutant is caught by the rule that it breaks, and by no unrelated one: the checker's own test-suite.

A row of the table names the rules that must fail or warn in a whole run of `keyfob check`, and those that may besides
because they state the same fact. What a mutant makes impossible is "not tested", never failed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from keyfob.nss.model import Ended, Report
from tests.check.mutant import Mutant, Token, broken, caught, checked, compile_mutants, names

DOORS = {
    "interface_needs_a_version": caught("G4", "P8"),
    "no_second_life": caught("G1", may="P39"),  # a forked child begins with C_Finalize, too
    "wants_threads": caught("G2", "P9"),
    "needs_arguments": caught("G2"),
    "needs_callbacks_only": caught("G2", "P9"),
    "finalize_fails": caught("G3", may="P28"),  # C_Finalize is what ends the wait
    "info_without_initialize": caught("G3"),
    "session_calls_after_finalize": caught("G3"),
    "hole_in_the_list": caught("G5"),
    "info_padded_with_nul": caught("G6"),
    "version_one": caught("G6"),
    "quotes_in_description": caught("G7"),
    "blank_description": caught("G7"),
    "prints": caught("X4"),
}
SLOTS = {
    "claims_validation": caught("K6"),
    "claims_a_level": caught("K6"),
    "slots_shrink": caught("S2"),
    "slots_vanish_after_a_login": caught("S2"),
    "slots_are_renumbered": caught("S2"),
    "slot_count_needs_a_buffer": caught("S1"),
    "no_slot_info": caught("S3"),
    "token_absent": caught("S6"),
    "hardware_slot": caught("P35"),
    "slot_padded_with_nul": caught("P40"),
    "description_of_the_run": caught("P36"),
    "label_with_colon": caught("P17"),
    "label_with_nul": caught("P17"),
    "blank_label": caught("S10", may="S18"),  # the name that C_InitToken gives is not there either
    "says_write_protected": caught("S11", may="SE1"),  # a read-write session opens nevertheless
    "hides_the_login": caught("P30"),
    "pin_never_initialised": caught("S13", "S19", token="fresh"),
    "flags_change_each_time": caught("S8"),
    "few_sessions": caught("P26", may="SE2"),  # 64 at once are too many
    "few_sessions_and_says_so": caught("P26", may="SE2"),
    "closed_sessions_count": caught("SE2"),
    "lists_what_it_lacks": caught("S17"),
    "knows_every_mechanism": caught("S17"),
    "no_mechanism_flags": caught("S17", "K1"),
    "only_combined_pss": caught("P4"),
    "another_list_each_time": caught("S16"),
    "mechanism_count_needs_a_buffer": caught("P10"),
    "random_needs_login": caught("N2", "N3"),
    "random_of_sixteen_bytes": caught("P27"),
    "digest_needs_login": caught("N2"),
    "writes_behind_the_buffer": caught("X5"),
    "waits_beyond_the_end": caught("P28"),
}
SESSIONS = {
    "only_read_write_sessions": caught("SE1", "P10"),
    "read_write_sessions_alone": caught("N1", "SE1"),
    "one_handle_for_all": caught("SE4", "SE1", may="SE2 N1"),  # each of them looks at two handles
    "search_ends_other_operations": caught("SE3", "P29"),
    "session_info_ends_the_operation": caught("SE8", "P29"),
    "close_closes_nothing": caught("SE6"),
    "close_all_fails": caught("SE7"),
    "handle_zero_crashes": caught("P37", "X1"),
    "handle_zero_hangs": caught("P37", "X2"),
    "read_only_writes": caught("N5"),
    "no_session_objects_read_only": caught("N8", "O4", may="O3 P15"),  # PKCS #12 brings its keys so
    "session_objects_of_one_session": caught("N19"),
    "state_is_not_restored": caught("SE5"),
    "states_are_shared": caught("SE5"),
}
LOGINS = {
    "wrong_pin_is_a_general_error": caught("S15"),
    "any_pin_is_right": caught("S15", token="kept"),
    "second_login_fails": caught("SE11"),
    "login_needs_read_write": caught("SE11"),
    "login_of_one_session": caught("P11"),
    "state_never_changes": caught("P11", "S15"),
    "logout_does_nothing": caught("SE12", "SE15", may="SE13 SE14"),  # a login follows C_Logout there
    "logout_closes_the_session": caught("SE15"),
    "idle_logout_fails": caught("SE14"),
    "so_login_beside_read_only_refused": caught("P6"),
    "empty_so_pin_refused": caught("P6"),
    "empty_so_pin_is_wrong": caught("P6"),
    "init_pin_changes_nothing": caught("S13", "S19"),
    "init_pin_fails": caught("N7", may="S19"),  # nor does it work by the standard
    "set_pin_fails": caught("N6", "S20"),
    "set_pin_changes_nothing": caught("S20"),
    "set_pin_logs_out": caught("S20"),
    "init_token_loses_the_label": caught("S18"),
    "no_login_for_one_key": caught("P29"),
    "tires_of_logins": caught("SE13", token="kept"),
}
SEARCHES = {
    "no_profile": caught("P7"),
    "unknown_class_is_an_error": caught("P23", may="P7"),  # CKO_PROFILE is such a class
    "empty_search_is_an_error": caught("P23"),
    "any_value_is_found": caught("O19"),
    "private_keys_need_login": caught("S12", "P30", may="P23", token="open"),  # a search that fails
    "finds_no_raw_point": caught("P33"),
    "five_objects_at_a_time": caught("P23"),
    "finds_ten_at_most": caught("P23", may="O20"),  # twenty-one twins
    "final_fails": caught("P23"),
    "short_batch_ends_the_search": caught("P23"),
    "stops_at_the_first_missing": caught("P24", "O17"),
    "missing_has_length_zero": caught("P24"),
    "numbers_of_four_bytes": caught("O17", may="N10"),  # CKA_KEY_TYPE is read back, too
    "modulus_is_hidden": caught("P22", "N10"),
    "curve_is_hidden": caught("P22", "N10"),
    "certificates_have_no_serial": caught("N13", may="P3"),
    "certificates_have_no_token": caught("O6"),
    "handles_of_one_session": caught("P25"),
    "finds_no_serial": caught("O21", "N12"),
    "identifiers_are_unique": caught("O20", "N16", "P23", may="N15"),  # batches, and certificates of one key
    "searches_need_login": caught("P23", "N18", may="P3 P7"),  # nothing is seen before a login
}
OBJECTS = {
    "certificates_need_a_category": caught("O8"),
    "certificates_need_a_key": caught("O7", "P19"),
    "public_objects_read_only_without_login": caught("P18"),
    "certificates_are_private": caught("O8", "P3"),
    "certificates_lose_their_id": caught("O11", "N13", "N14", "P3", may="O6 N16"),  # both look for it by its ID
    "short_identifiers": caught("O10", "N17", may="O9 O18 P20"),  # an ID is not what was set
    "identifiers_are_fixed": caught("O9", "O18", "P20"),
    "subjects_are_fixed": caught("N11", "O18", "P20"),
    "labels_of_certificates_are_fixed": caught("O18", "P20"),
    "labels_of_private_keys_are_fixed": caught("O12", may="O9 O18 N11 P20"),  # label, ID and subject in one call
    "labels_of_certificates_are_unique": caught("P32"),
    "identifiers_of_certificates_are_unique": caught("N16"),
    "orphans_stay_alone": caught("P38"),
    "no_points_on_private_keys": caught("P33"),
    "exits": caught("X3", "P2"),
    "copies_need_a_template": caught("P2"),
    "copies_are_the_original": caught("O14"),
    "destroys_nothing": caught("O15"),
    "trust_is_an_odd_error": caught("P16"),
    "trust_is_never_replaced": caught("P16"),
    "twin_public_keys_refused": caught("P34"),
    "unknown_attributes_refused": caught("P1"),
    "duplicates_refused": caught("P1"),
    "first_duplicate_wins": caught("P1"),
    "no_private_key_import": caught("O1", "O2", "N9"),
    "neither_makes_nor_takes_keys": caught("K8", may="O1 O2 N9"),
}
KEYS = {
    "derive_false_refused": caught("P21"),
    "pairs_need_labels": caught("O13"),
    "pairs_are_swapped": caught("O13", may="K3"),  # a private key verifies nothing
    "pairs_lose_their_id": caught("N15"),
    "public_keys_are_private": caught("N18"),
    "public_keys_without_id": caught("N18"),
    "pairs_are_session_objects": caught("O13"),
    "no_private_key_unwrap": caught("O3"),
    "no_pkcs1_unwrap": caught("K12"),
    "unwrap_is_a_device_error": caught("K10", may="K12"),  # the flags promise what fails
    "opens_no_mail_to_rsa": caught("K4", may="K7 K10 K12"),
    "unwrap_needs_read_write": caught("N8"),
    "strict_usages": caught("P12"),
    "oaep_with_sha1_only": caught("P14"),
    "wrap_needs_read_write": caught("P15"),
    "session_keys_stay": caught("O5"),
    "generic_secrets_wrap_nothing": caught("P15"),
    "no_kdf": caught("P13"),
    "points_in_der_only": caught("P13"),
    "shared_info_is_ignored": caught("P13"),
}
OPERATIONS = {
    "no_digest_info": caught("K3", may="K7"),  # the same signature, in the words of another kind of token
    "exact_room_is_too_small": caught("K3", may="K7 K9"),
    "wrong_signatures": caught("K3", may="K7 K9"),
    "der_signatures": caught("K3", may="K9"),
    "no_pss": caught("P4"),
    "no_raw_ecdsa": caught("K3"),
    "lists_combined_signs_not": caught("K9"),
    "always_offers_combined": caught("P5"),
    "unknown_mechanism_is_a_general_error": caught("S17"),
    "signing_needs_read_write": caught("SE3", may="K3 K5 K7"),
    "no_pkcs1_decryption": caught("K7", "K10"),
    "child_is_initialised": caught("P39"),
}
MULTIPURPOSE = {
    "digests_wrongly_in_parts": caught("K5"),
    "no_md5": caught("K5"),
    "encrypts_wrongly_in_parts": caught("K5"),
    "listed_gcm_fails": caught("K5"),
    "random_is_constant": caught("K5"),
    "one_key_for_all": caught("K11"),
    "every_signature_is_right": caught("K11"),
    "newer_verification_fails": caught("K11"),
    "recovers_nothing": caught("K11"),
    "salt_is_no_key": caught("N4"),
    "unset_salt_is_read": caught("N4", "X1"),
    "data_is_no_key": caught("N4"),
    "data_of_keys_is_refused": caught("N4"),
    "hkdf_forgets_the_salt": caught("N4"),
    "agrees_on_no_hkdf_key": caught("N4"),
}
REMOVAL = {
    "token_vanishes": caught("S5"),
    "presence_is_remembered": caught("S4", token="removable"),
    "sessions_outlive_the_token": caught("SE9", token="removable"),
    "old_sessions_come_back": caught("SE10", token="removable"),
    "dead_after_insertion": caught("S9", token="removable"),
    "login_outlives_the_token": caught("S9", token="removable"),
    "pin_pad": caught(token="pin pad"),  # all is well
    "pin_pad_refuses_null": caught("P31", "SE11", token="pin pad"),
}
MUTANTS: dict[str, Mutant] = {
    **DOORS,
    **SLOTS,
    **SESSIONS,
    **LOGINS,
    **SEARCHES,
    **OBJECTS,
    **KEYS,
    **OPERATIONS,
    **MULTIPURPOSE,
    **REMOVAL,
}
LIES = (
    *("lies_Sign", "lies_SignFinal", "lies_Encrypt", "lies_Decrypt", "lies_DecryptUpdate", "lies_Digest"),
    *("lies_DigestFinal", "lies_GetOperationState", "lies_WrapKey", "lies_GetSlotList", "lies_GetMechanismList"),
    *("lies_FindObjects", "lies_GetAttributeValue"),
)
"""Mutants that give impossible lengths: whatever they fail by, they are no fault of the checker."""
FEWEST_RULES = 60
"""As many rules a mutant each must have."""
LONGEST = 60
"""Seconds that a whole run may take."""
SAMPLE = {
    "label_with_colon": ("slots",),
    "empty_so_pin_is_wrong": ("first pin",),
    "copies_need_a_template": ("tls-server",),
    "points_in_der_only": ("decrypt",),
    "handle_zero_crashes": ("sessions: handles from nowhere",),
}
"""Mutants that are not worth waiting for `make test-long`, with the scenarios that catch them."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_mutants(tmp_path_factory.mktemp("mutants"))


# A token that NSS uses for everything does everything: what breaks another rule may break this one, too.
ACCELERATOR = {"N4"}


def expect_caught(name: str, report: Report) -> None:
    expected, found = MUTANTS[name], broken(report)
    assert expected.must <= found.keys(), f"{name} is not caught by {sorted(expected.must - found.keys())}: {found}"
    unrelated = found.keys() - expected.must - expected.may - ACCELERATOR
    assert not unrelated, f"{name} is held against {sorted(unrelated)}: {found}"


def test_the_table_has_every_mutant_of_the_library(library: Path) -> None:
    assert names(library) == list(dict.fromkeys(names(library)))
    assert sorted((*MUTANTS, *LIES)) == sorted(names(library))


def test_mutants_break_most_of_the_rules() -> None:
    rules = frozenset().union(*(mutant.must for mutant in MUTANTS.values()))
    assert len(rules) >= FEWEST_RULES


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mutant_of_the_sample_is_caught(name: str, library: Path, tmp_path: Path) -> None:
    expect_caught(name, checked(library, name, MUTANTS[name].token, tmp_path / "home", *SAMPLE[name]))


def test_the_scenarios_of_the_sample_find_nothing_in_the_shim_itself(library: Path, tmp_path: Path) -> None:
    only = [scenario for scenarios in SAMPLE.values() for scenario in scenarios]
    assert broken(checked(library, None, "erased", tmp_path / "home", *only)) == {}


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_the_rule_that_it_breaks_and_by_no_unrelated_one(
    name: str, library: Path, tmp_path: Path
) -> None:
    expect_caught(name, checked(library, name, MUTANTS[name].token, tmp_path / "home"))


@pytest.mark.long
@pytest.mark.parametrize("name", LIES)
def test_lengths_that_cannot_be_are_no_fault_of_the_checker(name: str, library: Path, tmp_path: Path) -> None:
    report = checked(library, name, "erased", tmp_path / "home")
    assert [(each.name, each.detail) for each in report.scenarios if each.ended == Ended.FAULT] == []
    assert broken(report)


@pytest.mark.long
@pytest.mark.parametrize("token", ["erased", "fresh", "kept", "open", "removable"])
def test_the_shim_itself_passes_everything(token: Token, library: Path, tmp_path: Path) -> None:
    report = checked(library, None, token, tmp_path / "home")
    assert broken(report) == {}
    assert {each.ended for each in report.scenarios} <= {Ended.DONE, Ended.SKIPPED}
    assert report.facts.get("left behind", []) == []
    assert report.seconds < LONGEST
