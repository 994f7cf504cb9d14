"""The benchmark's own arithmetic and its table, from made-up figures."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import catalogue, keys, machine, report, targets
from bench.driver import CallError
from bench.maths import Series, advantage, compare, lane_rate, show, show_spread
from bench.report import as_json, cell, figures_table, print_report, write_json
from bench.runner import QUICK, Outcome, rotated

ROOT = Path(__file__).resolve().parents[2]
TITLES = {"keyfob": "keyfob", "softhsm": "SoftHSM 2", "softoken": "softoken"}
MACHINE = {"cpu": "AMD EPYC", "cores": 2, "system": "Debian", "python": "CPython 3.11"}


@pytest.fixture(scope="module")
def figures() -> tuple[catalogue.Figure, ...]:
    return catalogue.figures(keys.Keys(), 10_000)


@pytest.fixture
def outcome(figures: tuple[catalogue.Figure, ...]) -> Outcome:
    """keyfob takes 123.4 us, SoftHSM twice and softoken half as long."""
    results = {
        figure.name: {
            name: Series(figure.unit, [123_400.0 * factor] * 5)
            for name, factor in (("keyfob", 1.0), ("softhsm", 2.0), ("softoken", 0.5))
        }
        for figure in figures
    }
    for name in ("sign-rsa", "sign-ec"):
        results[name]["bare"] = Series("time", [120_000.0] * 5)
    return Outcome(results)


def printed(outcome: Outcome, figures: tuple[catalogue.Figure, ...], titles: dict[str, str] = TITLES) -> str:
    console = Console(width=report.WIDTH, file=io.StringIO())
    print_report(console, outcome, figures, titles, MACHINE, QUICK)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- arithmetic ---


def test_batch_of_one_lane_is_time_per_operation() -> None:
    series = Series("time")
    series.add({"lanes": [[200, 50_000]]})
    assert series.values == [pytest.approx(250)]


def test_rates_of_lanes_add_up_though_they_end_apart() -> None:
    assert lane_rate([[100, 1_000_000], [100, 2_000_000]]) == pytest.approx(150_000)


def test_samples_are_taken_one_by_one_and_not_as_their_lane() -> None:
    series = Series("time")
    series.add({"lanes": [[2, 40]], "samples": [10, 30]})
    assert series.values == [10, 30]


def test_median_ignores_one_disturbed_batch() -> None:
    assert Series("time", [10, 11, 900, 10, 11]).median == 11


def test_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert Series("time", [80, 90, 100, 110, 120]).spread == pytest.approx(0.1)
    assert Series("time", [80, 90, 100]).spread is None


def test_failed_series_has_no_median_even_after_good_batches() -> None:
    assert Series("time", [1, 2, 3], failure="C_Sign CKR_DEVICE_ERROR").median is None


@pytest.mark.parametrize(
    ("unit", "ours", "theirs", "words"),
    [
        ("time", 100, 320, "3.20x faster"),
        ("time", 320, 100, "3.20x slower"),
        ("rate", 320, 100, "3.20x faster"),
        ("rate", 100, 1250, "12.5x slower"),
        ("time", 100, 102, "equal"),
        ("time", 102, 100, "equal"),
        ("time", 1, 2500, "2,500x faster"),
    ],
)
def test_comparison_says_which_way_whatever_the_unit(unit: Any, ours: float, theirs: float, words: str) -> None:
    assert compare(unit, ours, theirs) == words


def test_advantage_of_a_time_and_a_rate_point_the_same_way() -> None:
    assert advantage("time", 10, 20) == advantage("rate", 20, 10) == 2


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("time", 45.04, "45.0 ns"),
        ("time", 999, "999 ns"),
        ("time", 99_999, "100 us"),
        ("time", 9_999, "10.0 us"),
        ("time", 1500, "1.50 us"),
        ("time", 35_100_000, "35.1 ms"),
        ("time", 2.5e9, "2.50 s"),
        ("rate", 14929.6, "14,930 /s"),
        ("ratio", 1.954, "1.95 x"),
    ],
)
def test_value_is_shown_with_its_unit(unit: Any, value: float, text: str) -> None:
    assert show(unit, value) == text


def test_spread_is_shown_as_percent_and_unknown_as_nothing() -> None:
    assert (show_spread(0.024), show_spread(None)) == ("±2%", "")


def test_every_module_comes_first_in_some_turn() -> None:
    assert [rotated([1, 2, 3], turn) for turn in range(3)] == [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
    assert rotated([], 5) == []


# --- targets ---


def verdict(results: dict[str, dict[str, Series]], start: str, cores: int = 2) -> targets.Verdict:
    peers = {"softhsm": "SoftHSM 2", "softoken": "softoken"}
    return next(found for found in targets.verdicts(results, peers, cores) if found.target.startswith(start))


def one(unit: Any, *values: float) -> Series:
    return Series(unit, list(values))


@pytest.mark.parametrize(("value", "met"), [(49e6, True), (51e6, False)])
def test_start_target_is_50_ms(value: float, met: bool) -> None:
    assert verdict({"start": {"keyfob": one("time", value)}}, "start").met is met


@pytest.mark.parametrize(("ours", "met"), [(104, True), (106, False)])
def test_rsa_target_is_5_percent_over_bare_cryptography(ours: float, met: bool) -> None:
    found = verdict({"sign-rsa": {"keyfob": one("time", ours), "bare": one("time", 100)}}, "RSA-2048 sign within")
    assert found.met is met
    assert found.measured == f"{ours - 100:+.1f} %"


def test_ratio_is_taken_round_by_round_so_that_drift_cancels_out() -> None:
    assert targets.medians_of_ratios(one("time", 10, 40, 1000), one("time", 10, 20, 1000)) == 1
    assert targets.medians_of_ratios(one("time", 10, 20, 30), one("time", 10, 10)) == 2


@pytest.mark.parametrize(("rate", "met"), [(19_000, True), (17_000, False)])
def test_two_threads_must_reach_1_8_times_one(rate: float, met: bool) -> None:
    results = {"sign-ec": {"keyfob": one("time", 100_000)}, "sign-ec-2": {"keyfob": one("rate", rate)}}
    assert verdict(results, "ECDSA P-256: 2 threads").met is met


def test_thread_target_is_no_verdict_on_one_core() -> None:
    results = {"sign-ec": {"keyfob": one("time", 100_000)}, "sign-ec-2": {"keyfob": one("rate", 10_000)}}
    found = verdict(results, "ECDSA P-256: 2 threads", cores=1)
    assert (found.met, found.measured) == (None, "needs 2 cores")


def test_peer_is_judged_by_its_better_way_to_sign() -> None:
    results = {
        "sign-ec": {"keyfob": one("time", 30), "softoken": one("time", 500)},
        "sign-ec-session": {"softoken": one("time", 20)},
    }
    assert verdict(results, "ECDSA P-256 sign faster than softoken").met is False


def test_look_up_that_grows_is_not_flat() -> None:
    results = {"find-few": {"keyfob": one("time", 10)}, "find-many": {"keyfob": one("time", 13)}}
    assert verdict(results, "find by CKA_ID flat").met is False
    results["find-many"]["keyfob"] = one("time", 12)
    assert verdict(results, "find by CKA_ID flat").met is True


def test_target_of_a_failed_figure_is_neither_met_nor_missed() -> None:
    failed = verdict({"start": {"keyfob": Series("time", [1.0], failure="C_Initialize")}}, "start")
    assert (failed.met, failed.measured) == (None, "not measured")


def test_target_of_a_figure_that_nobody_asked_for_is_left_out() -> None:
    assert targets.verdicts({}, {"softhsm": "SoftHSM 2"}, 2) == []


# --- table and file ---


def test_table_keeps_to_100_columns_whatever_it_shows(figures: tuple[catalogue.Figure, ...]) -> None:
    wide = [10.0, 99_999.0, 99_999.0, 400_000.0, 800_000.0]  # 99,999 /s and a spread of three digits
    results = {
        figure.name: {
            name: Series(figure.unit, [value * (factor if figure.unit == "time" else 1) for value in wide])
            for name, factor in (("keyfob", 1.0), ("softhsm", 20_000.0), ("softoken", 1 / 20_000))
        }
        for figure in figures
    }
    lines = printed(Outcome(results), figures).splitlines()
    assert any("20,000x faster" in line and "20,000x slower" in line and "±150%" in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


def test_table_says_who_is_faster_than_each_peer(outcome: Outcome, figures: tuple[catalogue.Figure, ...]) -> None:
    line = next(line for line in printed(outcome, figures).splitlines() if "C_GetSessionInfo" in line)
    assert re.search(r"123 us +247 us +2\.00x faster +61\.7 us +2\.00x slower +±0%", line)


def test_table_without_keyfob_compares_with_nothing(outcome: Outcome, figures: tuple[catalogue.Figure, ...]) -> None:
    text = printed(outcome, figures, {"softhsm": "SoftHSM 2"})
    assert "faster" not in text
    assert "Target" not in text


def test_target_missed_is_printed_as_such(outcome: Outcome, figures: tuple[catalogue.Figure, ...]) -> None:
    line = next(line for line in printed(outcome, figures).splitlines() if line.startswith("ECDSA P-256 sign under"))
    assert line.rstrip().endswith("NOT MET")


def test_what_a_module_does_not_offer_is_unsupported_and_no_failure(figures: tuple[catalogue.Figure, ...]) -> None:
    found = Outcome({figures[0].name: {}})
    absent, broken = Series("time"), Series("time")
    found.fail(absent, "softhsm", figures[0], CallError("C_EncryptInit", "CKR_MECHANISM_INVALID"))
    assert (cell(absent), found.failures) == ("n/a", [])
    found.fail(broken, "softhsm", figures[0], CallError("C_Encrypt", "CKR_DEVICE_ERROR"))
    assert cell(broken) == "failed"
    assert found.failures == [f"softhsm, {figures[0].title}: C_Encrypt CKR_DEVICE_ERROR"]


def test_every_figure_has_a_row_and_sections_are_in_order(
    outcome: Outcome, figures: tuple[catalogue.Figure, ...]
) -> None:
    table = figures_table(outcome, figures, TITLES)
    sections = list(dict.fromkeys(figure.section for figure in figures))
    assert table.row_count == len(figures) + len(sections) + len(report.DERIVED)
    assert [section for section in sections if [f.section for f in figures].count(section) == 0] == []


def test_json_has_raw_values_ratios_and_targets(
    outcome: Outcome, figures: tuple[catalogue.Figure, ...], tmp_path: Path
) -> None:
    described = {name: {"title": title, "file": f"lib{name}.so"} for name, title in TITLES.items()}
    write_json(tmp_path / "results" / "a.json", as_json(outcome, figures, described, MACHINE, QUICK))
    text = (tmp_path / "results" / "a.json").read_text()
    content = json.loads(text)
    info = content["figures"]["session-info"]["modules"]["softhsm"]
    assert info["values"] == [246_800.0] * 5
    assert info["keyfob_is_times_better"] == 2
    assert content["ratios"]["find-many, many to few"]["keyfob"] == 1
    assert {"target", "figures", "measured", "met"} == set(content["targets"][0])
    assert "[246800.0, 246800.0, 246800.0, 246800.0, 246800.0]" in text


def test_machine_facts_name_neither_host_nor_folder() -> None:
    facts = json.dumps(machine.facts())
    assert str(Path.home()) not in facts
    assert str(ROOT) not in facts


def test_name_of_the_machine_fits_into_a_file_name() -> None:
    name = machine.slug({"cpu": "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "cores": 2})
    assert name.startswith("intel-xeon-e5-2680-v4-2-cores-py")
    assert re.fullmatch(r"[a-z0-9-]+", name)


# --- what is asked of the C program ---


def test_template_is_written_as_hexadecimal_pairs() -> None:
    assert keys.words({0x0: b"\x03", 0x102: b"", 0x80000001: b"\xff\x00"}) == "0=03 102=- 80000001=ff00"


def test_names_of_figures_are_unique(figures: tuple[catalogue.Figure, ...]) -> None:
    names = [figure.name for figure in figures]
    assert len(names) == len(set(names))


def test_signature_is_of_a_51_byte_digest_info() -> None:
    assert len(keys.DIGEST_INFO) == 51


def test_function_list_in_c_has_the_standards_order() -> None:
    header = (ROOT / "bench" / "p11.h").read_text()
    body = header[header.index("CK_VERSION version;") : header.index("} CK_FUNCTION_LIST;")]
    ours = re.findall(r"\*\(?(C_\w+)", body)
    functions = json.loads((ROOT / "facts" / "functions.json").read_text())
    assert ours == [function["name"] for function in functions if function["since"] == "2.40"]
