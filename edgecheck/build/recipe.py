"""What decides a build besides the program: the sources it runs, and the versions of its tools.

The sources are the modules that the builder imports, and those that these import in turn, as far as
they belong to edgecheck or to the builder's own package: an edit of any of them makes a new file,
and an edit elsewhere does not.
"""

from __future__ import annotations

import hashlib

from edgecheck.process.modules import imported_modules, module_source
from edgecheck.targets.base import Target, versions


def recipe(target: Target) -> dict[str, str]:
    """The recipe of a target's files, for cache keys."""
    digest = hashlib.sha256()
    for module in imported_modules(target.build.builder.split(":")[0]):
        digest.update(f"{module}\0{module_source(module)}\0".encode())
    return {"recipe": digest.hexdigest(), **versions(target.build.distributions)}
