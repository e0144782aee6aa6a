"""This machine as a device: drivers run in child processes, arrays travel as .npy files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecheck.binding import Binding
from edgecheck.errors import ChildError
from edgecheck.process import Child, Pool, Service
from edgecheck.targets import Target

# One thread: the steadiest timing, and the same outputs whatever else the machine does.
THREADS = 1


class Session:
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
        self._child.call("bind", timeout_s=self._timeout_s, binding=binding.for_driver())
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

    def placement(self, feed: Mapping[str, str]) -> dict[str, Any]:
        """Where operators run."""
        found: dict[str, Any] = self._child.call(
            "placement", timeout_s=self._timeout_s, feed=dict(feed)
        )
        return found

    def measure_latency(
        self, feed: Mapping[str, str], *, warmup: int, runs: int, limit_s: float
    ) -> list[int]:
        """Wall times of single inferences in nanoseconds."""
        samples: list[int] = self._child.call(
            "measure_latency",
            timeout_s=self._timeout_s,
            feed=dict(feed),
            warmup=warmup,
            runs=runs,
            limit_s=limit_s,
        )
        return samples


class LocalDevice:
    """This machine.

    Args:
        pool: holds the driver processes; runs of one file share one.
    """

    def __init__(self, pool: Pool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._sessions: dict[str, Session] = {}

    def open(self, key: str, target: Target, path: Path, *, optimize: bool = True) -> Session:
        """A session with the file loaded, the same one for the same key while its process lives.

        Raises:
            ChildError: the runtime refuses the file, or crashes on it.
        """
        session = self._sessions.get(key)
        child, fresh = self._pool.get(f"device:{key}", _driver_service(target))
        if session is not None and session.alive and not fresh:
            return session
        options = {"threads": THREADS, "optimize": optimize}
        try:
            info = child.call("load", timeout_s=self._timeout_s, path=str(path), options=options)
        except ChildError as error:
            raise ChildError(
                f"{target.title} can't load {path.name}: {error}",
                kind=error.kind,
                log_tail=error.log_tail,
            ) from error
        session = Session(child, info, self._timeout_s)
        self._sessions[key] = session
        return session

    def measure_memory(
        self, target: Target, path: Path, binding: Binding, feed: Mapping[str, str], runs: int
    ) -> dict[str, int]:
        """Memory of loading and running in a fresh process, in bytes."""
        with self._pool.once(_driver_service(target)) as child:
            measured: dict[str, int] = child.call(
                "measure_memory",
                timeout_s=self._timeout_s,
                path=str(path),
                options={"threads": THREADS},
                binding=binding.for_driver(),
                feed=dict(feed),
                runs=runs,
            )
        return measured


def _driver_service(target: Target) -> Service:
    return Service(target.driver, modules=target.drivers, environment={"OMP_NUM_THREADS": "1"})
