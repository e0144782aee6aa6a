"""The matrix: which cases a model has under a selection, their ids, and what is told absent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.declare import metrics
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case, Matrix, Selection, expand, shipped_precisions
from edgecheck.declare.device_classes import DEVICE_CLASSES, find_device_class
from edgecheck.declare.model import Artifact, Evaluation, Input, Model, artifact_key
from edgecheck.errors import EdgecheckError, SelectionError
from edgecheck.names import CHECKS, PRECISIONS
from edgecheck.targets.base import Build, Files, Runtime, Target
from edgecheck.targets.registry import all_targets, find_target

law = settings(deadline=None, derandomize=True, max_examples=50)

TARGETS = tuple(all_targets().values())
ORT, TFLITE = (all_targets()[name] for name in ("ort", "tflite"))
# A runtime that has two precisions only.
SMALL = Target(
    "small",
    "Small",
    Files(".small"),
    Build({"fp32": "torch", "int8": "float"}, "small:Builder"),
    Runtime("small:Runner"),
)
EVALUATION = Evaluation([1], [1], metric=metrics.top1)


def source() -> None:
    raise AssertionError("expanding must not call the source")


def model(**changes: Any) -> Model:
    return Model(
        **{
            "source": source,
            "inputs": [Input("x", ("batch", 4))],
            "outputs": ["y"],
            "calibration": np.zeros((1, 4), np.float32),
            "evaluation": EVALUATION,
            "qat": source,
            **changes,
        }
    )


def matrix(declared: Model, *targets: Target, **selected: Any) -> Matrix:
    return expand("toy", declared, Budget(), Selection(targets or (ORT,), **selected))


def ids(declared: Model, *targets: Target, **selected: Any) -> list[str]:
    return [case.id for case in matrix(declared, *targets, **selected).cases]


keys = st.tuples(
    st.sampled_from([target.name for target in TARGETS]), st.sampled_from(PRECISIONS)
) | st.sampled_from([target.name for target in TARGETS])
names = st.text("ab-.", min_size=1, max_size=4) | st.sampled_from(["ort", "int8", "fp32", "web"])


def _distinct(declared: dict[Any, Any]) -> bool:
    return len({artifact_key(key) for key in declared}) == len(declared)


@st.composite
def models(draw: st.DrawFn) -> Model:
    artifacts = draw(st.dictionaries(keys, st.just("m.onnx"), max_size=3).filter(_distinct))
    have_source = draw(st.booleans()) or not artifacts
    shipped = st.dictionaries(
        st.sampled_from([target.name for target in (*TARGETS, SMALL)]),
        st.lists(st.sampled_from(PRECISIONS), max_size=4),
    )
    return model(
        source=draw(st.sampled_from([source, "m.onnx", "m.pt2"])) if have_source else None,
        reference="source" if have_source else draw(st.sampled_from(sorted(artifacts, key=str))),
        artifacts=artifacts,
        builders=draw(st.dictionaries(keys, st.just(max), max_size=2).filter(_distinct)),
        variants=draw(st.dictionaries(names, st.just(source), max_size=2)),
        qat=draw(st.sampled_from([None, source, {"ort": source}])),
        calibration=draw(st.sampled_from([None, [1]])),
        evaluation=draw(st.sampled_from([None, EVALUATION])),
        targets=draw(st.none() | shipped),
    )


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    precisions = st.lists(st.sampled_from(PRECISIONS), min_size=1, unique=True).map(tuple)
    targets = st.sampled_from([*TARGETS, SMALL])
    return Selection(
        tuple(draw(st.lists(targets, unique_by=lambda target: target.name, max_size=4))),
        precisions=draw(st.none() | precisions),
        models=tuple(draw(st.lists(st.sampled_from(["*", "toy", "toy:*", "x"]), max_size=2))),
        profile=draw(st.none() | st.sampled_from(list(DEVICE_CLASSES.values()))),
    )


# -- laws of the whole matrix


@law
@given(models(), selections())
def test_ids_and_candidates_never_repeat(declared: Model, selection: Selection) -> None:
    cases = expand("toy", declared, Budget(), selection).cases
    assert len({case.id for case in cases}) == len(cases)
    assert len({case.candidate for case in cases}) == len(cases)


@law
@given(models(), selections())
def test_only_what_was_selected_becomes_a_case(declared: Model, selection: Selection) -> None:
    for case in expand("toy", declared, Budget(), selection).cases:
        assert case.target in selection.targets
        assert selection.precisions is None or case.precision in selection.precisions
        assert case.variant in {"", *declared.variants}
        assert case.profile is selection.profile


@law
@given(models(), selections())
def test_selecting_precisions_by_name_gives_a_subset_of_the_supported_cases(
    declared: Model, selection: Selection
) -> None:
    every = {
        case.id
        for case in expand(
            "toy", declared, Budget(), replace(selection, precisions=None, profile=None)
        ).cases
    }
    named = expand("toy", declared, Budget(), selection).cases
    assert {case.id for case in named if not case.unsupported} <= every


@law
@given(models(), selections())
def test_more_targets_only_add_cases(declared: Model, selection: Selection) -> None:
    fewer = expand("toy", declared, Budget(), replace(selection, targets=selection.targets[:1]))
    more = expand("toy", declared, Budget(), selection)
    assert [case.id for case in fewer.cases] == [case.id for case in more.cases][: len(fewer.cases)]


@law
@given(models(), selections())
def test_expanding_twice_gives_the_same_cases_in_the_same_order(
    declared: Model, selection: Selection
) -> None:
    once, again = (expand("toy", declared, Budget(), selection) for _ in range(2))
    assert once == again


@law
@given(models(), selections())
def test_what_is_no_case_for_lack_of_data_is_told(declared: Model, selection: Selection) -> None:
    """Each shipped precision is a case or an absence, never neither and never both."""
    selection = replace(selection, models=(), profile=None)
    found = expand("toy", declared, Budget(), selection)
    told = {(item.subject, item.what) for item in found.absences}
    made = {(case.candidate.rpartition("/")[0], case.precision) for case in found.cases}
    assert not told & made
    for target in selection.targets:
        for precision in shipped_precisions(declared, target):
            if selection.precisions is None or precision in selection.precisions:
                assert (f"toy/{target.name}", precision) in told | made


# -- ids


def test_an_id_names_variant_target_and_precision() -> None:
    declared = model(variants={"pruned": source})
    assert ids(declared, precisions=("int8",)) == ["ort-int8", "pruned-ort-int8"]
    candidates = [case.candidate for case in matrix(declared, precisions=("int8",)).cases]
    assert candidates == ["toy/ort/int8", "toy:pruned/ort/int8"]


def test_variants_come_in_sorted_order_whatever_order_they_were_declared_in() -> None:
    declared = model(variants={"b": source, "a": source}, targets={"ort": ["fp32"]})
    assert ids(declared) == ["ort-fp32", "a-ort-fp32", "b-ort-fp32"]


# -- what ships


def test_a_model_ships_all_that_a_target_has_unless_it_says_otherwise() -> None:
    assert ids(model()) == [f"ort-{name}" for name in PRECISIONS if name in ORT.build.precisions]
    assert ids(model(), SMALL) == ["small-fp32", "small-int8"]


def test_declared_artifacts_and_builders_are_exactly_what_ships() -> None:
    declared = model(artifacts={("ort", "int8"): "m.onnx"}, builders={"ort": max})
    assert ids(declared, ORT, TFLITE) == ["ort-fp32", "ort-int8"]


def test_declared_targets_win_over_artifacts() -> None:
    declared = model(artifacts={"ort": "m.onnx"}, targets={"ort": ["int8"], "tflite": ["fp32"]})
    assert ids(declared, ORT, TFLITE) == ["ort-int8", "tflite-fp32"]


def test_precisions_come_in_the_order_of_reports() -> None:
    assert ids(model(targets={"ort": ["int8", "fp32"]})) == ["ort-fp32", "ort-int8"]


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": {"ort": ["int-8"]}},
        pytest.param(
            {"artifacts": {("ort", "int-8"): "m.onnx"}},
        ),
        pytest.param(
            {"builders": {("ort", "int-8"): max}},
        ),
    ],
)
def test_a_misspelt_precision_does_not_silently_ship_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(EdgecheckError):
        matrix(model(**changes))


# -- what was asked for by name


def test_a_precision_that_the_runtime_has_not_is_unsupported_where_asked_for() -> None:
    (case,) = matrix(model(), SMALL, precisions=("int4",)).cases
    assert case.id == "small-int4"
    assert "small has no int4; it has fp32, int8" in case.unsupported


def test_a_declared_precision_that_the_runtime_has_not_is_one_unsupported_case() -> None:
    declared = model(targets={"small": ["fp32", "int4"]})
    found = matrix(declared, SMALL, precisions=("fp32", "int4")).cases
    assert [(case.id, bool(case.unsupported)) for case in found] == [
        ("small-fp32", False),
        ("small-int4", True),
    ]


def test_a_precision_that_the_model_does_not_ship_is_no_case() -> None:
    assert ids(model(targets={"ort": ["fp32"]}), precisions=("int8",)) == []


def test_a_profile_leaves_out_what_its_hardware_can_not_run() -> None:
    assert ids(model(), profile=DEVICE_CLASSES["mcu"]) == ["ort-int8", "ort-int8-qat"]


def test_a_precision_asked_for_by_name_against_the_profile_is_unsupported() -> None:
    (case,) = matrix(model(), profile=DEVICE_CLASSES["mcu"], precisions=("fp32",)).cases
    assert "a mcu device runs int8, int8-qat only, not fp32" in case.unsupported


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ((), ["", "pruned"]),
        (("toy",), [""]),
        (("toy*",), ["", "pruned"]),
        (("toy:*",), ["pruned"]),
        (("*:pruned",), ["pruned"]),
        (("other", "t?y"), [""]),
        (("TOY",), []),
        (("other",), []),
    ],
)
def test_globs_select_models_and_variants_by_their_whole_name(
    globs: tuple[str, ...], expected: list[str]
) -> None:
    declared = model(variants={"pruned": source}, targets={"ort": ["fp32"]})
    assert [case.variant for case in matrix(declared, models=globs).cases] == expected


# -- what lacks data


@pytest.mark.parametrize(
    ("changes", "precision", "reason"),
    [
        ({"calibration": None}, "int8", "pass calibration="),
        ({"qat": None}, "int8-qat", "pass qat="),
        ({"qat": {"tflite": source}}, "int8-qat", "pass qat="),
    ],
)
def test_a_precision_that_lacks_data_is_absent_with_what_would_bring_it(
    changes: dict[str, Any], precision: str, reason: str
) -> None:
    found = matrix(model(**changes))
    assert precision not in [case.precision for case in found.cases]
    (absence,) = [item for item in found.absences if item.what == precision]
    assert absence.subject == "toy/ort"
    assert reason in absence.reason


def test_an_empty_array_of_calibration_data_is_data() -> None:
    assert "ort-int8" in ids(model(calibration=np.zeros((0, 4), np.float32)))


def test_a_variant_has_no_qat_program() -> None:
    found = matrix(model(variants={"pruned": source}), precisions=("int8-qat",))
    assert [case.id for case in found.cases] == ["ort-int8-qat"]
    assert [item.subject for item in found.absences] == ["toy:pruned/ort"]


def test_a_file_of_the_users_own_needs_no_data() -> None:
    declared = model(calibration=None, qat=None, artifacts={("ort", "int8"): "m.onnx"})
    found = matrix(declared)
    assert [case.id for case in found.cases] == ["ort-int8"]
    assert found.absences == ()


def test_quantized_files_are_made_from_the_users_own_float_file() -> None:
    declared = model(
        source=None,
        reference="ort",
        artifacts={"ort": "m.onnx"},
        targets={"ort": ["fp32", "fp16", "int8"]},
    )
    assert ids(declared) == ["ort-fp32", "ort-fp16", "ort-int8"]


def test_without_source_and_float_file_there_is_no_case() -> None:
    declared = model(
        source=None,
        reference="tflite",
        artifacts={"tflite": "m.tflite"},
        targets={"ort": ["fp16"], "tflite": ["fp32"]},
    )
    found = matrix(declared)
    assert found.cases == ()
    assert "no source" in found.absences[0].reason


def test_a_tensorflow_file_reaches_only_targets_that_read_it() -> None:
    targets = [find_target(name) for name in ("tflite", "ort-web", "executorch")]
    found = matrix(model(source="m.keras", qat="m.keras"), *targets, precisions=("fp32",))
    assert {case.target.name for case in found.cases} == {"tflite", "ort-web"}
    assert "no route from a TensorFlow model to ExecuTorch" in found.absences[0].reason
    found = matrix(model(source="m.keras", qat="m.keras"), *targets, precisions=("int8-qat",))
    assert [case.target.name for case in found.cases if not case.unsupported] == ["tflite"]
    assert "no route from a TensorFlow model to int8-qat" in found.absences[0].reason


def test_an_onnx_source_reaches_only_targets_that_read_it() -> None:
    found = matrix(model(source="m.onnx", qat=None), ORT, TFLITE, precisions=("fp32",))
    assert [case.id for case in found.cases] == ["ort-fp32"]
    assert "no route from an ONNX file" in found.absences[0].reason


def test_missing_evaluation_data_is_told_once_and_only_where_accuracy_is_checked() -> None:
    declared = model(evaluation=None)
    told = [item for item in matrix(declared, ORT, TFLITE).absences if item.what == "accuracy"]
    assert [item.subject for item in told] == ["toy"]
    others = tuple(check for check in CHECKS if check != "accuracy")
    assert not matrix(declared, checks=others).absences
    assert not matrix(declared, models=("other",)).absences


# -- one case


def case(
    variant: str = "",
    precision: str = "int8",
    target: Target = ORT,
    budget: Budget | None = None,
    **changes: Any,
) -> Case:
    return Case("toy", variant, target, precision, model(**changes), budget or Budget())


def test_a_case_of_the_model_itself_judges_the_users_file_and_a_variant_does_not() -> None:
    changes: dict[str, Any] = {
        "artifacts": {("ort", "int8"): "m.onnx"},
        "variants": {"pruned": source},
    }
    assert case(**changes).artifact == Artifact("m.onnx")
    assert case("pruned", **changes).artifact is None
    assert case(precision="fp32", **changes).artifact is None


def test_limits_are_selected_by_target_precision_variant_and_output() -> None:
    budget = Budget(
        accuracy_drop={"default": 0.5, "ort": 0.4, "ort/int8": 0.3, "ort/int8/pruned": 0.2},
        sqnr_db={"default": 1, "y": 2},
    )
    assert case(budget=budget).limits()["accuracy_drop"].value == 0.3
    assert case("pruned", budget=budget).limits()["accuracy_drop"].value == 0.2
    assert case(precision="fp32", budget=budget).limits()["accuracy_drop"].value == 0.4
    assert case(target=TFLITE, budget=budget).limits()["accuracy_drop"].value == 0.5
    assert case(budget=budget).limits()["sqnr_db"].value == 1
    assert case(budget=budget).limits("y")["sqnr_db"].value == 2


def test_limits_are_selected_by_the_device_class_too() -> None:
    budget = Budget(latency_p95={"default": "9 ms", "mobile": "3 ms"})
    held = {
        name: expand("toy", model(), budget, Selection((ORT,), profile=profile)).cases[0].limits()
        for name, profile in (("none", None), *DEVICE_CLASSES.items())
    }
    assert held["mobile"]["latency_p95"].value == 3
    assert held["none"]["latency_p95"].value == held["sbc"]["latency_p95"].value == 9


def test_the_last_release_is_found_by_target_and_precision() -> None:
    declared = model(
        baselines={"ort": "old.onnx", ("ort", "int8"): Artifact("old8.onnx", inputs={"x": "y"})},
        variants={"pruned": source},
    )
    found = {case.id: case.baseline for case in matrix(declared, ORT, TFLITE).cases}
    assert found["ort-fp32"] == Artifact("old.onnx")
    assert found["ort-int8"] == Artifact("old8.onnx", inputs={"x": "y"})
    with_one = [name for name, baseline in found.items() if baseline is not None]
    assert sorted(with_one) == ["ort-fp32", "ort-int8"]  # no variant, no other target


def test_profiles_are_found_by_name_and_misspelt_ones_suggested() -> None:
    assert find_device_class("mcu") is DEVICE_CLASSES["mcu"]
    with pytest.raises(SelectionError, match="did you mean 'edge-tpu'"):
        find_device_class("edgetpu")
