"""Waivers: what a file may say, which cases it covers, and what becomes of it in a run."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.history.waivers import State, Waiver, WaiverError, find, judge, load, unknown, waived
from edgecheck.names import CHECKS
from edgecheck.report.record import unjudged

law = settings(deadline=None, derandomize=True, max_examples=50)
TODAY = datetime.date(2026, 11, 21)
DAY = datetime.timedelta(days=1)
ENTRY = """
[[waiver]]
model = "digits*"
target = "tflite"
reason = "rounding of the first layer"
owner = "ana@example.com"
issue = "https://example.com/issues/7"
expires = 2026-12-31
"""


def read(tmp_path: Path, text: str) -> tuple[Waiver, ...]:
    path = tmp_path / "waivers.toml"
    path.write_text(text)
    return load(path)


def waiver(number: int = 1, *, expires: datetime.date = TODAY, **options: Any) -> Waiver:
    return Waiver(number, "known", "ana", expires, **options)


def identity(
    model: str = "digits",
    target: str = "tflite",
    precision: str = "int8",
    check: str = "parity",
    variant: str = "",
) -> dict[str, Any]:
    label = f"{model}:{variant}" if variant else model
    return {
        "key": f"{label}/{target}/{precision}/{check}",
        "model": model,
        "variant": variant,
        "target": target,
        "precision": precision,
        "check": check,
        "required": True,
    }


def record(verdict: str = "failed", **parts: Any) -> dict[str, Any]:
    return unjudged(identity(**parts), verdict, "" if verdict == "passed" else "bad")


KNOWN = [
    identity(model, target, precision, check)
    for model in ("digits", "speech")
    for target in ("ort", "tflite")
    for precision in ("fp32", "int8")
    for check in CHECKS
]


# -- reading


def test_an_entry_is_read(tmp_path: Path) -> None:
    (found,) = read(tmp_path, ENTRY)
    assert found == Waiver(
        1,
        "rounding of the first layer",
        "ana@example.com",
        datetime.date(2026, 12, 31),
        "https://example.com/issues/7",
        model="digits*",
        target="tflite",
    )
    assert found.text == (
        "waived until 2026-12-31 by ana@example.com: rounding of the first layer "
        "(https://example.com/issues/7)"
    )
    assert found.record() == {
        "reason": "rounding of the first layer",
        "owner": "ana@example.com",
        "issue": "https://example.com/issues/7",
        "expires": "2026-12-31",
    }


def test_an_empty_file_waives_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("reason =", "raeson =", "entry 1: unknown field 'raeson'; did you mean 'reason'?"),
        ('owner = "ana@example.com"', "", "entry 1: 'owner' is missing"),
        ('owner = "ana@example.com"', 'owner = " "', "entry 1: 'owner' is ' ', no text"),
        ("expires = 2026-12-31", "", "entry 1: 'expires' is missing"),
        ("2026-12-31", '"2026-12-31"', "'expires' is '2026-12-31', no date, as in"),
        ("2026-12-31", "2026-12-31T12:00:00Z", "no date, as in expires = 2027-01-31"),
        ("2026-12-31", "2026-13-01", "can't read the waivers in"),
        ('"tflite"', '["tflite", "ort"]', "'target' is ['tflite', 'ort'], no text"),
        ("https://example.com/issues/7", "#7", "'issue' is '#7', no http or https link"),
        ("https:", "javascript:", "no http or https link"),
        ("https://example.com", "https://", "no http or https link"),
        ("[[waiver]]", "[waiver]", "entries begin with [[waiver]]"),
        ("[[waiver]]", "[[wavier]]", "unknown 'wavier'; entries begin with [[waiver]]"),
    ],
)
def test_a_wrong_entry_is_an_error(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(WaiverError) as caught:
        read(tmp_path, ENTRY.replace(old, new))
    assert says in str(caught.value)
    assert "waivers.toml" in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(WaiverError) as caught:
        read(tmp_path, ENTRY + ENTRY.replace("reason", "why") + "[[waiver]]\ncolour = 3\n")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("waivers.toml: 7 problems")
    assert "  entry 2: covers the same as entry 1" in lines
    assert sum("entry 2" in line for line in lines) == 3
    assert sum("entry 3" in line for line in lines) == 4


def test_a_file_that_is_absent_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WaiverError, match="No such file"):
        load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WaiverError, match=r"can't read the waivers in .*binary\.toml"):
        load(tmp_path / "binary.toml")


# -- what it covers


@law
@given(
    st.sampled_from(KNOWN),
    st.fixed_dictionaries(
        {name: st.booleans() for name in ("model", "target", "precision", "check")}
    ),
)
def test_a_waiver_covers_the_cases_with_the_names_it_states_and_no_others(
    chosen: dict[str, Any], stated: dict[str, bool]
) -> None:
    names = [name for name, said in stated.items() if said]
    covered = [
        item for item in KNOWN if waiver(**{name: chosen[name] for name in names}).covers(item)
    ]
    assert covered == [item for item in KNOWN if all(item[n] == chosen[n] for n in names)]


@pytest.mark.parametrize(
    ("pattern", "plain", "variant"),
    [
        ("digits", True, False),
        ("digits:*", False, True),
        ("digits*", True, True),
        ("digits:small", False, True),
        ("Digits", False, False),
        ("*", True, True),
    ],
)
def test_the_model_s_pattern_is_over_model_and_variant(
    pattern: str, plain: bool, variant: bool
) -> None:
    chosen = waiver(model=pattern)
    assert chosen.covers(identity()) == plain
    assert chosen.covers(identity(variant="small")) == variant


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        ({"model": "digit"}, "model 'digit' matches nothing; did you mean 'digits'?"),
        ({"target": "tflit"}, "target 'tflit' matches nothing; did you mean 'tflite'?"),
        ({"precision": "int9"}, "precision 'int9' matches nothing; did you mean 'int8'?"),
        ({"check": "latancy"}, "check 'latancy' matches nothing; did you mean 'latency'?"),
        ({"target": "t?f*"}, "target 't?f*' matches nothing (there: ort, tflite)"),
        ({"model": "speech", "precision": "int4"}, "'int4' matches nothing; did you mean"),
    ],
)
def test_what_a_waiver_names_must_exist(patterns: dict[str, Any], says: str) -> None:
    (line,) = unknown([waiver(3, **patterns)], KNOWN, all_models=True)
    assert line.startswith(f"entry 3 ({waiver(**patterns).patterns}): ")
    assert says in line


def test_waivers_for_what_exists_are_right() -> None:
    right = [waiver(), waiver(model="dig*", check="latency"), waiver(target="ort")]
    assert unknown(right, KNOWN, all_models=True) == []


def test_a_model_elsewhere_is_an_error_only_where_all_models_are_known() -> None:
    elsewhere = waiver(model="segmenter")
    assert unknown([elsewhere], KNOWN, all_models=False) == []
    assert len(unknown([elsewhere], KNOWN, all_models=True)) == 1
    assert len(unknown([waiver(model="digits", check="x")], KNOWN, all_models=False)) == 1


# -- what it does to a case


@pytest.mark.parametrize("verdict", ["failed", "unsupported", "inconclusive"])
def test_a_waived_failure_is_an_expected_one_with_its_reason(verdict: str) -> None:
    chosen = waiver(target="tflite", issue="https://example.com/7")
    found = waived(record(verdict), [chosen], TODAY)
    assert found["verdict"] == verdict
    assert found["waiver"] == chosen.record()
    assert found["expected_failure"] == (
        "waived until 2026-11-21 by ana: known (https://example.com/7)"
    )


def test_a_waiver_holds_through_its_last_day() -> None:
    assert waived(record(), [waiver(expires=TODAY)], TODAY)["waiver"] is not None
    assert waived(record(), [waiver(expires=TODAY - DAY)], TODAY)["waiver"] is None


def test_an_expired_waiver_waives_nothing_and_says_so() -> None:
    found = waived(record(), [waiver(expires=TODAY - DAY)], TODAY)
    assert found["expected_failure"] is None
    assert found["reason"] == "bad; the waiver of ana expired on 2026-11-20: known"
    assert found["failures"] == ["bad", "the waiver of ana expired on 2026-11-20: known"]


def test_of_two_waivers_the_one_that_holds_counts() -> None:
    old, new = waiver(1, expires=TODAY - DAY), waiver(2, target="tflite")
    assert find([old, new], identity()) == find([new, old], identity()) == new


@pytest.mark.parametrize(
    "other",
    [
        record(check="memory"),
        record(target="ort"),
        record("passed"),
        record("not_checked"),
        {**record(), "expected_failure": "marked xfail"},
    ],
)
def test_all_else_stays_as_it_is(other: dict[str, Any]) -> None:
    assert waived(other, [waiver(target="tflite", check="parity")], TODAY) == {
        **other,
        "waiver": None,
    }


# -- what becomes of it


def state(chosen: Waiver, records: list[Any], known: Sequence[dict[str, Any]] = ()) -> State:
    (found,) = judge([chosen], records, known, TODAY)
    return found.state


def test_a_waiver_that_a_failure_needed_is_used() -> None:
    chosen = waiver(model="digits")
    records = [waived(record(), [chosen], TODAY), record("passed", check="export")]
    (found,) = judge([chosen], records, KNOWN, TODAY)
    assert (found.state, found.keys, found.line) == (
        State.USED,
        ("digits/tflite/int8/parity",),
        "",
    )


def test_a_waiver_that_a_failure_needs_no_more_in_time_is_expired() -> None:
    chosen = waiver(4, model="digits", expires=TODAY - DAY)
    (found,) = judge([chosen], [waived(record(), [chosen], TODAY)], KNOWN, TODAY)
    assert found.state is State.EXPIRED
    assert found.line == (
        "waiver 4 of ana (digits/*/*/*) expired on 2026-11-20; 1 of its cases fail"
    )


def test_an_expired_waiver_beside_one_that_holds_is_no_matter() -> None:
    old, new = waiver(1, expires=TODAY - DAY), waiver(2, target="tflite")
    states = [item.state for item in judge([old, new], [record()], KNOWN, TODAY)]
    assert states == [State.UNUSED, State.USED]


@pytest.mark.parametrize("expires", [TODAY, TODAY - DAY])
def test_a_waiver_whose_cases_all_passed_is_stale(expires: datetime.date) -> None:
    chosen = waiver(2, model="digits", precision="int8", check="parity", expires=expires)
    records = [record("passed"), record("passed", target="ort")]
    (found,) = judge([chosen], records, KNOWN, TODAY)
    assert found.state is State.STALE
    assert found.keys == ("digits/ort/int8/parity", "digits/tflite/int8/parity")
    assert found.line == (
        "waiver 2 of ana (digits/*/int8/parity) is stale: "
        "none of its 2 cases fails any more; remove it"
    )


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record("passed")],
        [record("passed"), record("not_checked", target="ort")],
        [record("passed"), {**record("inconclusive", target="ort"), "expected_failure": "noise"}],
        [record("passed", check="export")],
    ],
)
def test_a_run_of_some_of_its_cases_says_nothing_of_a_waiver(records: list[Any]) -> None:
    assert state(waiver(model="digits", precision="int8", check="parity"), records, KNOWN) is (
        State.UNUSED
    )


@law
@given(
    st.lists(
        st.tuples(st.sampled_from(KNOWN), st.sampled_from(["passed", "failed", "not_checked"])),
        unique_by=lambda pair: pair[0]["key"],
    ),
    st.sampled_from(KNOWN),
    st.sampled_from([TODAY, TODAY - DAY]),
)
def test_the_states_follow_from_the_verdicts(
    drawn: list[Any], chosen: dict[str, Any], expires: datetime.date
) -> None:
    records = [unjudged(item, verdict, "why") for item, verdict in drawn]
    one = waiver(model=chosen["model"], target=chosen["target"], expires=expires)
    verdicts = {item["key"]: item["verdict"] for item in records if one.covers(item)}
    everything = {item["key"] for item in KNOWN if one.covers(item)}
    found = state(one, records, KNOWN)
    assert (found in (State.USED, State.EXPIRED)) == ("failed" in verdicts.values())
    assert (found is State.STALE) == (
        set(verdicts) == everything and set(verdicts.values()) == {"passed"}
    )
    assert (found is State.USED) <= (expires == TODAY)
    # What is waived at the end is what the judgement says was used.
    after = [waived(item, [one], TODAY) for item in records]
    assert any(item["waiver"] for item in after) == (found is State.USED)
    assert state(one, after, KNOWN) == found
    assert state(replace(one, model="absent"), records, KNOWN) is State.UNUSED
