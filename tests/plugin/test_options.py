"""The options' own readers: what they accept, and the one line for what they don't."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.errors import SelectionError
from edgecheck.plugin.options import OPTIONS, Options

law = settings(deadline=None, derandomize=True, max_examples=50)
needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system has no affinity"
)


def test_every_option_has_a_field_with_the_same_default() -> None:
    assert {name: default for name, default, _, _ in OPTIONS} == vars(Options())


def test_nothing_given_is_one_thread_on_all_cores_for_ten_seconds() -> None:
    given = Options()
    assert (given.thread_count(), given.cpu_list(), given.timing_limit_s()) == (1, (), 10.0)
    assert (given.noise, given.lock) == ("fail", "")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", " ", "2,3", "1e3", "\u00b2"])
def test_threads_are_a_positive_whole_number(text: str) -> None:
    with pytest.raises(SelectionError, match=r"--edge-threads .* is not a positive whole number"):
        Options(threads=text).thread_count()


@law
@given(st.integers(1, 1024))
def test_any_number_of_threads_may_be_asked_for(count: int) -> None:
    assert Options(threads=str(count)).thread_count() == count


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "soon", "", "5 s"])
def test_a_time_limit_is_a_positive_number_of_seconds(text: str) -> None:
    for option, name in (("timing_limit", "timing-limit"), ("timeout", "timeout")):
        given = Options(**{option: text})
        with pytest.raises(
            SelectionError, match=rf"--edge-{name} .* is not a positive number of sec"
        ):
            getattr(given, f"{option}_s")()


def test_a_time_limit_may_be_a_fraction() -> None:
    assert Options(timing_limit="0.25").timing_limit_s() == 0.25


@needs_affinity
@law
@given(st.data())
def test_cores_are_listed_and_spanned(data: st.DataObject) -> None:
    own = sorted(os.sched_getaffinity(0))
    chosen = data.draw(st.lists(st.sampled_from(own), min_size=1, max_size=8))
    assert Options(cpus=",".join(map(str, chosen))).cpu_list() == tuple(sorted(set(chosen)))
    if own == list(range(own[0], own[-1] + 1)):
        spans = [(core, data.draw(st.sampled_from(own))) for core in chosen]
        spans = [(min(span), max(span)) for span in spans]
        text = " , ".join(f"{low}-{high}" for low, high in spans)
        expected = {core for low, high in spans for core in range(low, high + 1)}
        assert Options(cpus=text).cpu_list() == tuple(sorted(expected))


@pytest.mark.parametrize("text", ["all", "0-", "-1", "0-1-2", "0:1", "1.0", "0 1", "1-0"])
def test_what_is_no_list_of_cores_is_refused(text: str) -> None:
    with pytest.raises(SelectionError, match="is not a list of cores, as in 0,2-3"):
        Options(cpus=text).cpu_list()


@needs_affinity
@pytest.mark.parametrize("text", ["4096", "0,4096", "0-4096", "0-99999999999999"])
def test_cores_that_there_are_not_are_named_at_once(text: str) -> None:
    with pytest.raises(SelectionError, match=r"--edge-cpus names .*; the cores of this process"):
        Options(cpus=text).cpu_list()


@pytest.mark.parametrize("word", ["grave", "warn", "fail"])
def test_vacuous_takes_three_words(word: str) -> None:
    Options(vacuous=word).check_words()
    with pytest.raises(SelectionError, match="value of --edge-vacuous"):
        Options(vacuous=word + "s").check_words()


@law
@given(st.integers(0, 10**6))
def test_any_number_of_adversarial_inputs_may_be_asked_for(count: int) -> None:
    assert Options(fuzz=str(count)).fuzz_count() == count
    assert Options().fuzz_count() is None


@pytest.mark.parametrize("text", ["-1", "1.5", "many", " "])
def test_adversarial_inputs_are_a_whole_number(text: str) -> None:
    with pytest.raises(SelectionError, match=r"--edge-fuzz .* is not a whole number"):
        Options(fuzz=text).check_words()
