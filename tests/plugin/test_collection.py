"""The order of cases: what it is for one process, and for workers that take a stretch each."""

from __future__ import annotations

import pytest

# Imported before any collection within this process, which forgets what it imports itself.
import edgecheck.plugin.conformance
import edgecheck.plugin.run  # noqa: F401
from edgecheck.plugin.collection import arrange, case_of, check_of
from tests.conftest import Judge

pytest_plugins = ["pytester"]

SUITE = """
import edgecheck

X = edgecheck.Input("x", ("batch", 16), low=0.0, high=1.0)


def source():
    raise AssertionError("it is only collected")


class TestFirst(edgecheck.Conformance):
    model = edgecheck.Model(source, inputs=[X], outputs=["y"])


class TestSecond(edgecheck.Conformance):
    model = edgecheck.Model(source, inputs=[X], outputs=["y"])


def test_of_another_kind():
    pass
"""
ARGUMENTS = (
    "--edge-targets=ort,tflite",
    "--edge-precisions=fp32,fp16",
    "--edge-history=none",
)


@pytest.fixture
def items(pytester: pytest.Pytester) -> list[pytest.Item]:
    """The items as they are collected, with the place-holders of checks without cases."""
    path = pytester.makepyfile(SUITE)
    items, _ = pytester.inline_genitems(path, *ARGUMENTS)
    return items


def places(items: list[pytest.Item]) -> list[str]:
    """Target and model of each item in turn, repetitions left out."""
    found: list[str] = []
    for item in items:
        case = case_of(item)
        place = f"{case.target.name} {case.model_name}" if case else "other"
        if not found or found[-1] != place:
            found.append(place)
    return found


def test_one_process_keeps_models_and_their_files_together(items: list[pytest.Item]) -> None:
    items = arrange(items, crowded=False)
    assert len(items) == 33
    assert places(items) == ["ort first", "tflite first", "ort second", "tflite second", "other"]
    checks = [check_of(item) for item in items[:8]]
    assert checks == ["export", "parity", "latency", "memory"] * 2


def test_workers_get_targets_apart_and_every_other_one_backwards(items: list[pytest.Item]) -> None:
    arranged = arrange(items, crowded=True)
    assert {*arranged} == {*arrange(items, crowded=False)}
    working = [item for item in arranged if check_of(item) != "latency"]
    assert places(working) == ["other", "ort first", "ort second", "tflite second", "tflite first"]


def test_for_workers_timing_comes_last(items: list[pytest.Item]) -> None:
    timed = [check_of(item) == "latency" for item in arrange(items, crowded=True)]
    assert timed == sorted(timed)
    assert sum(timed) == 8


@pytest.mark.long
def test_workers_take_stretches_unless_another_way_is_asked_for(judge: Judge) -> None:
    suite = "class TestTiny(Conformance):\n    model = file_model()\n"
    only = ("--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=export")
    options = (*only, "-n", "2", "-v")
    assert "WorkStealingScheduling" in judge(suite, *options).output
    assert "LoadFileScheduling" in judge(suite, *options, "--dist=loadfile").output
