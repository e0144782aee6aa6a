"""Merged shards: whose verdict stands, what closes the gate, and what can't be merged."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.errors import HistoryError
from edgecheck.history.merge import merge
from edgecheck.history.report_file import schema_text
from edgecheck.judge.gate import closes, count_verdicts, judge_gate
from edgecheck.names import VERDICTS

law = settings(deadline=None, derandomize=True, max_examples=60)

COMMIT = "1" * 40
HOST = {"system": "Linux", "machine": "x86_64", "cpu": "A, fast", "cores": 2, "python": "3.11.7"}


def record(
    verdict: str = "passed",
    check: str = "parity",
    target: str = "ort",
    nodeid: str | None = None,
    **changes: Any,
) -> dict[str, Any]:
    key = f"digits/{target}/fp32/{check}"
    return {
        "key": key,
        "nodeid": nodeid or f"suites/test_digits.py::TestDigits::test_{check}[{target}-fp32]",
        "model": "digits",
        "variant": "",
        "target": target,
        "precision": "fp32",
        "check": check,
        "required": True,
        "verdict": verdict,
        "reason": "" if verdict == "passed" else f"it is {verdict}",
        "failures": [],
        "warnings": [],
        "limits": [],
        "measurements": {},
        "details": "",
        "artifact": None,
        "timings": {},
        "expected_failure": None,
        **changes,
    }


def shard(
    name: str,
    *cases: dict[str, Any],
    status: int | None = None,
    missing: str = "fail",
    gate: str | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A report as pytest writes it."""
    judged = judge_gate(cases, accept_missing=missing == "skip")
    closed, reason = (True, gate) if gate else (judged.closed, judged.line)
    run = {
        "id": name * 32 if len(name) == 1 else name,
        "started": f"2026-11-0{1 + ord(name[0]) % 9}T10:00:00+00:00",
        "finished": f"2026-11-0{1 + ord(name[0]) % 9}T11:00:00+00:00",
        "exit_status": int(closed) if status is None else status,
        "command": ["pytest", "suites"],
        "options": {"targets": "", "missing": missing},
        "host": HOST,
        "tools": {"edgecheck": "0.1.0", "numpy": "2.4.6"},
        "git": {"commit": COMMIT, "branch": "main", "dirty": False},
    }
    return {
        "schema": "edgecheck-report/1",
        "run": {**run, **{key: value for key, value in changes.items() if key in run}},
        "gate": {
            "verdict": "closed" if closed else "passed",
            "reason": reason,
            "counts": count_verdicts(cases),
        },
        "cases": list(cases),
        "absences": changes.get("absences", []),
        "skipped_targets": changes.get("skipped_targets", {}),
    }


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: item["verdict"] for item in document["cases"]}


# -- whose verdict stands


def test_cases_of_all_shards_are_in_the_report() -> None:
    merged = merge([shard("b", record(target="tflite")), shard("a", record(target="ort"))])
    assert list(verdicts(merged)) == ["digits/ort/fp32/parity", "digits/tflite/fp32/parity"]
    assert merged["gate"] == {
        "verdict": "passed",
        "reason": "gate passed: 2 cases",
        "counts": {**dict.fromkeys(VERDICTS, 0), "passed": 2},
    }
    assert merged["run"]["exit_status"] == 0


@pytest.mark.parametrize("verdict", ["passed", "failed", "inconclusive"])
def test_a_case_that_one_shard_could_not_check_has_the_verdict_of_another(verdict: str) -> None:
    merged = merge([shard("a", record("not_checked")), shard("b", record(verdict, required=False))])
    (case,) = merged["cases"]
    assert case["verdict"] == verdict
    assert case["required"] is True
    assert case["warnings"] == []
    assert merged["run"]["exit_status"] == int(verdict != "passed")


def test_a_required_case_that_no_shard_checked_keeps_the_gate_closed() -> None:
    merged = merge([shard("a", record("not_checked")), shard("b", record("not_checked"))])
    assert merged["gate"]["reason"].startswith("gate incomplete: 1 required cases not checked")
    assert merged["run"]["exit_status"] == 1


def test_missing_is_accepted_only_where_all_shards_accept_it() -> None:
    missing = record("not_checked")
    for others, verdict in (("skip", "passed"), ("fail", "closed")):
        merged = merge([shard("a", missing, missing="skip"), shard("b", missing=others)])
        assert merged["gate"]["verdict"] == verdict
        assert merged["run"]["options"]["missing"] == others


