"""The latency check's judgement: intervals held against limits, attempts, and pairs of candidates.

On synthetic samples: a stopwatch that reads from a script. Real ones: tests/test_latency_gate.py.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.checks.latency import COLD_STARTS, PAIR_ROUNDS, Timing, confirmed, duel, judge, run
from edgecheck.declare.budget import KINDS, Budget, Limit
from edgecheck.declare.case import Case
from edgecheck.declare.model import Input, Model
from edgecheck.devices.local import Loadable
from edgecheck.errors import ArtifactError, ChildError
from edgecheck.judge.latency_statistics import Samples
from edgecheck.judge.verdict import Comparison, Outcome, Verdict
from edgecheck.targets.base import Target
from edgecheck.targets.registry import find_target

law = settings(deadline=None, derandomize=True, max_examples=50)
times = st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=60)

STEADY = ["latency_mean", "latency_p50", "latency_p95", "latency_p99", "latency_max"]
COLD = ["load_time", "first_inference"]


def stated(**limits: Any) -> dict[str, Limit]:
    return Budget(**limits).select(frozenset(), "budget")


def samples(wall_ms: Any, cpu_ms: Any = None) -> Samples:
    """Samples; with CPU times, of a thread that does the work itself."""
    wall = np.array(wall_ms, np.float64)
    own = cpu_ms is not None
    return Samples(wall, np.array(cpu_ms, np.float64) if own else wall * 0.0, own)


def cold(*load_ms: float, factor: float = 2.0, cpu: float = 0.0) -> list[dict[str, Any]]:
    """Cold starts, with a first inference of so many times as long as loading."""
    return [
        {"load_ns": ms * 1e6, "first_ns": ms * factor * 1e6, "first_cpu_ns": ms * cpu * 1e6}
        for ms in load_ms
    ]


def judged(
    found: Samples, *, starts: Any = None, batch: int = 1, final: bool = True, **limits: Any
) -> dict[str, str]:
    """Outcomes by limit."""
    comparisons = judge(
        found, starts or cold(*[1.0] * COLD_STARTS), stated(**limits), batch=batch, final=final
    )
    return {item.limit.name: str(item.outcome) for item in comparisons}


# -- one candidate


def test_every_limit_that_this_check_makes_is_a_limit_of_the_budget() -> None:
    names = {name for name, kind in KINDS.items() if kind.unit in ("ms", "/s")}
    assert names == {*STEADY, *COLD, "throughput"}


@pytest.mark.parametrize("name", STEADY)
@pytest.mark.parametrize(("text", "outcome"), [("5 ms", "passed"), ("4.999 ms", "failed")])
def test_every_steady_limit_is_held_and_exactly_at_the_limit_passes(
    name: str, text: str, outcome: str
) -> None:
    limits: dict[str, Any] = {name: text}
    assert judged(samples([5.0] * 100), **limits) == {name: outcome}


@pytest.mark.parametrize(("text", "outcome"), [("5 ms", "passed"), ("4.999 ms", "failed")])
def test_both_cold_limits_are_held(text: str, outcome: str) -> None:
    steady = samples([1.0] * 10)
    assert judged(steady, starts=cold(*[5.0] * 6), load_time=text) == {"load_time": outcome}
    starts = cold(*[2.5] * 6, factor=2)
    assert judged(steady, starts=starts, first_inference=text) == {"first_inference": outcome}


@law
@given(times, times, st.integers(1, 64), st.booleans())
def test_what_is_measured_lies_in_its_interval(
    wall: list[float], loads: list[float], batch: int, final: bool
) -> None:
    budget = dict.fromkeys((*STEADY, *COLD), "1 ms")
    limits = stated(**budget, throughput="1 /s")
    found = judge(
        samples(wall, [item * 1.01 for item in wall]),
        cold(*loads, cpu=2.02),
        limits,
        batch=batch,
        final=final,
    )
    assert {item.limit.name for item in found} == set(limits)
    for item in found:
        assert item.low is not None and item.high is not None
        assert item.low <= item.measured <= item.high
        if item.limit.name in ("latency_p50", "latency_p95", "latency_p99") and final:
            assert item.high <= max(wall)


@law
@given(times, st.floats(1e-3, 1e4), st.floats(1e-3, 1e4))
def test_a_looser_limit_is_never_judged_worse(wall: list[float], one: float, other: float) -> None:
    order = ["failed", "inconclusive", "passed"]
    strict, loose = sorted([one, other])
    found = [
        judged(samples(wall), latency_p50=f"{limit:.9f} ms", latency_mean=f"{limit:.9f} ms")
        for limit in (strict, loose)
    ]
    for name in found[0]:
        assert order.index(found[0][name]) <= order.index(found[1][name])


@law
@given(times, st.integers(1, 64))
def test_throughput_counts_every_sample_of_a_batch(wall: list[float], batch: int) -> None:
    (found,) = judge(samples(wall), cold(1.0), stated(throughput="1 /s"), batch=batch, final=True)
    assert found.measured == pytest.approx(batch * 1e3 / statistics.fmean(wall))


def test_a_throughput_limit_is_a_lower_bound() -> None:
    found = samples([10.0] * 50)
    assert judged(found, throughput="100 /s") == {"throughput": "passed"}
    assert judged(found, throughput="101 /s") == {"throughput": "failed"}
    assert judged(found, throughput="101 /s", batch=2) == {"throughput": "passed"}


def test_a_limit_within_the_interval_is_inconclusive() -> None:
    spread = samples(np.linspace(4, 6, 101))
    for name, value in (("latency_p50", "5 ms"), ("latency_mean", "5 ms"), ("throughput", "200/s")):
        limits: dict[str, Any] = {name: value}
        assert judged(spread, **limits) == {name: "inconclusive"}
    starts = cold(*np.linspace(4, 6, 6), factor=1)
    assert judged(spread, starts=starts, load_time="5 ms", first_inference="5 ms") == {
        "load_time": "inconclusive",
        "first_inference": "inconclusive",
    }


def test_one_outlier_breaks_the_maximum_but_not_the_median() -> None:
    found = samples([1.0] * 199 + [500.0])
    limits: dict[str, Any] = {"latency_p50": "2 ms", "latency_p95": "2 ms", "latency_max": "2 ms"}
    assert judged(found, final=False, **limits) == {
        "latency_p50": "passed",
        "latency_p95": "passed",
        "latency_max": "failed",
    }


def test_a_quantile_that_too_few_samples_bound_waits_for_more_and_then_takes_the_largest() -> None:
    found = samples([1.0] * 100)
    assert judged(found, final=False, latency_p99="2 ms") == {"latency_p99": "inconclusive"}
    assert judged(found, final=True, latency_p99="2 ms") == {"latency_p99": "passed"}
    worse = samples([1.0] * 99 + [3.0])
    assert judged(worse, final=True, latency_p99="2 ms") == {"latency_p99": "inconclusive"}


def test_other_work_on_the_machine_makes_no_failure_of_what_is_fast_enough() -> None:
    wall, cpu = [2.0, *[9.0] * 99], [2.0] * 100
    limits: dict[str, Any] = dict.fromkeys(STEADY, "3 ms")
    assert set(judged(samples(wall, cpu), **limits).values()) == {"inconclusive"}
    assert judged(samples(wall, cpu), throughput="333 /s") == {"throughput": "inconclusive"}
    # Where the calling thread's time says nothing, the wall's counts.
    assert set(judged(samples(wall), **limits).values()) == {"failed"}
    # What is too slow even undisturbed fails.
    limits = dict.fromkeys(STEADY, "1 ms")
    assert set(judged(samples(wall, cpu), **limits).values()) == {"failed"}


def test_one_of_six_cold_starts_that_nothing_disturbed_makes_no_failure() -> None:
    starts = cold(2.0, *[9.0] * 5, factor=1)
    found = judged(samples([1.0]), starts=starts, first_inference="3 ms", load_time="1 ms")
    assert found == {"first_inference": "inconclusive", "load_time": "failed"}


def test_limits_of_other_checks_are_left_alone() -> None:
    assert judged(samples([1.0]), size="1 B", accuracy_drop=0.0, latency_vs_fp32=1.0) == {}


def test_a_clock_too_coarse_for_the_model_does_not_divide_by_zero() -> None:
    limits: dict[str, Any] = {"latency_p95": "1 ms", "throughput": "1 /s"}
    assert set(judged(samples([0.0] * 100), **limits).values()) == {"passed"}


# -- attempts

_LIMIT = Limit("latency_p50", 5.0, "max", "ms", "budget")
_FOUND = {
    Outcome.PASSED: Comparison(_LIMIT, 4.0, low=3.0, high=5.0),
    Outcome.FAILED: Comparison(_LIMIT, 7.0, low=6.0, high=8.0),
    Outcome.INCONCLUSIVE: Comparison(_LIMIT, 5.0, low=4.0, high=6.0),
}


@pytest.mark.parametrize(
    "sequence", list(itertools.product(_FOUND, repeat=3)), ids=lambda s: "-".join(s)
)
def test_a_pass_stands_and_a_failure_must_be_found_twice(sequence: tuple[Outcome, ...]) -> None:
    made: list[Outcome] = []

    def attempt() -> Timing:
        made.append(sequence[len(made)])
        return Timing((_FOUND[made[-1]],), {"number": len(made)})

    found = confirmed(attempt)
    (comparison,) = found.comparisons
    tried = found.measurements["attempts"]
    assert tried == [str(outcome) for outcome in made]
    assert tried[found.measurements["number"] - 1] == comparison.outcome
    failures = list(itertools.accumulate(int(item is Outcome.FAILED) for item in sequence))
    passed = sequence.index(Outcome.PASSED) if Outcome.PASSED in sequence else 3
    twice = failures.index(2) if 2 in failures else 3
    if passed < twice:
        assert (comparison.outcome, len(made)) == (Outcome.PASSED, passed + 1)
    elif twice < passed:
        assert (comparison.outcome, len(made)) == (Outcome.FAILED, twice + 1)
    else:
        assert (comparison.outcome, len(made)) == (Outcome.INCONCLUSIVE, 3)


def test_an_attempt_without_limits_is_made_once() -> None:
    made = confirmed(lambda: Timing((), {"p50": 1.0}))
    assert made.measurements == {"p50": 1.0, "attempts": ["passed"]}


def test_an_attempt_fails_where_any_limit_is_broken() -> None:
    both = (_FOUND[Outcome.PASSED], _FOUND[Outcome.FAILED], _FOUND[Outcome.INCONCLUSIVE])
    assert confirmed(lambda: Timing(both, {})).measurements["attempts"] == ["failed", "failed"]


# -- a scripted stopwatch

# Milliseconds of the samples of a round, by its number.
Speed = Callable[[int], Any]


def constant(ms: float) -> Speed:
    return lambda place: ms


class Script:
    """A workbench and its stopwatches, where candidates take as long as it is written.

    Args:
        batch: what the files are fixed to.
        speeds: by file: ``new`` the candidate, ``batch4`` the same at another batch, ``float`` its
            fp32 sibling, ``old`` the last release.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        timing_limit_s: float = 10.0,
        batch: int | None = 1,
        steady: bool = True,
        **speeds: Speed,
    ) -> None:
        self.asked: list[list[str]] = []
        self.processes = 0
        self.settings = SimpleNamespace(threads=threads, timing_limit_s=timing_limit_s)
        self.device = self
        self._batch, self._steady, self._speeds = batch, steady, speeds
        self._loaded = False

    def round(self, *candidates: Loadable, duration_s: float, blocks: int = 1) -> Any:
        """See `edgecheck.runtime.timing.time_round`."""
        names = [item.path.name for item in candidates]
        self.asked.append(names)
        found = [self.side(name, blocks) for name in names]
        self._loaded = True
        return {
            "candidates": found,
            "contention": {"run_ns": 9, "wait_ns": 1, "involuntary_switches": 2},
            "cpus": [0, 1],
            "frequency_mhz": None,
        }

    def side(self, name: str, blocks: int) -> dict[str, Any]:
        """One candidate's part; the first load of a process takes ten times as long."""
        ms = np.resize(self._speeds[name](len(self.asked) - 1), 30)
        ns = np.rint(ms * 1e6).astype(int).tolist()
        first = 1 if self._loaded else 10
        return {
            "load_ns": 20_000_000 * first,
            "first_ns": 3_000_000 * first,
            "first_cpu_ns": 1,
            "warmup_runs": 5,
            "steady": self._steady,
            "calls_per_sample": 1,
            "blocks": [{"wall_ns": ns, "cpu_ns": ns} for _ in range(blocks)],
        }

    @contextlib.contextmanager
    def stopwatch(self, target: Target) -> Iterator[Script]:
        self.processes += 1
        self._loaded = False
        yield self

    def loadable(self, case: Case, batch: int = 1) -> Loadable:
        if batch > 1:
            return file(f"batch{batch}")
        return file("float" if case.precision == "fp32" else "new")

    def binding(self, case: Case) -> Any:
        return SimpleNamespace(batch=self._batch)

    def baseline(self, case: Case) -> Loadable | None:
        return file("old") if "old" in self._speeds else None

    def session(self, case: Case) -> Any:
        raise ChildError("no profile", kind="crashed")

    def single_feed(self, case: Case) -> dict[str, str]:
        return {}


