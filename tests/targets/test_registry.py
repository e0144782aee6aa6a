"""The registry of targets: names, aliases, and what a machine lacks."""

from __future__ import annotations

import dataclasses

import pytest

from edgecheck.errors import SelectionError
from edgecheck.names import PRECISIONS, TARGET_NAMES
from edgecheck.targets import all_targets, find_target


def test_the_names_that_markers_are_registered_for_are_those_of_the_targets() -> None:
    assert tuple(all_targets()) == TARGET_NAMES


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
    assert all(name in str(caught.value) for name in TARGET_NAMES)


def test_precisions_are_known_words() -> None:
    for target in all_targets().values():
        assert set(target.precisions) <= set(PRECISIONS)
        assert set(target.precisions.values()) <= {"torch", "float"}


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    ort = all_targets()["ort"]
    assert ort.missing() == ""
    lacking = dataclasses.replace(ort, packages={"no_such_module": "no-such-package"})
    assert lacking.missing() == "no-such-package not installed: pip install 'edgecheck[ort]'"


def test_a_target_that_is_only_planned_says_so() -> None:
    assert "no TensorRT support" in all_targets()["trt"].missing()
