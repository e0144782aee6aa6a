"""Sending callables of the user's to the child process that runs them."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from pathlib import Path
from typing import Any

import cloudpickle

from edgecheck.errors import EdgecheckError


def pack(value: Any, *functions: Any) -> bytes:
    """A callable of the user's, or data with callables in it, as bytes for the child.

    Functions travel by name where the child can import their module, else by value.

    Args:
        functions: the callables inside `value`, where it is not one itself.

    Raises:
        EdgecheckError: it can't be sent.
    """
    modules = {
        module.__name__: module
        for function in functions or (value,)
        if (module := sys.modules.get(getattr(function, "__module__", None) or "")) is not None
        and module.__name__ != "__main__"
        and not _importable(module)
    }
    for module in modules.values():
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        name = getattr(value, "__qualname__", repr(value))
        raise EdgecheckError(
            f"{name} can't be sent to a child process ({error}): make it a function of a module"
        ) from error
    finally:
        for module in modules.values():
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: Any) -> bool:
    """Whether another process with this one's ``sys.path`` finds the same module by its name."""
    name = module.__name__
    try:
        # `find_spec` would answer from sys.modules; the parent's path is what the child has.
        parent, _, _ = name.rpartition(".")
        path = importlib.import_module(parent).__path__ if parent else None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
    except (ImportError, AttributeError, ValueError):
        return False
    file = getattr(module, "__file__", None)
    if spec is None or spec.origin is None:
        return name in sys.builtin_module_names
    return file is not None and Path(spec.origin).resolve() == Path(file).resolve()
