"""Child processes: every build and every run happens in one, through execnet.

A crash, a hang, a chatty library or one out of memory ends the child, never the session. What
the children do is a service class: a builder, a runner, the worker with the user's code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import execnet

from edgecheck.errors import ChildError
from edgecheck.process import child
from edgecheck.process.modules import imported_modules, module_source

LOG_TAIL_BYTES = 4000
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Service:
    """What a child runs.

    Attributes:
        name: ``"module:Class"``; the class takes no arguments, its public methods take and return
            plain data.
        modules: names of modules whose source is sent over, for children without edgecheck; empty
            for children that share this process's import path.
        environment: variables to set before the class is imported.
    """

    name: str
    modules: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def sent(cls, name: str, environment: Mapping[str, str] = MappingProxyType({})) -> Service:
        """A service whose source is sent over, with that of the modules that it imports."""
        return cls(name, imported_modules(name.split(":")[0]), dict(environment))


class Child:
    """One child process that runs a service. Not safe for concurrent calls.

    Args:
        service: what it runs.
        log_directory: where the file with its output goes.

    It starts in the background; the first call waits until it has (see `ready`).
    """

    def __init__(self, service: Service, log_directory: Path) -> None:
        descriptor, name = tempfile.mkstemp(suffix=".log", dir=log_directory)
        os.close(descriptor)
        self._log = Path(name)
        self._mark = 0
        # A group of its own: execnet's default group would end all children at exit, in turn.
        self._group = execnet.Group()
        self._gateway = self._group.makegateway(f"popen//python={sys.executable}")
        self._process = self._gateway._io.popen
        self._channel = self._gateway.remote_exec(child)
        self._channel.send(
            {
                "parent": os.getpid(),
                "log": name,
                "environment": dict(service.environment),
                "sys_path": [] if service.modules else [str(Path.cwd()), *filter(None, sys.path)],
                "cwd": "" if service.modules else str(Path.cwd()),
                "modules": {name: module_source(name) for name in service.modules},
                "service": service.name,
            }
        )
        self._starting = f"start {service.name}"

    def ready(self) -> None:
        """Wait until the service has started.

        Raises:
            ChildError: it could not.
        """
        if self._starting:
            what, self._starting = self._starting, ""
            self._receive(what, _START_TIMEOUT_S)

    @property
    def alive(self) -> bool:
        """Whether calls can still be made."""
        return not self._channel.isclosed() and self._process.poll() is None

    def call(self, method: str, *, timeout_s: float, **arguments: Any) -> Any:
        """Call a method of the service and return its result.

        Raises:
            ChildError: it raised (the child lives on), crashed or ran out of time (it is ended).
        """
        self.ready()
        self._mark = self._log.stat().st_size
        try:
            self._channel.send((method, arguments))
        except OSError:
            raise self._died(method) from None
        return self._receive(method, timeout_s)

    def _receive(self, what: str, timeout_s: float) -> Any:
        try:
            status, result = self._channel.receive(timeout_s)
        except self._channel.TimeoutError:
            self.kill()
            raise ChildError(
                f"{what} took longer than the limit of {timeout_s:g} s and was ended "
                "(raise it with --edge-timeout)",
                kind="timeout",
                log_tail=self.log_tail(),
            ) from None
        except EOFError:
            raise self._died(what) from None
        except BaseException:
            # Ctrl-C between question and answer: the next answer would be to the wrong question.
            self.kill()
            raise
        if status == "raised":
            raise ChildError(result, kind="raised", log_tail=self.log_tail())
        return result

    def _died(self, what: str) -> ChildError:
        with contextlib.suppress(Exception):
            self._process.wait(timeout=5)
        code = self._process.poll()
        self.kill()
        return ChildError(
            f"{what}: the process {_describe_exit(code)}", kind="crashed", log_tail=self.log_tail()
        )

    def log_tail(self) -> str:
        """The end of what the child printed since the last call began."""
        with self._log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(self._mark, log.tell() - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", errors="replace").strip()

    def kill(self) -> None:
        """End the child and every process that it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Only a group that the child made for itself: never the parent's own.
            if os.getpgid(self._process.pid) == self._process.pid:
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._process.kill()
        with contextlib.suppress(Exception):
            self._process.wait(timeout=5)
        self._group.terminate(timeout=1.0)

    close = kill

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"ended by itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"crashed with {name}{hint}"


def share_of_cores(sharers: int) -> dict[str, str]:
    """Environment that limits torch's threads in children to this worker's share of the cores.

    Nothing where it is alone, or the user has set a limit.

    Its threads spin while they wait: two processes of two threads each on two cores take up to a
    hundred times as long as two of one (small convolutions, libgomp).
    """
    if sharers == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // sharers))}


class Pool:
    """Warm children by key; the least recently used one is closed when there are too many.

    Args:
        log_directory: where the children's output goes.
        limit: how many children stay warm.
        spare: whether to start the next child of a service while the last one works, for services
            of which every key has a short-lived child of its own.
        environment: variables that all children get, besides those of their service.
    """

    def __init__(
        self,
        log_directory: Path,
        limit: int,
        *,
        spare: bool = False,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._log_directory = log_directory
        self._limit = limit
        self._keep_spare = spare
        self._environment = environment
        self._children: dict[str, Child] = {}
        self._spares: dict[str, Child] = {}

    def get(self, key: str, service: Service) -> tuple[Child, bool]:
        """The warm child for a key, and whether it was started anew (nothing is loaded in it).

        Raises:
            ChildError: it could not start.
        """
        child_process = self._children.pop(key, None)
        fresh = child_process is None or not child_process.alive
        if child_process is None or not child_process.alive:
            if child_process is not None:
                child_process.close()
            while len(self._children) >= self._limit:
                self._children.pop(next(iter(self._children))).close()
            child_process = self._start(service)
        self._children[key] = child_process
        return child_process, fresh

    def _start(self, service: Service, *, spare: bool = True) -> Child:
        child_process = self._spares.pop(service.name, None)
        if child_process is None or not child_process.alive:
            child_process = self._new(service)
        try:
            child_process.ready()
        except ChildError:
            child_process.close()
            raise
        if spare:
            self._start_spare(service)
        return child_process

    def _new(self, service: Service) -> Child:
        environment = {**self._environment, **service.environment}
        return Child(replace(service, environment=environment), self._log_directory)

    def _start_spare(self, service: Service) -> None:
        if self._keep_spare and service.name not in self._spares:
            self._spares[service.name] = self._new(service)

    @contextlib.contextmanager
    def once(self, service: Service, *, quiet: bool = False) -> Iterator[Child]:
        """A fresh child for one use; where it is to be quiet, no other one starts meanwhile."""
        child_process = self._start(service, spare=not quiet)
        try:
            if quiet:
                for spare in self._spares.values():
                    with contextlib.suppress(ChildError):
                        spare.ready()
            yield child_process
        finally:
            child_process.close()
            if quiet:
                self._start_spare(service)

    def close(self) -> None:
        """End all children."""
        for children in (self._children, self._spares):
            while children:
                children.popitem()[1].close()
