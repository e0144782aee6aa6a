"""Records: what is told of a case is plain JSON data of the published shape."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.build.builder import Built
from edgecheck.declare.budget import KINDS, Budget, Limit
from edgecheck.declare.case import Case
from edgecheck.declare.model import Input, Model
from edgecheck.judge.verdict import Comparison, Outcome, Verdict
from edgecheck.names import SCHEMA, VERDICTS
from edgecheck.report.record import (
    git_commit,
    host,
    identity,
    judged,
    plain,
    run_header,
    tool_versions,
    unjudged,
    without_password,
)
from edgecheck.targets.registry import find_target

law = settings(deadline=None, derandomize=True, max_examples=50)

REPORT = json.loads(
    resources.files("edgecheck.report").joinpath("schema/report-1.schema.json").read_text()
)
CASE_SCHEMA = {**REPORT["$defs"]["case"], "$defs": REPORT["$defs"]}


def case(variant: str = "") -> Case:
    model = Model("m.onnx", inputs=[Input("x", (1,))], outputs=["y"], variants={"pruned": "p.onnx"})
    return Case("digits", variant, find_target("ort"), "int8", model, Budget())


BASE = identity(case(), "parity", "suites/test_digits.py::TestDigits::test_parity[ort-int8]", True)


def assert_publishable(record: dict[str, Any]) -> None:
    jsonschema.validate(record, CASE_SCHEMA)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def built(cached: bool | None = False) -> Built:
    """As much of it as a record tells."""
    told = SimpleNamespace(
        path=Path("/somewhere/m.onnx"), sha256="a" * 64, size_bytes=12, build_s=0.5, cached=cached
    )
    return cast(Built, told)


def test_the_schema_is_itself_valid_and_names_the_same_verdicts() -> None:
    jsonschema.Draft202012Validator.check_schema(REPORT)
    assert REPORT["properties"]["schema"]["const"] == SCHEMA
    assert set(REPORT["$defs"]["verdict"]["enum"]) == set(VERDICTS) == {str(o) for o in Outcome}


def test_a_key_is_made_of_model_variant_target_precision_and_check() -> None:
    assert BASE["key"] == "digits/ort/int8/parity"
    assert identity(case("pruned"), "export", "n", False)["key"] == "digits:pruned/ort/int8/export"
    assert identity(case("pruned"), "export", "n", False)["variant"] == "pruned"
    assert BASE["required"] is True


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_record_of_a_case_without_verdict_has_the_published_shape(verdict: str) -> None:
    record = unjudged(BASE, verdict, "because")
    assert_publishable(record)
    assert (record["verdict"], record["reason"]) == (verdict, "because")
    closes = verdict in ("failed", "unsupported")
    assert record["failures"] == (["because"] if closes else [])


def test_making_a_record_leaves_the_base_as_it_was() -> None:
    before = dict(BASE)
    judged(BASE, Verdict(Outcome.FAILED, "r", ("r",)), built())["failures"].append("more")
    assert before == BASE


limits = st.builds(
    Limit,
    st.sampled_from(["size", "sqnr_db"]),
    st.floats(-1e9, 1e9),
    st.sampled_from(["max", "min"]),
    st.sampled_from(sorted({kind.unit for kind in KINDS.values()})),
    st.sampled_from(["budget", "default", "profile mcu"]),
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text(max_size=5)
    | st.floats(width=32).map(np.float32)
    | st.integers(0, 200).map(np.uint8)
    | st.booleans().map(np.bool_)
    | st.floats().map(lambda value: np.array(value)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
compared = st.builds(Comparison, limits, st.floats()) | st.builds(
    Comparison,
    limits,
    st.floats(),
    low=st.floats(),
    high=st.floats(),
    resolution=st.floats(0, 1),
)
verdicts = st.builds(
    Verdict,
    st.sampled_from(Outcome),
    reason=st.text(max_size=9),
    failures=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    warnings=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    comparisons=st.lists(compared, max_size=3).map(tuple),
    measurements=st.dictionaries(st.text(max_size=5), anything, max_size=3),
    details=st.text(max_size=9),
)


@law
@given(verdicts, st.sampled_from([None, built(None), built(False), built(True)]))
def test_the_record_of_any_verdict_has_the_published_shape(
    verdict: Verdict, file: Built | None
) -> None:
    record = judged(BASE, verdict, file)
    assert_publishable(record)
    assert record["verdict"] == verdict.outcome.value
    assert type(record["verdict"]) is str
    assert [(item["passed"], item["outcome"]) for item in record["limits"]] == [
        (item.passed, str(item.outcome)) for item in verdict.comparisons
    ]
    assert (record["artifact"] is None) == (file is None)


def test_a_limit_is_told_with_what_was_measured() -> None:
    limit = Limit("size", 1e6, "max", "bytes", "profile mcu")
    verdict = Verdict(Outcome.FAILED, comparisons=(Comparison(limit, 2e6, "y"),))
    assert judged(BASE, verdict, None)["limits"] == [
        {
            "name": "size",
            "subject": "y",
            "measured": 2e6,
            "bound": "max",
            "limit": 1e6,
            "unit": "bytes",
            "origin": "profile mcu",
            "passed": False,
            "outcome": "failed",
            "interval": None,
            "resolution": 0.0,
        }
    ]


def test_the_interval_of_a_limit_is_told() -> None:
    limit = Limit("latency_vs_fp32", 1.0, "max", "x", "budget")
    comparison = Comparison(limit, 1.5, low=np.float64(0.5), high=math.inf, resolution=0.02)
    record = judged(BASE, Verdict(Outcome.INCONCLUSIVE, comparisons=(comparison,)), None)
    (told,) = record["limits"]
    assert (told["outcome"], told["passed"]) == ("inconclusive", False)
    assert (told["interval"], told["resolution"]) == ([0.5, "inf"], 0.02)
    assert_publishable(record)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_limit_of_a_budget_can_be_published(name: str) -> None:
    limit = Limit(name, 1.0, KINDS[name].bound, KINDS[name].unit, "budget")
    comparison = Comparison(limit, 2.0, low=1.0, high=3.0)
    assert_publishable(judged(BASE, Verdict(Outcome.FAILED, comparisons=(comparison,)), None))


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
def test_a_measured_value_that_json_can_not_hold_is_told_as_text(measured: float) -> None:
    limit = Limit("sqnr_db", 1.0, "min", "dB", "default")
    record = judged(BASE, Verdict(Outcome.FAILED, comparisons=(Comparison(limit, measured),)), None)
    assert record["limits"][0]["measured"] == str(measured)
    assert_publishable(record)


def test_an_artifact_is_told_by_name_and_hash_and_where_it_is_from() -> None:
    made = judged(BASE, Verdict(Outcome.PASSED), built(True))
    assert made["artifact"] == {
        "file": "m.onnx",
        "sha256": "a" * 64,
        "size_bytes": 12,
        "origin": "built",
    }
    assert made["timings"] == {"build_s": 0.5, "cached": True}
    given_file = judged(BASE, Verdict(Outcome.PASSED), built(None))
    assert given_file["artifact"]["origin"] == "given"
    assert given_file["timings"]["cached"] is None


# -- plain


@law
@given(anything)
def test_anything_measured_becomes_data_that_strict_json_holds(
    value: dict[Any, Any] | Sequence[Any] | None,
) -> None:
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == plain(value)
    assert plain(plain(value)) == plain(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(2.5), 2.5),
        (np.float64("nan"), "nan"),
        (np.float32("-inf"), "-inf"),
        (0.0, 0.0),
        (False, False),
        (None, None),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({1: {"a": np.int8(1)}}, {"1": {"a": 1}}),
    ],
)
def test_values_keep_their_meaning_as_plain_data(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


# -- the run


def test_the_header_of_a_run_has_the_published_shape(tmp_path: Path) -> None:
    header = run_header("id", "2025-01-01T00:00:00+00:00", {"targets": "ort"}, tmp_path)
    schema = {**REPORT["properties"]["run"], "$defs": REPORT["$defs"]}
    ended = {"finished": "2025-01-01T00:00:01+00:00", "exit_status": 0}
    jsonschema.validate({**header, **ended}, schema)
    assert header["git"] is None
    assert json.loads(json.dumps(header, allow_nan=False)) == header


def test_tools_and_machine_are_told() -> None:
    assert {"edgecheck", "pytest", "numpy"} <= set(tool_versions())
    assert all(isinstance(version, str) and version for version in tool_versions().values())
    assert host()["cores"] >= 1


def git(directory: Path, *arguments: str) -> None:
    identity_options = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(
        ["git", *identity_options, *arguments], cwd=directory, check=True, capture_output=True
    )


def test_a_commit_is_told_with_its_branch_and_whether_the_tree_has_changes(tmp_path: Path) -> None:
    git(tmp_path, "init", "-b", "trunk")
    assert git_commit(tmp_path) is None  # nothing is committed yet
    (tmp_path / "f").write_text("1")
    git(tmp_path, "add", "f")
    git(tmp_path, "commit", "-m", "one")
    found = git_commit(tmp_path)
    assert found is not None
    assert len(found["commit"]) == 40
    assert (found["branch"], found["dirty"]) == ("trunk", False)
    (tmp_path / "untracked").write_text("1")
    assert git_commit(tmp_path) == found
    (tmp_path / "f").write_text("2")
    assert git_commit(tmp_path) == {**found, "dirty": True}


def test_without_git_no_commit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "--edge-history=postgresql://ana:s3:cret@host/db",
            "--edge-history=postgresql://ana:***@host/db",
        ),
        (
            "postgresql://host/db?user=a&password=s3cret&x=1",
            "postgresql://host/db?user=a&password=***&x=1",
        ),
        ("postgresql://ana@host/db", "postgresql://ana@host/db"),
        ("suites/a:b@c", "suites/a:b@c"),
    ],
)
def test_reports_do_not_show_passwords(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_a_run_s_header_has_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "postgresql://ana:s3cret@host/db"
    monkeypatch.setattr("sys.argv", ["pytest", "--edge-history", url])
    header = run_header("id", "now", {"history": url}, tmp_path)
    assert "s3cret" not in str(header)
