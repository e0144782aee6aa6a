"""The reference's intermediate tensors: the captured program, run operator by operator.

Runs in a child process; needs none of the user's code, only the .pt2 file, which keeps from where
in the user's model each operator was called.
"""

from __future__ import annotations

import copy
import math
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecheck.localization.rounding import Rounding, rounding_of
from edgecheck.runtime.torch import name_outputs
from edgecheck.runtime.torch_program import load_program
from edgecheck.runtime.trace import INPUT, Step, save_outputs

# Converters fold these into the operator before, and no rounding comes between.
_ABSORBED = frozenset(["batch_norm", "relu", "relu6", "hardtanh", "clamp"])
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class ReferenceTracer:
    """Traces programs."""

    def trace(
        self,
        *,
        program: str,
        feeds: list[dict[str, str]],
        outputs: list[str],
        precision: str,
        directory: str,
        limit_bytes: int,
        calibration: list[dict[str, str]],
        threads: int = 1,
    ) -> dict[str, Any]:
        """Run feeds (.npy path by declared input) and keep every operator's float output.

        Calibration feeds show the ranges that a quantizer takes (see `rounding`).

        Returns ``steps`` (see `Step`), ``outputs`` (.npy path by name, (calls, *shape)), and
        ``calls``, how many feeds were run before `limit_bytes` of tensors were kept.
        """
        torch.set_num_threads(threads)
        exported = load_program(program)
        module = exported.module(check_guards=False)
        names = _input_names(exported, module)
        rounding = rounding_of(precision)
        calls = [[_load(feed[name]) for name in names] for feed in calibration]
        rounded = _Rounded(module, rounding, _ranges(module, calls) if rounding.calibrated else {})
        kept: dict[str, list[np.ndarray]] = {}
        noise: dict[str, list[float]] = {}
        returned: list[dict[str, np.ndarray]] = []
        size_bytes = 0
        for feed in feeds:
            inputs = [_load(feed[name]) for name in names]
            values: dict[str, torch.Tensor] = {}
            result = _run(module, inputs, partial(_keep, values))
            returned.append(name_outputs(result, outputs))
            for name, power in rounded.errors(inputs, values).items():
                noise.setdefault(name, []).append(power)
            for name, value in values.items():
                kept.setdefault(name, []).append(value.float().numpy())
                size_bytes += value.numel() * 4
            if size_bytes + size_bytes / len(returned) > limit_bytes:
                break
        folder = Path(directory)
        return {
            "steps": list(_steps(module.graph, kept, noise, len(returned), folder)),
            "outputs": save_outputs(returned, folder),
            "calls": len(returned),
        }


