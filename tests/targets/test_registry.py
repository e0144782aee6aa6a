"""The registry of targets: names, aliases, and what a machine lacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from edgecheck.errors import SelectionError
from edgecheck.names import PRECISIONS
from edgecheck.targets import built_in_names
from edgecheck.targets.base import Host, Options
from edgecheck.targets.registry import all_targets, find_target


def test_the_names_that_markers_are_registered_for_are_those_of_the_targets() -> None:
    assert list(all_targets()) == built_in_names()


def test_every_alias_means_one_target() -> None:
    aliases = [alias for target in all_targets().values() for alias in target.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(all_targets())
    for target in all_targets().values():
        for alias in (target.name, *target.aliases):
            assert find_target(alias) == target


def test_a_name_that_is_none_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(SelectionError, match="did you mean 'tensorrt'") as caught:
        find_target("tensort")
    assert all(name in str(caught.value) for name in built_in_names())


def test_precisions_are_known_words() -> None:
    for target in all_targets().values():
        assert set(target.build.precisions) <= set(PRECISIONS)
        assert set(target.build.precisions.values()) <= {"torch", "float", *all_targets()}


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    ort = all_targets()["ort"]
    assert ort.missing() == ""
    lacking = dataclasses.replace(ort, host=Host(packages={"no_such_module": "no-such-package"}))
    assert lacking.missing() == "no-such-package not installed: pip install 'edgecheck[ort]'"


def test_what_a_machine_cannot_check_may_depend_on_options_and_precision() -> None:
    def gaps(options: Mapping[str, Any]) -> dict[str, str]:
        return {"latency": "slow"} if options["fast"] else {"run": "stuck", "fp16": "no halves"}

    target = dataclasses.replace(
        all_targets()["ort"], options=Options(defaults={"fast": True}), host=Host(gaps=gaps)
    )
    assert target.gap("latency") == "slow"
    assert target.gap("parity", "fp16") == ""
    assert target.gap("parity", "fp32", {"fast": False}) == "stuck"
    assert target.gap("export", "fp16", {"fast": False}) == ""
    halves = dataclasses.replace(target, host=Host(gaps=lambda options: {"fp16": "no halves"}))
    assert halves.gap("run", "fp16") == halves.gap("memory", "fp16") == "no halves"
    assert halves.gap("run", "fp32") == halves.gap("export", "fp16") == ""
