"""A service that builds and inspects a file, and tells which modules of edgecheck that loaded."""

from __future__ import annotations

import importlib
import sys
from typing import Any


class LoadedModules:
    """Runs in a child process, as builders do."""

    def of_build(self, *, builder: str, request: dict[str, Any]) -> list[str]:
        """Names of modules; packages are left out, since importing one inside loads them."""
        before = set(sys.modules)
        module, _, name = builder.partition(":")
        tools = getattr(importlib.import_module(module), name)()
        tools.build(**request)
        tools.inspect(path=request["output"])
        return [
            name
            for name, loaded in list(sys.modules.items())
            if name.startswith("edgecheck.") and name not in before
            if not hasattr(loaded, "__path__")
        ]