class _Recorder(torch.fx.Interpreter):
    """Runs a graph and shows each operator's result, which it may replace."""

    def __init__(self, module: torch.fx.GraphModule, see: Callable[[Any, Any], Any]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._see = see
        # Messages about a failing node would go to the log for each caller that handles it.
        self.extra_traceback = False

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if n.op in ("call_function", "get_attr", "placeholder") and isinstance(
            result, torch.Tensor
        ):
            return self._see(n, result)
        return result


def _run(module: Any, inputs: list[torch.Tensor], see: Callable[[Any, Any], Any]) -> Any:
    with torch.no_grad():
        result = _Recorder(module, see).run(*inputs, enable_io_processing=False)
        return module.graph.process_outputs(result)


def _keep(into: dict[str, torch.Tensor], node: torch.fx.Node, value: torch.Tensor) -> torch.Tensor:
    if node.op == "call_function" and value.is_floating_point():
        # A copy: an operator that works in place may change it.
        into[node.name] = value.detach().clone()
    return value


def _ranges(
    module: torch.fx.GraphModule, calls: Iterable[list[torch.Tensor]]
) -> dict[str, tuple[float, float]]:
    """The smallest and the largest value of each operator."""
    found: dict[str, tuple[float, float]] = {}

    def see(node: torch.fx.Node, value: torch.Tensor) -> torch.Tensor:
        if value.is_floating_point() and value.numel():
            low, high = found.get(node.name, (math.inf, -math.inf))
            found[node.name] = min(low, float(value.min())), max(high, float(value.max()))
        return value

    for inputs in calls:
        _run(module, inputs, see)
    return found


class _Rounded:
    """A program with its rounding simulated."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        rounding: Rounding,
        ranges: Mapping[str, tuple[float, float]],
    ) -> None:
        self._rounding = rounding
        self._ranges = ranges
        self._module = copy.deepcopy(module).double() if rounding.double else module

    def errors(
        self, inputs: list[torch.Tensor], exact: Mapping[str, torch.Tensor]
    ) -> dict[str, float]:
        """Relative error power of each operator; {} where the program can't be run so.

        A program with types written into it does not run in float64.
        """
        found: dict[str, float] = {}

        def see(node: torch.fx.Node, value: torch.Tensor) -> torch.Tensor:
            if not value.is_floating_point():
                return value
            if node.op == "placeholder":
                given = self._ranges.get(node.name)
                rounds = self._rounding.activations
                return rounds(value, given) if rounds and given else value
            if node.op == "get_attr":
                return self._rounding.weights(value) if self._rounding.weights else value
            if self._rounding.activations and not _fused(node):
                value = self._rounding.activations(value, self._ranges.get(node.name))
            if node.name in exact:
                found[node.name] = _relative_power(value, exact[node.name])
            return value

        if self._rounding.double:
            inputs = [item.double() if item.is_floating_point() else item for item in inputs]
        try:
            _run(self._module, inputs, see)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return {}
        return found


def _fused(node: torch.fx.Node) -> bool:
    """Whether converters compute an operator's result together with what reads it."""
    return bool(node.users) and all(
        str(user.target).removeprefix("aten.").split(".")[0].rstrip("_") in _ABSORBED
        for user in node.users
    )


def _relative_power(value: torch.Tensor, exact: torch.Tensor) -> float:
    error = (value.double() - exact.double()).square().sum()
    power = float(exact.double().square().sum())
    return float(error) / power if power > 0 else 0.0


def _steps(
    graph: torch.fx.Graph,
    kept: Mapping[str, list[np.ndarray]],
    noise: Mapping[str, list[float]],
    calls: int,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """The steps that depend on the model's inputs, as plain data, their values written."""
    origins: dict[str, frozenset[int]] = {}
    count = 0
    for node in graph.nodes:
        sources = frozenset().union(*(origins[item.name] for item in node.all_input_nodes))
        if node.op == "placeholder":
            sources = frozenset([INPUT])
        origins[node.name] = sources
        values = kept.get(node.name, [])
        # What does not depend on the input is folded away by converters.
        if not sources or len(values) < calls or len({item.shape for item in values}) > 1:
            continue
        origins[node.name] = frozenset([count])
        path = folder / f"{count}.npy"
        np.save(path, np.stack(values), allow_pickle=False)
        powers = noise.get(node.name, [])
        module, module_type = _module(node)
        yield asdict(
            Step(
                operator=str(node.target).removesuffix(".default"),
                module=module,
                module_type=module_type,
                place=_place(node),
                shape=tuple(values[0].shape),
                dtype=str(node.meta["val"].dtype if "val" in node.meta else values[0].dtype),
                sources=tuple(sorted(sources)),
                noise=float(np.sqrt(np.mean(powers))) if len(powers) == calls else None,
                path=str(path),
            )
        )
        count += 1


def _module(node: torch.fx.Node) -> tuple[str, str]:
    """Path and type of the innermost module of the user's model that called an operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, kind = stack[-1]
    return str(path), str(getattr(kind, "__name__", kind)).rsplit(".", 1)[-1]


def _place(node: torch.fx.Node) -> str:
    """``file:line`` of the deepest frame outside libraries, or ''."""
    paths = sysconfig.get_paths()
    foreign = tuple(paths[name] for name in ("purelib", "platlib", "stdlib"))
    for file, line in reversed(_FRAME.findall(node.meta.get("stack_trace") or "")):
        if not file.startswith(("<", *foreign)):
            return f"{file}:{line}"
    return ""


def _input_names(exported: Any, module: torch.fx.GraphModule) -> list[str]:
    """The declared names of a program's inputs in the order of its graph."""
    placeholders = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
    keywords = list(exported.call_spec.in_spec.child(1).context or [])
    return placeholders[: len(placeholders) - len(keywords)] + keywords


def _load(path: str) -> torch.Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False))