def test_of_two_verdicts_the_worse_stands_and_a_warning_says_so() -> None:
    other = {**HOST, "cpu": "B"}
    merged = merge(
        [shard("a", record("passed")), shard("b", record("failed", device=other), host=HOST)]
    )
    (case,) = merged["cases"]
    assert case["verdict"] == "failed"
    (warning,) = case["warnings"]
    assert warning == (
        "judged by 2 shards (run aaaaaaaa on A, fast: passed, run bbbbbbbb on B: failed); "
        "this is run bbbbbbbb on B"
    )


def test_an_accepted_failure_does_not_hide_one_that_is_not() -> None:
    waived = record("failed", expected_failure="waived by ana")
    merged = merge([shard("a", waived), shard("b", record("inconclusive"))])
    assert verdicts(merged) == {"digits/ort/fp32/parity": "inconclusive"}
    assert merged["gate"]["verdict"] == "closed"


def test_one_case_from_checkouts_in_other_directories_is_one_case() -> None:
    there = record(nodeid="elsewhere/test_digits.py::TestDigits::test_parity[ort-fp32]")
    assert len(merge([shard("a", record()), shard("b", there)])["cases"]) == 1


def test_a_tests_own_parameters_are_cases_of_their_own() -> None:
    cases = [record(nodeid=f"s.py::TestDigits::test_own[ort-fp32-{size}]") for size in (1, 2)]
    merged = merge([shard("a", *cases), shard("b", cases[0])])
    assert [len(item["warnings"]) for item in merged["cases"]] == [1, 0]


# -- the gate


@pytest.mark.parametrize(
    ("status", "says"), [(2, "was interrupted"), (3, "ended with an internal error")]
)
def test_a_shard_that_did_not_end_well_keeps_the_gate_closed(status: int, says: str) -> None:
    merged = merge([shard("a", record()), shard("b", status=status)])
    assert merged["gate"]["verdict"] == "closed"
    assert f"run bbbbbbbb (A, fast) {says}" in merged["gate"]["reason"]
    assert merged["run"]["exit_status"] == status


def test_what_closed_a_shards_gate_besides_its_cases_closes_the_merged_one() -> None:
    wrong = shard("b", status=4, gate="gate closed: --edge-models 'x*' matches no model")
    merged = merge([shard("a", record()), wrong])
    assert merged["gate"]["reason"] == (
        "gate closed: run bbbbbbbb (A, fast): --edge-models 'x*' matches no model"
    )
    assert merged["run"]["exit_status"] == 4


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [((0, 0), 0), ((0, 1), 1), ((1, 2), 2), ((4, 2), 2), ((2, 3), 3), ((0, 5), 0), ((0, 99), 99)],
)
def test_the_exit_status_is_the_worst(statuses: tuple[int, int], expected: int) -> None:
    # Cases pass: a status of 1 is that of other tests in the suite.
    shards = [shard(name, record(), status=s) for name, s in zip("ab", statuses, strict=True)]
    assert merge(shards)["run"]["exit_status"] == expected


def test_shards_without_any_case_close_the_gate() -> None:
    assert merge([shard("a", status=5), shard("b", status=5)])["run"]["exit_status"] == 1


# -- what is not judged


def test_a_target_that_one_shard_judged_was_not_skipped() -> None:
    skipped = {"tflite": "no ai-edge-litert", "trt": "no GPU"}
    merged = merge(
        [
            shard("a", record(target="ort"), skipped_targets=skipped),
            shard("b", record(target="tflite"), skipped_targets={"trt": "no driver"}),
        ]
    )
    assert merged["skipped_targets"] == {"trt": "no GPU; no driver"}


def test_absences_are_told_once() -> None:
    absence = {"subject": "digits", "what": "accuracy", "reason": "no evaluation data"}
    merged = merge([shard("a", absences=[absence]), shard("b", absences=[absence])])
    assert merged["absences"] == [absence]


# -- the run


def test_the_run_spans_its_shards_and_names_them() -> None:
    pi = {**HOST, "cpu": "Cortex-A76", "cores": 4}
    merged = merge(
        [
            shard("a", options={"targets": "ort", "missing": "fail"}),
            shard("b", options={"targets": "tflite,ort", "missing": "fail"}, host=pi, status=5),
        ]
    )
    run = merged["run"]
    assert (run["started"], run["finished"]) == (
        "2026-11-08T10:00:00+00:00",
        "2026-11-09T11:00:00+00:00",
    )
    assert run["options"]["targets"] == "ort,tflite"
    assert run["host"] == {**HOST, "cpu": "A, Cortex-A76, fast", "cores": "2, 4"}
    assert [item["id"][0] for item in run["shards"]] == ["a", "b"]
    assert [item["host"]["cores"] for item in run["shards"]] == [2, 4]
    assert run["git"] == {"commit": COMMIT, "branch": "main", "dirty": False}


def test_a_detached_checkout_has_the_branch_of_the_others() -> None:
    detached = {"commit": COMMIT, "branch": "HEAD", "dirty": False}
    assert merge([shard("a", git=detached), shard("b")])["run"]["git"]["branch"] == "main"


