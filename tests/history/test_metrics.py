"""The table of followed metrics, and the effects that a user states."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecheck.errors import SelectionError
from edgecheck.history.metrics import HIGHER, LOWER, METRICS, with_effects

shares = st.sampled_from(sorted(name for name, item in METRICS.items() if not item.absolute))


def test_without_effects_the_table_is_as_it_stands() -> None:
    assert with_effects("") == METRICS


def test_stated_effects_replace_those_of_their_metrics_only() -> None:
    table = with_effects(" latency_p50_ms = 3% , sqnr_db=1,size_bytes=0%")
    assert table["latency_p50_ms"].effect == pytest.approx(0.03)
    assert table["sqnr_db"].effect == 1.0
    assert table["size_bytes"].effect == 0.0
    changed = {name for name in METRICS if table[name] != METRICS[name]}
    assert changed == {"latency_p50_ms", "sqnr_db", "size_bytes"}
    assert METRICS["sqnr_db"].effect == 3.0  # the table itself is no different


@given(shares, st.floats(0, 1e6))
def test_a_percentage_is_a_share(name: str, percent: float) -> None:
    assert with_effects(f"{name}={percent}%")[name].effect == pytest.approx(percent / 100)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency_p50=3%", "unknown metric of --edge-effects 'latency_p50'; did you mean 'latency"),
        ("latency_p50_ms=3", "latency_p50_ms=3: its effect is a percentage, as in 5%"),
        ("latency_p50_ms", "latency_p50_ms=: its effect is a percentage"),
        ("latency_p50_ms=-3%", "its effect is a percentage"),
        ("latency_p50_ms=%", "its effect is a percentage"),
        ("latency_p50_ms=inf%", "its effect is a percentage"),
        ("latency_p50_ms=nan%", "its effect is a percentage"),
        ("sqnr_db=3%", "sqnr_db=3%: its effect is a number, as in 1.5"),
        ("sqnr_db=1,sqnr_db=much", "sqnr_db=much: its effect is a number"),
        ("=3%", "unknown metric of --edge-effects ''"),
    ],
)
def test_effects_that_mean_nothing_are_errors(text: str, says: str) -> None:
    with pytest.raises(SelectionError) as caught:
        with_effects(text)
    assert says in str(caught.value)


def test_every_metric_says_which_way_is_better_or_leaves_it_to_the_record() -> None:
    assert {item.better for item in METRICS.values()} == {LOWER, HIGHER, ""}
    assert [name for name, item in METRICS.items() if not item.better] == ["accuracy"]


def test_what_a_machine_decides_is_time_and_memory_and_nothing_else() -> None:
    measured = {name for name, item in METRICS.items() if item.of_device}
    assert measured == {
        name
        for name in METRICS
        if name.endswith(("_ms", "_per_s")) or name.split("_")[0] in ("peak", "load", "steady")
    }
