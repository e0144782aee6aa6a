"""Where a candidate departs from its reference: the first layer whose error jumps.

Both are run on the same few inputs with their intermediate tensors kept (`reference`, the
`candidate_*` modules), the tensors are paired by their values (`matching`), and the first operator
whose inputs agree and whose output does not is named (`judgement`). `locate` ties it together, and
`telling` puts it into words.
"""

from __future__ import annotations

from edgecheck.localization.locate import Localization, localize, unavailable

__all__ = ["Localization", "localize", "unavailable"]
