"""The tests of a target.

They build, inspect, run and trace a small network (`TargetConformance.network`) in child processes,
as edgecheck does. What this machine can't do is skipped, with the reason. They need PyTorch.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from edgecheck.digests import file_sha256
from edgecheck.names import CHECKS, NAME, PRECISIONS
from edgecheck.process.modules import imported_modules, module_source
from edgecheck.runtime.trace import Trace
from edgecheck.runtime.trace import load as load_trace
from edgecheck.targets.base import Inspection, Target
from edgecheck.targets.common import keep_float
from edgecheck.targets.registry import all_targets
from edgecheck.testing.workshop import BATCH, TIMEOUT_S, Workshop

Array = npt.NDArray[Any]

# Packages that take a second or more to import, which only child processes may do.
HEAVY_PACKAGES = (
    *("torch", "torchao", "onnx", "onnxruntime", "tensorflow", "keras", "coremltools"),
    *("executorch", "litert_torch", "ai_edge_litert", "tensorrt", "tensorrt_rtx", "sklearn"),
)
# An int8-qat file is built from a program that the user converted, which there is none of here.
_NOT_BUILT = ("int8-qat",)
_SOURCE_KINDS = ("torch", "onnx", "tensorflow")


class TargetConformance:
    """Inherit this as ``Test...`` and set `target`.

    Override `network` and `samples` if the target can't run a small perceptron.
    """

    target: ClassVar[Target]

    @staticmethod
    def network() -> Any:
        """A ``torch.nn.Module`` with one output: here 32 -> 64 -> 32 with a ReLU, fixed weights."""
        import torch

        generator = torch.Generator().manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32)
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)

        class Named(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = network

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                result: torch.Tensor = self.layers(x)
                return result

        return Named().eval()

    @staticmethod
    def samples() -> dict[str, Array]:
        """Inputs by name: 16 samples, float32."""
        values = np.random.default_rng(0).uniform(-1, 1, (16, 32))
        return {"x": values.astype(np.float32)}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run tests that take ``precision`` for each that is built here."""
        if "precision" in metafunc.fixturenames:
            names = [name for name in self.target.build.precisions if name not in _NOT_BUILT]
            metafunc.parametrize("precision", names)

    @pytest.fixture(scope="class")
    @classmethod
    def workshop(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
        """Builds of the class' target."""
        if reason := cls.target.missing():
            pytest.skip(reason)
        folder = tmp_path_factory.mktemp("workshop")
        workshop = Workshop(cls.target, cls.network(), cls.samples(), folder)
        yield workshop
        workshop.close()

    def _skip_if_it_cannot_run(self, precision: str) -> None:
        if reason := self.target.gap("run", precision):
            pytest.skip(reason)

    # -- the declaration ----------------------------------------------------------------------

    def test_names_are_words_of_the_command_line(self) -> None:
        for name in (self.target.name, *self.target.aliases):
            assert NAME.fullmatch(name), name
        assert self.target.title.strip() == self.target.title != ""
        assert self.target.files.suffix.startswith(".")

    def test_every_precision_has_a_route(self) -> None:
        build, known = self.target.build, {*all_targets(), self.target.name}
        assert set(build.precisions) <= set(PRECISIONS)
        assert set(build.from_tensorflow) <= set(build.precisions)
        assert set(build.reads) <= set(_SOURCE_KINDS)
        for precision, made_from in build.precisions.items():
            assert made_from in {"torch", "float", *known}, precision
            if made_from == "float":
                assert "fp32" in build.precisions
                assert precision != "fp32"
        if self.target.files.shared_with:
            assert self.target.files.shared_with in known

    def test_default_options_are_accepted(self) -> None:
        options = self.target.options
        assert options.problem(options.defaults) == ""
        gaps = self.target.host.gaps(options.defaults)
        assert set(gaps) <= {"run", *CHECKS, *self.target.build.precisions}

    def test_classes_exist_where_the_declaration_says(self) -> None:
        runtime, build = self.target.runtime, self.target.build
        for name in filter(None, (build.builder, runtime.runner, runtime.tracer)):
            module, _, class_name = name.partition(":")
            assert f"class {class_name}(" in module_source(module)
        if build.weights:
            assert importlib.util.find_spec(build.weights) is not None
        assert not (runtime.tracer and runtime.untraceable)

    def test_the_declaration_is_cheap_to_import(self) -> None:
        module = self.target.runtime.runner.split(":")[0]
        package = module.rpartition(".")[0] or module
        heavy = f"set({HEAVY_PACKAGES!r}) & sys.modules.keys()"
        code = f"import sys, {package}; print(*({heavy}))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == []

    def test_what_is_sent_imports_nothing_else_of_edgecheck(self) -> None:
        runtime = self.target.runtime
        if runtime.needs_edgecheck:
            pytest.skip("it runs where edgecheck is installed")
        runner = runtime.runner.split(":")[0]
        package = runner.rpartition(".")[0]
        for module in imported_modules(runner):
            own = module == runner or (package and module.startswith(f"{package}."))
            assert own or module.startswith("edgecheck.runtime."), module

    # -- building and inspecting --------------------------------------------------------------

    def test_a_build_is_reproducible(self, workshop: Workshop, precision: str) -> None:
        first = workshop.file(precision)
        again = workshop.folder / f"again-{precision}{self.target.files.suffix}"
        workshop.other_builder.call(
            "build", timeout_s=TIMEOUT_S, **workshop.request(precision, again)
        )
        assert file_sha256(again) == file_sha256(first)

    def test_a_sound_file_has_no_failures(self, workshop: Workshop, precision: str) -> None:
        inspection = workshop.inspect(workshop.file(precision))
        assert inspection.failures == ()
        assert inspection.format
        assert Inspection.from_data(inspection.as_data()) == inspection

    def test_weights_are_counted(self, workshop: Workshop, precision: str) -> None:
        inspection = workshop.inspect(workshop.file(precision))
        # Formats with dynamic quantization store scales among the weights.
        counted = sum(inspection.weight_elements.values())
        assert workshop.parameters <= counted <= 1.1 * workshop.parameters
        assert inspection.weight_elements.keys() == inspection.weight_bytes.keys()
        if precision == "fp32":
            assert inspection.weight_elements == {"float32": workshop.parameters}
            assert inspection.weight_bytes == {"float32": 4 * workshop.parameters}
            assert inspection.quantized_operators == {}

    @pytest.mark.parametrize("damage", ["empty", "truncated", "foreign", "missing"])
    def test_a_damaged_file_is_a_failure_not_a_crash(self, workshop: Workshop, damage: str) -> None:
        sound = workshop.file("fp32")
        path = workshop.folder / f"{damage}{self.target.files.suffix}"
        if damage != "missing":
            data = b"" if sound.is_dir() else sound.read_bytes()
            contents = {"empty": b"", "truncated": data[: len(data) // 2], "foreign": b"PNG" * 99}
            path.write_bytes(contents[damage])
        inspection = workshop.inspect(path)
        assert inspection.failures or inspection.not_inspected
        assert all("\n" not in line for line in inspection.failures)

    # -- running ------------------------------------------------------------------------------

    def test_batches_are_cut_and_padded(self, workshop: Workshop) -> None:
        self._skip_if_it_cannot_run("fp32")
        rows = BATCH + 2
        feed = {name: array[:rows] for name, array in workshop.samples.items()}
        child = workshop.runner("fp32", batch=BATCH)
        together = workshop.run(child, workshop.save("several", feed))
        assert len(together) == rows
        for row in range(rows):
            one = {name: array[row : row + 1] for name, array in feed.items()}
            alone = workshop.run(child, workshop.save("one", one))
            np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("layout", ["fortran", "big-endian", "reversed", "every-second"])
    def test_strides_and_byte_order_do_not_matter(self, workshop: Workshop, layout: str) -> None:
        self._skip_if_it_cannot_run("fp32")
        plain = {name: array[:BATCH] for name, array in workshop.samples.items()}
        turned = {name: _laid_out(array, layout) for name, array in plain.items()}
        child = workshop.runner("fp32")
        expected = workshop.run(child, workshop.save("plain", plain))
        actual = workshop.run(child, workshop.save("turned", turned))
        np.testing.assert_array_equal(actual, expected)

    def test_it_repeats_itself_as_declared(self, workshop: Workshop, precision: str) -> None:
        self._skip_if_it_cannot_run(precision)
        if not self.target.runtime.deterministic:
            pytest.skip("the target does not claim to repeat itself bit by bit")
        feed = workshop.save("all", workshop.samples)
        outputs = []
        for _ in range(2):
            child = workshop.runner(precision)
            outputs += [workshop.run(child, feed), workshop.run(child, feed)]
        for other in outputs[1:]:
            np.testing.assert_array_equal(other, outputs[0])

    def test_traced_outputs_are_those_of_a_run(self, workshop: Workshop, precision: str) -> None:
        self._skip_if_it_cannot_run(precision)
        if not self.target.runtime.tracer:
            pytest.skip(self.target.runtime.untraceable or "the target has no tracer")
        one_call = {name: array[:1] for name, array in workshop.samples.items()}
        feed = workshop.save("call", one_call)
        expected = workshop.run(workshop.runner(precision), feed)
        tracer = workshop.runner(precision, tracer=True)
        with tempfile.TemporaryDirectory(dir=workshop.folder) as folder:
            fields = tracer.call("trace_data", timeout_s=TIMEOUT_S, feeds=[feed], directory=folder)
            trace = Trace.from_data(fields)
            (actual,) = load_trace(trace.outputs["y"])
            assert len(trace.tensors) > 1
            for tensor in trace.tensors:
                assert load_trace(tensor.path).shape == (1, *tensor.shape)
        spread = float(np.abs(expected).max())
        # Observing may keep a runtime from fusing, which rounds otherwise.
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * spread)

    def test_a_layer_that_is_kept_stays_in_float(self, workshop: Workshop, precision: str) -> None:
        if keep_float.OPTION not in self.target.options.defaults:
            pytest.skip(f"the target has no option {keep_float.OPTION}")
        kept = {keep_float.OPTION: {precision: ["layers.0"]}}
        if self.target.options.problem({**self.target.options.defaults, **kept}):
            pytest.skip(f"{precision} has no layers to keep")
        path = workshop.folder / f"kept-{precision}{self.target.files.suffix}"
        request = workshop.request(precision, path)
        child = workshop.builder(self.target.name)
        assert "layers.0" in child.call("layers", timeout_s=TIMEOUT_S, **request)
        request["options"] = {**self.target.options.defaults, **kept}
        child.call("build", timeout_s=TIMEOUT_S, **request)
        floats = [
            _float_weights(workshop.inspect(item)) for item in (path, workshop.file(precision))
        ]
        # The first layer has 32 * 64 weights, the second as many.
        assert 0.9 < (floats[0] - floats[1]) / (32 * 64) < 1.1


def _laid_out(array: Array, layout: str) -> Array:
    """The same values in another order in memory."""
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "big-endian":
        return array.astype(array.dtype.newbyteorder(">"))
    if layout == "reversed":
        return np.ascontiguousarray(array[::-1])[::-1]
    return np.repeat(array, 2, axis=-1)[..., ::2]


def _float_weights(inspection: Inspection) -> int:
    kinds = ("float32", "float16", "fp32", "fp16")
    return sum(inspection.weight_elements.get(kind, 0) for kind in kinds)
