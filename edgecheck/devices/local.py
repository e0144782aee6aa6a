"""This machine as a device: runners work in child processes, arrays travel as .npy files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecheck.devices.binding import Binding
from edgecheck.errors import ChildError
from edgecheck.process.lock import MachineLock
from edgecheck.process.parent import Child, Pool, Service
from edgecheck.runtime.results import Placement, Profile
from edgecheck.targets.base import Target

# One thread: the steadiest timing, and the same outputs whatever else the machine does.
THREADS = 1


class LoadedModel:
    """A model file loaded and bound on this machine.

    Attributes:
        inputs, outputs: the file's tensors.
        binding: None until `bind`.
    """

    def __init__(self, child: Child, info: Mapping[str, Any], timeout_s: float) -> None:
        self._child = child
        self._timeout_s = timeout_s
        self.inputs: list[dict[str, Any]] = info["inputs"]
        self.outputs: list[dict[str, Any]] = info["outputs"]
        self.binding: Binding | None = None

    @property
    def alive(self) -> bool:
        """Whether the process that holds the model still runs."""
        return self._child.alive

    def bind(self, binding: Binding) -> None:
        """Set the correspondence of names and layouts."""
        self._child.call("bind", timeout_s=self._timeout_s, binding=binding.for_runner())
        self.binding = binding

    def run(
        self, feeds: Sequence[Mapping[str, str]], directory: Path, batch_size: int | None = None
    ) -> list[dict[str, str]]:
        """Run feeds (.npy path by declared input); return the .npy paths by declared output."""
        requests = []
        for position, feed in enumerate(feeds):
            folder = directory / str(position)
            folder.mkdir(parents=True, exist_ok=True)
            requests.append({"inputs": dict(feed), "directory": str(folder)})
        outputs: list[dict[str, str]] = self._child.call(
            "run", timeout_s=self._timeout_s, feeds=requests, batch_size=batch_size
        )
        return outputs

    def placement(self, feed: Mapping[str, str]) -> Placement:
        """Where operators run."""
        fields = self._child.call("placement_data", timeout_s=self._timeout_s, feed=dict(feed))
        return Placement(**{**fields, "warnings": tuple(fields["warnings"])})

    def profile(self, feed: Mapping[str, str]) -> Profile:
        """Where time goes."""
        fields = self._child.call("profile_data", timeout_s=self._timeout_s, feed=dict(feed))
        return Profile.from_data(fields)


@dataclass(frozen=True)
class Loadable:
    """A model file and all it takes to run it once, as plain data for a runner.

    Attributes:
        binding: see `edgecheck.runtime.runner.Runner.bind`.
        feed: .npy path by declared input.
        options: of the target.
    """

    path: Path
    binding: Mapping[str, Any]
    feed: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)


class Stopwatch:
    """A fresh process that times model files, while nothing else that is known of works."""

    def __init__(self, child: Child, timeout_s: float, options: Mapping[str, Any]) -> None:
        self._child = child
        self._timeout_s = timeout_s
        self._options = dict(options)

    def round(self, *candidates: Loadable, duration_s: float, blocks: int = 1) -> dict[str, Any]:
        """Load and time candidates in turns; see `edgecheck.runtime.timing.time_round`."""
        found: dict[str, Any] = self._child.call(
            "time_round",
            timeout_s=self._timeout_s,
            candidates=[
                {
                    "path": str(item.path),
                    "options": {**self._options, "target": dict(item.options)},
                    "binding": dict(item.binding),
                    "feed": dict(item.feed),
                }
                for item in candidates
            ],
            duration_s=duration_s,
            blocks=blocks,
        )
        return found


class LocalDevice:
    """This machine.

    Args:
        pool: holds the runners' processes; runs of one file share one.
        lock: what timing holds alone.
        threads, cpus: of timing and weighing; no cores for all of them.
    """

    def __init__(
        self, pool: Pool, timeout_s: float, lock: MachineLock, *, threads: int, cpus: Sequence[int]
    ) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._lock = lock
        self._options = {"threads": threads, "cpus": list(cpus)}
        self._sessions: dict[str, LoadedModel] = {}

    def open(
        self,
        key: str,
        target: Target,
        path: Path,
        target_options: Mapping[str, Any],
        *,
        optimize: bool = True,
    ) -> LoadedModel:
        """A session with the file loaded, the same one for the same key while its process lives.

        Raises:
            ChildError: the runtime refuses the file, or crashes on it.
        """
        session = self._sessions.get(key)
        child, fresh = self._pool.get(f"device:{key}", runner_service(target))
        if session is not None and session.alive and not fresh:
            return session
        options = {"threads": THREADS, "optimize": optimize, "target": dict(target_options)}
        try:
            info = child.call("load", timeout_s=self._timeout_s, path=str(path), options=options)
        except ChildError as error:
            raise ChildError(
                f"{target.title} can't load {path.name}: {error}",
                kind=error.kind,
                log_tail=error.log_tail,
            ) from error
        session = LoadedModel(child, info, self._timeout_s)
        self._sessions[key] = session
        return session

    def reopen(
        self,
        key: str,
        target: Target,
        path: Path,
        target_options: Mapping[str, Any],
        binding: Binding,
        *,
        threads: int,
    ) -> LoadedModel:
        """The file loaded anew into the process of its session, with other threads.

        It is used up by the next `open`, which loads the file as always.

        Raises:
            ChildError: the runtime refuses the file, or crashes on it.
        """
        self._sessions.pop(key, None)
        child, _ = self._pool.get(f"device:{key}", runner_service(target))
        options = {"threads": threads, "optimize": True, "target": dict(target_options)}
        info = child.call("load", timeout_s=self._timeout_s, path=str(path), options=options)
        session = LoadedModel(child, info, self._timeout_s)
        session.bind(binding)
        return session

    @contextlib.contextmanager
    def stopwatch(self, target: Target) -> Iterator[Stopwatch]:
        """A fresh process for timing, with the machine to itself."""
        with (
            self._pool.once(runner_service(target), quiet=True) as child,
            self._lock.alone(),
        ):
            yield Stopwatch(child, self._timeout_s, self._options)

    def measure_memory(
        self,
        target: Target,
        loadable: Loadable,
        *,
        runs: int,
        growth_runs: tuple[int, int],
        growth_limit_s: float,
    ) -> dict[str, Any]:
        """Memory of loading and running in a fresh process (`edgecheck.runtime.memory.measure`)."""
        with self._pool.once(runner_service(target)) as child:
            measured: dict[str, Any] = child.call(
                "measure_memory",
                timeout_s=self._timeout_s,
                path=str(loadable.path),
                options={**self._options, "target": dict(loadable.options)},
                binding=dict(loadable.binding),
                feed=dict(loadable.feed),
                runs=runs,
                growth_runs=growth_runs,
                growth_limit_s=growth_limit_s,
            )
        return measured


def runner_service(target: Target) -> Service:
    """What runs a target's files in a child process, on one thread of OpenMP."""
    runtime, environment = target.runtime, {"OMP_NUM_THREADS": "1"}
    if runtime.needs_edgecheck:
        return Service(runtime.runner, environment=environment)
    return Service.sent(runtime.runner, environment)