def file(name: str) -> Loadable:
    return Loadable(Path(name), {}, {})


def dueled(script: Script, limit: float = 1.0, limit_s: float = 10.0) -> Timing:
    held = Limit("latency_vs_baseline", limit, "max", "x", "budget")
    return duel(script, file("new"), file("old"), held, 1, limit_s)  # type: ignore[arg-type]


# -- two candidates


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.015, 1.3])
def test_the_ratio_is_that_of_the_candidate_to_the_other(ratio: float) -> None:
    script = Script(new=constant(2 * ratio), old=constant(2))
    found = dueled(script)
    assert found.measurements["ratio"] == pytest.approx(ratio)
    assert found.measurements["ratio_interval"] == pytest.approx([ratio, ratio])
    assert found.measurements["latency_p50_ms"] == pytest.approx(2 * ratio)
    assert found.measurements["rival_latency_p50_ms"] == pytest.approx(2)
    (comparison,) = found.comparisons
    assert comparison.outcome == ("failed" if ratio > 1.02 else "passed")
    assert len(script.asked) == PAIR_ROUNDS


def test_each_goes_first_in_every_other_round() -> None:
    script = Script(new=constant(1), old=constant(1))
    dueled(script)
    assert script.asked == [["new", "old"], ["old", "new"]] * (PAIR_ROUNDS // 2)


def test_what_goes_first_being_slower_does_not_count() -> None:
    """Half of the rounds say 10 % more, half 10 % less: no verdict but a pass or none."""
    script = Script(
        new=lambda place: 1.1 if place % 2 == 0 else 1.0,
        old=lambda place: 1.0 if place % 2 == 0 else 1.1,
    )
    found = dueled(script, limit_s=0.0)
    assert found.measurements["ratio"] == pytest.approx(1.0)
    assert found.comparisons[0].outcome is not Outcome.FAILED


def test_rounds_are_added_until_it_is_clear() -> None:
    """Four of the first rounds are slow; then there is nothing more to it."""
    script = Script(new=lambda place: 1.4 if place < 4 else 1.0, old=constant(1))
    found = dueled(script, limit=1.0)
    assert found.comparisons[0].outcome is Outcome.PASSED
    assert len(script.asked) == found.measurements["rounds"] > PAIR_ROUNDS


def test_when_time_is_up_what_is_unclear_stays_so() -> None:
    script = Script(new=lambda place: 0.8 if place % 3 == 0 else 1.4, old=constant(1))
    found = dueled(script, limit=1.1, limit_s=0.0)
    assert found.comparisons[0].outcome is Outcome.INCONCLUSIVE
    assert len(script.asked) == PAIR_ROUNDS


def test_when_time_is_up_an_excluded_5_percent_is_enough() -> None:
    """Rounds of 0.96 and 1.04 leave 2 % open, and not 5."""
    script = Script(new=lambda place: 0.96 if place % 3 else 1.04, old=constant(1))
    found = dueled(script, limit_s=0.0)
    (comparison,) = found.comparisons
    assert comparison.high is not None and 1.02 < comparison.high < 1.05
    assert (comparison.outcome, comparison.resolution) == (Outcome.PASSED, 0.05)


def test_a_slowdown_within_the_limit_passes() -> None:
    script = Script(new=constant(1.04), old=constant(1))
    assert dueled(script, limit=1.05).comparisons[0].outcome is Outcome.PASSED
    assert dueled(script, limit=1.0).comparisons[0].outcome is Outcome.FAILED


# -- the whole check


def checked(script: Script, precision: str = "int8", **limits: Any) -> Verdict:
    """The check's verdict on a case with these limits."""
    model = Model(
        "m.onnx", inputs=[Input("x", ("batch", 4))], outputs=["y"], dims={"batch": (1, 8)}
    )
    case = Case("digits", "", find_target("ort"), precision, model, Budget(**limits))
    return run(script, case)  # type: ignore[arg-type]


def test_without_limits_it_measures_once_and_passes() -> None:
    script = Script(new=constant(5))
    verdict = checked(script)
    assert (verdict.outcome, verdict.comparisons) == (Outcome.PASSED, ())
    found = verdict.measurements
    assert found["latency_p50_ms"] == found["latency_max_ms"] == pytest.approx(5.0)
    assert found["latency_p50_interval_ms"] == pytest.approx([5.0, 5.0])
    assert found["samples_ns"] == found["cpu_samples_ns"] == [5_000_000] * 30 * found["rounds"]
    assert (found["threads"], found["cpus"], found["wait_share"]) == (1, [0, 1], 0.1)
    assert found["involuntary_switches"] == 2 * found["rounds"]
    assert found["steal_ticks"] is None
    assert found["warmup_runs"] == 5 * found["rounds"]
    assert found["attempts"] == ["passed"]
    assert script.processes == 1


@law
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30))
def test_statistics_are_those_of_all_samples(us: list[int]) -> None:
    script = Script(new=lambda place: [item / 1e3 for item in us], timing_limit_s=1e-9)
    found = checked(script).measurements
    ms = [item / 1e6 for item in found["samples_ns"]]
    assert set(ms) == {item / 1e3 for item in us}
    assert found["latency_mean_ms"] == pytest.approx(statistics.fmean(ms))
    assert found["latency_p50_ms"] == pytest.approx(statistics.median(ms))
    assert found["latency_std_ms"] == pytest.approx(statistics.stdev(ms), rel=1e-6, abs=1e-9)
    assert found["latency_min_ms"] == pytest.approx(min(ms))
    assert found["latency_max_ms"] == pytest.approx(max(ms))
    assert found["throughput_per_s"] == pytest.approx(1e3 / found["latency_mean_ms"])


