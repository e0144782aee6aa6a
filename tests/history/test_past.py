"""The past of a run: what it compares with, and that workers get all of it."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.history.compare import Direction
from edgecheck.history.metrics import METRICS, with_effects
from edgecheck.history.past import Past, as_data, from_data
from edgecheck.history.results import CaseResult, Reading, RunInfo, RunResults, results_of
from edgecheck.history.waivers import Waiver
from tests.history.test_merge import record, shard

KEY = "digits/ort/fp32/parity"
INFO = RunInfo("b" * 32, "2026-11-02T10:00:00+00:00")

texts = st.text(max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
days = st.dates()
readings = st.builds(
    Reading,
    st.sampled_from(sorted(METRICS)),
    texts,
    finite,
    st.sampled_from(["lower", "higher"]),
    st.none() | finite,
    st.none() | finite,
    st.none() | finite,
)
cases = st.builds(
    CaseResult,
    texts,
    st.sampled_from(["passed", "failed"]),
    texts,
    texts,
    texts,
    st.dictionaries(texts, st.none() | texts | st.integers() | st.lists(st.integers())),
    st.lists(readings, max_size=3).map(tuple),
)
baselines = st.builds(
    lambda info, found: RunResults(info, {item.key: item for item in found}),
    st.builds(RunInfo, texts, texts, texts, texts, st.booleans(), texts),
    st.lists(cases, max_size=3),
)
pasts = st.builds(
    Past,
    st.none() | baselines,
    st.dictionaries(texts, st.dictionaries(texts, texts)),
    st.just(METRICS),
    st.frozensets(st.sampled_from(["regression", "vanished"])),
    st.lists(st.builds(Waiver, st.integers(1), texts, texts, days, texts)).map(tuple),
    days,
)


@settings(deadline=None)
@given(pasts)
def test_workers_get_all_of_it(past: Past) -> None:
    sent = json.loads(json.dumps(as_data(past)))
    assert from_data(sent, past.metrics, past.fail_on) == past


def test_a_run_out_of_the_history_is_sent_as_well() -> None:
    from edgecheck.history.database import StoredRun

    stored = StoredRun("a" * 32, "2026-11-01T10:00:00+00:00", cases=3, failed=1)
    found = from_data(as_data(Past(RunResults(stored, {}))), METRICS, frozenset()).baseline
    assert found is not None
    assert found.run == RunInfo("a" * 32, "2026-11-01T10:00:00+00:00")


def measured(**numbers: Any) -> dict[str, Any]:
    return record(measurements=numbers)


def test_a_case_is_compared_with_the_baselines() -> None:
    past = Past(results_of(shard("a", measured(size_bytes=1000))))
    found = past.compare(measured(size_bytes=1020))
    assert found is not None
    (change,) = found.changes
    assert (change.direction, change.before, change.after) == (Direction.REGRESSION, 1000, 1020)
    assert past.compare(record(target="tflite")) is None
    assert Past().compare(measured(size_bytes=1)) is None


def test_the_stated_effects_decide() -> None:
    past = Past(
        results_of(shard("a", measured(size_bytes=1000))), metrics=with_effects("size_bytes=5%")
    )
    found = past.compare(measured(size_bytes=1020))
    assert found is not None
    assert found.regressions == ()


def test_a_run_is_compared_as_a_whole() -> None:
    past = Past(results_of(shard("a", measured(size_bytes=1000), record(target="tflite"))))
    found = past.compare_all([measured(size_bytes=900), record(target="trt")], INFO)
    assert found is not None
    assert (found.before.id, found.after) == ("a" * 32, INFO)
    assert [item.metric for item in found.improvements] == ["size_bytes"]
    assert found.vanished == ["digits/tflite/fp32/parity"]
    assert found.new == ["digits/trt/fp32/parity"]
    assert Past().compare_all([record()], INFO) is None


def test_of_cases_with_one_key_the_worst_is_compared() -> None:
    # The last one passed: that must not hide the failure of the first.
    past = Past(results_of(shard("a", record())))
    records = [record("failed", nodeid="s.py::t[1]"), record("passed", nodeid="s.py::t[2]")]
    found = past.compare_all(records, INFO)
    assert found is not None
    assert found.worse_verdicts == [(KEY, "passed", "failed")]


def test_nothing_of_the_past_is_held_by_default() -> None:
    past = Past()
    assert past.today == datetime.date.min
    assert replace(past, fail_on=frozenset({"regression"})).compare(record()) is None