def test_the_same_report_given_twice_counts_once() -> None:
    one, other = shard("a", record()), shard("b")
    assert merge([one, other, copy.deepcopy(one)]) == merge([one, other])


def test_merging_in_steps_gives_the_same_run() -> None:
    shards = [shard(name, record(target=name)) for name in "abc"]
    stepwise = merge([merge(shards[:2]), shards[2]])
    assert stepwise == merge(shards)


# -- what can't be merged


def git(commit: str = COMMIT, dirty: bool = False) -> dict[str, Any]:
    return {"commit": commit, "branch": "main", "dirty": dirty}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"git": git("2" * 40)}, "not of one commit: commit 1111.*run aaaaaaaa.*commit 2222.*bbbb"),
        ({"git": None}, "not of one commit.*no commit: run bbbbbbbb"),
        ({"git": git(dirty=True)}, "files differed from the commit, maybe not alike, in run bbbb"),
        ({"id": "a" * 32}, "two different reports are of run aaaa"),
    ],
)
def test_shards_that_do_not_belong_together_are_an_error(other: dict[str, Any], says: str) -> None:
    with pytest.raises(HistoryError, match=says):
        merge([shard("a"), shard("b", **other)])


def test_changed_files_can_be_accepted() -> None:
    dirty = [shard(name, git=git(dirty=True)) for name in "ab"]
    assert merge(dirty, accept_dirty=True)["run"]["git"]["dirty"] is True


def test_a_part_of_a_merged_report_is_not_merged_again() -> None:
    one, other = shard("a"), shard("b")
    with pytest.raises(HistoryError, match="aaaa is given by itself and as a part of a merged"):
        merge([merge([one, other]), one])


def test_nothing_and_incomplete_reports_are_errors() -> None:
    with pytest.raises(HistoryError, match="no report to merge"):
        merge([])
    broken = shard("a")
    del broken["run"]["exit_status"]
    with pytest.raises(HistoryError, match=r"run aaaa.*there is no run\.exit_status"):
        merge([broken])
    with pytest.raises(HistoryError, match="there is no verdict 'perfect'"):
        merge([{**shard("a"), "cases": [record(verdict="passed") | {"verdict": "perfect"}]}])


# -- laws


@st.composite
def runs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Shards of a run whose cases overlap."""
    found = []
    for name in draw(st.sets(st.sampled_from("abcdef"), min_size=1, max_size=5)):
        cases = [
            record(
                draw(st.sampled_from(VERDICTS)),
                target=target,
                required=draw(st.booleans()),
                expected_failure=draw(st.sampled_from([None, None, "waived"])),
            )
            for target in draw(st.sets(st.sampled_from(["ort", "tflite", "trt"])))
        ]
        status = draw(st.sampled_from([None, None, None, 2, 4]))
        missing = draw(st.sampled_from(["fail", "skip"]))
        found.append(shard(name, *cases, status=status, missing=missing))
    return found


@law
@given(shards=runs(), seed=st.integers(0, 99))
def test_order_does_not_matter(shards: list[dict[str, Any]], seed: int) -> None:
    mixed = random.Random(seed).sample(shards, len(shards))
    assert merge(mixed) == merge(shards)


@law
@given(shards=runs())
def test_nothing_that_closes_a_shards_gate_gets_lost(shards: list[dict[str, Any]]) -> None:
    merged = merge(shards)
    cases = {item["key"]: item for item in merged["cases"]}
    assert {item["key"] for part in shards for item in part["cases"]} == cases.keys()
    for part in shards:
        for item in part["cases"]:
            if closes(item):
                assert closes(cases[item["key"]])
            if item["verdict"] != "not_checked":
                assert cases[item["key"]]["verdict"] != "not_checked"
    if any(map(closes, merged["cases"])) or any(p["run"]["exit_status"] == 2 for p in shards):
        assert merged["gate"]["verdict"] == "closed"
    assert (merged["run"]["exit_status"] == 0) <= (merged["gate"]["verdict"] == "passed")


@law
@given(shards=runs())
def test_a_merged_report_can_be_written_and_follows_the_schema(
    shards: list[dict[str, Any]],
) -> None:
    merged = json.loads(json.dumps(merge(shards), allow_nan=False))
    jsonschema.validate(merged, json.loads(schema_text()))


def test_reports_without_a_case_close_the_gate() -> None:
    merged = merge([shard("a"), shard("b")])
    assert merged["gate"]["reason"] == "gate closed: the reports hold no case"
    assert merged["run"]["exit_status"] == 1
    assert merge([shard("a"), shard("b", record())])["gate"]["verdict"] == "passed"