def test_a_failure_is_found_in_two_processes_and_told_with_where_the_time_goes() -> None:
    script = Script(new=constant(5))
    verdict = checked(script, latency_p50="1 ms")
    assert verdict.outcome is Outcome.FAILED
    assert verdict.reason == "latency_p50 5 ms is not <= 1 ms (budget)"
    assert verdict.measurements["attempts"] == ["failed", "failed"]
    assert "attempts: failed, failed" in verdict.details
    assert "where the time goes: not known: no profile" in verdict.details
    assert verdict.measurements["profile"]["note"] == "no profile"
    assert script.processes == 2


def test_what_stays_unclear_is_tried_in_three_processes() -> None:
    script = Script(new=lambda place: [2.0, 9.0], timing_limit_s=0.05)
    verdict = checked(script, latency_p50="5 ms")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.measurements["attempts"] == ["inconclusive"] * 3
    assert verdict.reason == (
        "latency_p50 5.5 ms can't be told from <= 5 ms (budget): it is somewhere in 2 ms .. 9 ms"
    )
    assert "profile" not in verdict.measurements
    assert script.processes == 3


def test_rounds_are_added_while_a_limit_is_open() -> None:
    """A p99 is bounded from above by 368 samples, which are 13 rounds of 30."""
    script = Script(new=constant(5))
    verdict = checked(script, latency_p99="9 ms")
    assert verdict.outcome is Outcome.PASSED
    assert verdict.measurements["rounds"] == len(script.asked) == 13


