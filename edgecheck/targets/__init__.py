"""The targets: one folder each, all with the same file names.

`__init__` declares the target and imports nothing heavy; `build` writes its files; `inspection`
says what is in one; `run` loads and runs it, and is sent to where that happens; `trace` shows its
intermediate tensors. `common` has what several targets share, `base` what a declaration consists
of, and `registry` finds the targets.
"""

from __future__ import annotations

from pathlib import Path

# The one folder that is not a target.
_SHARED = "common"


def built_in_names() -> list[str]:
    """Names of edgecheck's own targets, from their folders: none of them is imported."""
    return sorted(
        folder.name.replace("_", "-")
        for folder in Path(__file__).parent.iterdir()
        if folder.name != _SHARED and (folder / "__init__.py").is_file()
    )
