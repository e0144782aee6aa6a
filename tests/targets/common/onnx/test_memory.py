"""Static memory plans of .onnx files, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.targets.common.onnx import inspection
from edgecheck.targets.common.onnx.memory import plan_memory

Shape = Sequence[int | str | None]
Node = tuple[Any, ...]


def value(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def make(
    nodes: Sequence[Node],
    inputs: Sequence[Any],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray] | None = None,
    **attributes: dict[str, Any],
) -> Any:
    """A model of ``(type, reads, writes)``; attributes by the name of a node's first output."""
    made = [
        helper.make_node(kind, reads, writes, **attributes.get(writes[0], {}))
        for kind, reads, writes in nodes
    ]
    graph = helper.make_graph(
        made,
        "g",
        list(inputs),
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def set_domain(made: Any, domain: str) -> None:
    """Say whose operator the first one is."""
    made.graph.node[0].domain = domain
    made.opset_import.append(helper.make_opsetid(domain, 1))


CHAIN = (("Concat", ["x", "x"], ["a"]), ("Relu", ["a"], ["b"]), ("Neg", ["b"], ["y"]))


def chain(shape: Shape = ("batch", 100)) -> Any:
    return make(CHAIN, [value("x", shape)], ["y"], a={"axis": 1})


def test_a_chain_takes_its_two_largest_neighbours() -> None:
    found = plan_memory(chain())
    assert found["arena_bytes"] == found["lower_bound_bytes"] == 800 + 800
    assert found["no_reuse_bytes"] == 400 + 3 * 800
    assert (found["operators"], found["tensors"], found["variables_bytes"]) == (3, 4, 0)
    assert found["peak_operator"] == {"index": 1, "type": "Relu", "name": "b"}
    assert found["live"][0] == {
        "name": "a",
        "shape": [1, 200],
        "dtype": "float",
        "size_bytes": 800,
    }


def test_outputs_live_to_the_end() -> None:
    found = plan_memory(make(CHAIN, [value("x", [1, 100])], ["a", "y"], a={"axis": 1}))
    assert found["lower_bound_bytes"] == 3 * 800


def test_an_input_lives_to_its_last_use() -> None:
    nodes = [*CHAIN, ("Concat", ["x", "y"], ["z"])]
    found = plan_memory(make(nodes, [value("x", [1, 100])], ["z"], a={"axis": 1}, z={"axis": 1}))
    assert found["lower_bound_bytes"] == 400 + 800 + 1200


def test_a_planted_buffer_of_5_mb_is_found_and_named() -> None:
    nodes = [*CHAIN[:2], ("Tile", ["b", "repeats"], ["planted"]), ("ReduceMax", ["planted"], ["y"])]
    repeats = np.array([6250, 1], np.int64)
    found = plan_memory(
        make(nodes, [value("x", [1, 100])], ["y"], {"repeats": repeats}, a={"axis": 1})
    )
    assert found["arena_bytes"] == 5_000_000 + 800
    assert found["peak_operator"] == {"index": 2, "type": "Tile", "name": "planted"}
    assert found["live"][0]["name"] == "planted"


def test_constants_and_what_follows_from_them_take_none_of_it() -> None:
    nodes = [
        ("Constant", [], ["zero"]),
        ("DequantizeLinear", ["stored", "scale"], ["unpacked"]),
        ("Transpose", ["unpacked"], ["weight"]),
        ("MatMul", ["x", "weight"], ["h"]),
        ("Add", ["h", "zero"], ["y"]),
    ]
    constants: dict[str, np.ndarray] = {
        "stored": np.ones((50, 100), np.int8),
        "scale": np.array(0.1, np.float32),
    }
    zero = {"value": numpy_helper.from_array(np.zeros(50, np.float32))}
    found = plan_memory(make(nodes, [value("x", [1, 100])], ["y"], constants, zero=zero))
    assert found["tensors"] == 3
    assert found["no_reuse_bytes"] == 400 + 208 + 208


def test_random_numbers_are_no_constants() -> None:
    nodes = [("RandomNormalLike", ["c"], ["noise"]), ("Add", ["x", "noise"], ["y"])]
    constants = {"c": np.ones((1, 100), np.float32)}
    assert plan_memory(make(nodes, [value("x", [1, 100])], ["y"], constants))["tensors"] == 3


def test_an_initializer_that_is_listed_as_an_input_is_a_constant() -> None:
    inputs = [value("x", [1, 2000]), value("c", [1, 2000])]
    made = make([("Add", ["x", "c"], ["y"])], inputs, ["y"], {"c": np.ones((1, 2000), np.float32)})
    assert plan_memory(made)["tensors"] == 2


def test_optional_inputs_and_outputs_that_are_left_out_are_nothing() -> None:
    nodes = [("Clip", ["x", "", "high"], ["h"]), ("Dropout", ["h"], ["y", ""])]
    found = plan_memory(
        make(nodes, [value("x", [1, 100])], ["y"], {"high": np.array(1, np.float32)})
    )
    assert found["tensors"] == 3


def test_float_tensors_of_a_qdq_graph_are_counted_as_written() -> None:
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"]),
        ("DequantizeLinear", ["q", "s", "z"], ["d"]),
        ("Relu", ["d"], ["y"]),
    ]
    constants: dict[str, np.ndarray] = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    found = plan_memory(make(nodes, [value("x", [1, 160])], ["y"], constants))
    assert found["no_reuse_bytes"] == 640 + 160 + 640 + 640