@pytest.mark.parametrize("name", COLD)
def test_cold_starts_are_timed_in_processes_of_their_own(name: str) -> None:
    """The first load of each process counts: later ones find everything warm."""
    script = Script(new=constant(5))
    verdict = checked(script, **{name: "1 s"})
    assert verdict.outcome is Outcome.PASSED
    assert script.processes == verdict.measurements["cold_starts"] == COLD_STARTS
    assert verdict.measurements["load_time_ms"] == pytest.approx(200)
    assert verdict.measurements["first_inference_ms"] == pytest.approx(30)


def test_without_limits_on_cold_starts_there_is_one() -> None:
    found = checked(Script(new=constant(5))).measurements
    assert found["cold_starts"] == 1
    assert found["load_time_ms"] == pytest.approx(200)
    assert found["first_inference_ms"] == pytest.approx(30)
    assert found["rounds"] >= 3


def test_a_limit_on_cold_starts_that_stays_unclear_does_not_prolong_the_steady_runs() -> None:
    class Unsure(Script):
        def side(self, name: str, blocks: int) -> dict[str, Any]:
            load_ns = 100_000_000 * (1 + self.processes % 2)
            return {**super().side(name, blocks), "load_ns": load_ns}

    script = Unsure(new=constant(5), timing_limit_s=1000)
    verdict = checked(script, load_time="150 ms")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert script.processes == 3 * COLD_STARTS
    assert len(script.asked) <= 3 * (COLD_STARTS + 3)


