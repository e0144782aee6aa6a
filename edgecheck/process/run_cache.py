"""Doing each thing once a run, whichever of its processes comes first.

Results are plain data kept in the run's scratch directory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from edgecheck.digests import digest_of
from edgecheck.errors import ArtifactError, ChildError, DataError, EdgecheckError

_KINDS: dict[str, type[EdgecheckError]] = {
    kind.__name__: kind for kind in (ArtifactError, DataError)
}


class Once:
    """Memory of a run, shared by its processes.

    Args:
        scratch: the run's directory.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._known: dict[str, dict[str, Any]] = {}
        for name in ("once", "locks"):
            (scratch / name).mkdir(parents=True, exist_ok=True)

    def __call__(self, what: str, produce: Callable[[Path], Any]) -> Any:
        """The plain result of `produce`, made once in this run by whichever process comes first.

        A failure is remembered too: what failed for one check is not tried again for the next.
        """
        if what not in self._known:
            self._known[what] = self._find_or_make(what, produce)
        outcome = self._known[what]
        if "error" in outcome:
            if outcome["type"] == "ChildError":
                raise ChildError(
                    outcome["error"], kind=outcome["kind"], log_tail=outcome["log_tail"]
                )
            raise _KINDS.get(outcome["type"], EdgecheckError)(outcome["error"])
        return outcome["value"]

    def _find_or_make(self, what: str, produce: Callable[[Path], Any]) -> dict[str, Any]:
        key = digest_of({"what": what})[:40]
        folder = self._scratch / "once" / key
        result = folder / "result.json"
        with FileLock(self._scratch / "locks" / f"{key}.lock"):
            if not result.is_file():
                folder.mkdir(exist_ok=True)
                try:
                    outcome = {"what": what, "value": produce(folder)}
                except EdgecheckError as error:
                    outcome = {
                        "what": what,
                        "error": str(error),
                        "type": type(error).__name__,
                        "kind": getattr(error, "kind", ""),
                        "log_tail": getattr(error, "log_tail", ""),
                    }
                partial = folder / "result.partial"
                partial.write_text(json.dumps(outcome))
                partial.rename(result)
            found: dict[str, Any] = json.loads(result.read_text())
            return found