@pytest.mark.parametrize("shape", [("batch", 100), ("s38", 100), (None, 100), (1, 100)])
def test_an_open_first_axis_is_a_batch_of_one(shape: Shape) -> None:
    assert plan_memory(chain(shape))["arena_bytes"] == 1600


def test_the_name_of_the_batch_means_one_everywhere() -> None:
    nodes = [("Unknown", ["x"], ["h"]), ("Relu", ["h"], ["y"])]
    made = make(nodes, [value("x", ["n", 4])], ["y"])
    set_domain(made, "somebodys")
    made.graph.value_info.append(value("h", ["n", 40]))
    assert plan_memory(made)["lower_bound_bytes"] == 160 + 160


def test_matrix_products_with_packed_weights_are_planned() -> None:
    """ONNX itself knows no shapes of the int4 files' operator."""
    sizes = {"K": 100, "N": 50, "bits": 4, "block_size": 32}
    nodes = [("MatMulNBits", ["x", "w", "s"], ["h"]), ("Relu", ["h"], ["y"])]
    constants: dict[str, np.ndarray] = {
        "w": np.ones((50, 4, 16), np.uint8),
        "s": np.ones(200, np.float32),
    }
    made = make(nodes, [value("x", ["batch", 7, 100])], ["y"], constants, h=sizes)
    set_domain(made, "com.microsoft")
    assert plan_memory(made)["no_reuse_bytes"] == 2800 + 1408 + 1408


def test_functions_are_followed() -> None:
    body = [helper.make_node("Relu", ["p"], ["q"]), helper.make_node("Neg", ["q"], ["r"])]
    opset = [helper.make_opsetid("", 20)]
    function = helper.make_function("own", "Twice", ["p"], ["r"], body, opset)
    made = make([("Twice", ["x"], ["y"])], [value("x", [1, 100])], ["y"])
    set_domain(made, "own")
    made.functions.append(function)
    found = plan_memory(made)
    assert (found["operators"], found["tensors"]) == (2, 3)


# -- what can't be planned


def test_a_shape_that_is_not_static_is_told_with_its_dimension() -> None:
    found = plan_memory(chain(("batch", "time")))
    assert found == {"unplanned": "tensor 'x' has no static shape: 1, time"}


def test_a_shape_that_depends_on_data_is_told() -> None:
    found = plan_memory(make([("NonZero", ["x"], ["y"])], [value("x", [1, 100])], ["y"]))
    assert "tensor 'y' has no static shape" in found["unplanned"]


def test_an_operator_of_unknown_shapes_is_told() -> None:
    made = make([("Unknown", ["x"], ["y"])], [value("x", [1, 100])], ["y"])
    set_domain(made, "somebodys")
    assert "tensor 'y' has no static shape" in plan_memory(made)["unplanned"]


def test_control_flow_is_told() -> None:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "b", [], [value("r", [1])])
    flow = {"then_branch": branch, "else_branch": branch}
    inputs = [value("c", [], TensorProto.BOOL), value("x", [1])]
    found = plan_memory(make([("If", ["c"], ["y"])], inputs, ["y"], y=flow))
    assert found["unplanned"].startswith("operator If")


def test_strings_and_sequences_are_told() -> None:
    found = plan_memory(
        make([("Identity", ["x"], ["y"])], [value("x", [3], TensorProto.STRING)], ["y"])
    )
    assert "tensor 'x' is of type STRING" in found["unplanned"]
    nodes = [("SequenceConstruct", ["x"], ["s"]), ("SequenceLength", ["s"], ["y"])]
    found = plan_memory(make(nodes, [value("x", [3])], ["y"]))
    assert found["unplanned"] == "'s' is not a tensor"


def test_inspection_brings_the_plan(tmp_path: Path) -> None:
    made = chain()
    del made.graph.output[:]
    made.graph.output.append(value("y", ["batch", 200]))
    onnx.save(made, str(tmp_path / "m.onnx"))
    contents = inspection.inspect(tmp_path / "m.onnx").as_data()
    assert contents["failures"] == []
    assert contents["activation_memory"]["arena_bytes"] == 1600