def test_batches_that_the_file_takes_are_swept() -> None:
    found = checked(Script(new=constant(5), batch4=constant(10), batch=None)).measurements
    # Batch 16 is more than this model takes.
    assert found["batches"] == [
        {"batch": 4, "latency_p50_ms": pytest.approx(10), "throughput_per_s": pytest.approx(400)}
    ]
    assert checked(Script(new=constant(5))).measurements["batches"] == []


def test_a_batch_that_would_take_too_long_is_not_swept() -> None:
    script = Script(new=constant(500), batch4=constant(2000), batch=None, timing_limit_s=5)
    assert checked(script).measurements["batches"] == []


def test_a_batch_that_crashes_is_told_and_fails_nothing() -> None:
    def crash(place: int) -> float:
        raise ChildError("time_round: the process crashed with SIGKILL", kind="crashed")

    verdict = checked(Script(new=constant(5), batch4=crash, batch=None))
    assert verdict.outcome is Outcome.PASSED
    assert verdict.measurements["batches"] == [
        {"batch": 4, "error": "time_round: the process crashed with SIGKILL"}
    ]


def test_a_model_that_is_still_warming_up_is_a_warning() -> None:
    verdict = checked(Script(new=constant(5), steady=False))
    assert verdict.outcome is Outcome.PASSED
    assert "still fell after a second of warm-up" in verdict.warnings[0]


