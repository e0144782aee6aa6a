"""What runs in a child process: receive a service class, then answer calls to its methods.

The source of this module is sent over an execnet channel, so it uses the standard library only and
imports nothing of edgecheck.

Protocol, all messages plain data: first the set-up (see `serve`), then ``(method, arguments)`` per
call, each answered by ``("ok", result)`` or ``("raised", one-line message)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import traceback
import types
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


def serve(channel: Any) -> None:
    """Answer calls until the channel closes.

    The set-up is a dict: ``parent`` (process id), ``log`` (file that stdout and stderr go to),
    ``environment``, ``sys_path``, ``cwd``, ``modules`` (sources by module name, for a far end
    without edgecheck) and ``service`` (``"module:Class"``).
    """
    setup = channel.receive()
    _redirect_output(setup["log"])
    _detach(setup["parent"])
    os.environ.update(setup["environment"])
    sys.path[:] = setup["sys_path"] or sys.path
    if setup["cwd"]:
        os.chdir(setup["cwd"])
    try:
        for name, source in setup["modules"].items():
            _define_module(name, source)
        module_name, class_name = setup["service"].split(":")
        service = getattr(importlib.import_module(module_name), class_name)()
    except BaseException as error:
        traceback.print_exc()
        channel.send(("raised", one_line(error)))
        return
    channel.send(("ok", os.getpid()))
    for method, arguments in channel:
        try:
            reply = ("ok", getattr(service, method)(**arguments))
        # SystemExit too: a converter that calls sys.exit() must not end the child silently.
        except BaseException as error:
            # A message that is the whole story is not told again.
            if not getattr(error, "stands_alone", False) or error.__cause__ is not None:
                traceback.print_exc()
            reply = ("raised", one_line(error))
        sys.stdout.flush()
        sys.stderr.flush()
        channel.send(reply)


def one_line(error: BaseException) -> str:
    """An exception as one line: its type, unless the message stands alone, and first sentence."""
    text = " ".join(str(error).split())
    if len(text) > 500:
        text = text[:500] + " ..."
    name = type(error).__name__
    if getattr(error, "stands_alone", False):
        return text
    return f"{name}: {text}" if text else name


def _redirect_output(log: str) -> None:
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)


def _detach(parent: int) -> None:
    """A process group of its own, to be ended with all its children, and last in line for memory.

    Ctrl-C reaches only the parent, which ends this group in order.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that call: no signal will come
            os._exit(1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
            score.write("1000")


def _define_module(name: str, source: str) -> None:
    """Make a module importable from its source, with empty packages above it."""
    parents = name.split(".")[:-1]
    for depth in range(1, len(parents) + 1):
        package = ".".join(parents[:depth])
        if package not in sys.modules:
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = []
    module = types.ModuleType(name)
    module.__file__ = f"<{name}>"
    sys.modules[name] = module
    exec(compile(source, module.__file__, "exec"), module.__dict__)


if __name__ == "__channelexec__":
    serve(channel)  # type: ignore[name-defined]  # noqa: F821  # execnet provides it