@pytest.mark.parametrize(("ratio", "outcome"), [(1.0, "passed"), (1.5, "failed")])
def test_a_quantized_file_is_held_against_fp32(ratio: float, outcome: str) -> None:
    script = Script(new=constant(2 * ratio), float=constant(2))
    verdict = checked(script, latency_vs_fp32=1.0)
    assert verdict.outcome == outcome
    assert verdict.measurements["latency_vs_fp32"]["ratio"] == pytest.approx(ratio)
    if outcome == "failed":
        assert verdict.reason == "latency_vs_fp32 1.5 x is not <= 1 x (budget)"
        assert verdict.measurements["latency_vs_fp32"]["attempts"] == ["failed", "failed"]
        assert "where the time goes" in verdict.details


def test_fp32_is_not_held_against_itself() -> None:
    verdict = checked(Script(float=constant(5)), "fp32", latency_vs_fp32=0.5)
    assert (verdict.outcome, verdict.comparisons, verdict.warnings) == (Outcome.PASSED, (), ())


@pytest.mark.parametrize(("ratio", "outcome"), [(1.04, "passed"), (1.1, "failed")])
def test_a_file_is_held_against_the_last_release(ratio: float, outcome: str) -> None:
    script = Script(new=constant(2 * ratio), old=constant(2))
    verdict = checked(script, latency_vs_baseline=1.05)
    assert verdict.outcome == outcome
    assert verdict.measurements["latency_vs_baseline"]["ratio"] == pytest.approx(ratio)


def test_a_missing_baseline_is_a_warning() -> None:
    verdict = checked(Script(new=constant(5)), latency_vs_baseline=1.05)
    assert verdict.outcome is Outcome.PASSED
    assert verdict.warnings == (
        "latency_vs_baseline is not judged: Model.baselines has no file for ('ort', 'int8')",
    )


def test_every_broken_limit_is_told() -> None:
    script = Script(new=constant(5), old=constant(1))
    limits: dict[str, Any] = {
        "latency_p50": "1 ms",
        "throughput": "1 /s",
        "latency_vs_baseline": 1.0,
    }
    verdict = checked(script, **limits)
    assert [item.limit.name for item in verdict.comparisons] == list(limits)
    assert len(verdict.failures) == 2


def test_rivals_of_another_batch_are_refused() -> None:
    """A file that takes four samples at once is not held against one that takes one."""

    class Mixed(Script):
        def binding(self, case: Case) -> Any:
            return SimpleNamespace(batch=4 if case.precision == "fp32" else 1)

    with pytest.raises(ArtifactError, match="can't be compared"):
        checked(Mixed(new=constant(1), float=constant(3)), latency_vs_fp32=1.0)


def test_a_model_too_fast_for_the_clock_has_no_statistic_that_is_no_number() -> None:
    found = checked(Script(new=constant(0.0), timing_limit_s=1e-9)).measurements
    assert found["latency_p50_ms"] == 0.0
    assert math.isinf(found["throughput_per_s"])
