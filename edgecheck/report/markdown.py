"""GitHub-flavoured Markdown from untrusted text: escaping, code, tables."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# CommonMark 0.31 (emphasis, code, links, escapes), GFM 0.29 (tables, strikethrough), GitHub's
# mathematics ($); all of them may follow a backslash.
_MARKUP = re.compile(r"([\\`*_\[\]|~#$])")
# What makes a list or a heading of a line's beginning.
_LEADING = re.compile(r"^(|\d+(?=[.)](?: |$)))([-+=.)])")
# GitHub notifies whoever is mentioned; an address's @ follows a letter.
_MENTION = re.compile(r"(?<!\w)@(?=\w)")
LONGEST = 500


def escape(text: object, longest: int = LONGEST) -> str:
    """Text that shows as it is, in one line, within a paragraph, a list item or a table's cell.

    Args:
        longest: characters after which it is cut.
    """
    plain = "".join(item if item.isprintable() else " " for item in str(text))
    line = " ".join(plain.split())
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    line = _LEADING.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", line))
    # A zero-width space, written as an entity: invisible, and no mention.
    return _MENTION.sub("@&#8203;", html.escape(line, quote=False))


def code(text: object) -> str:
    """The same in a typewriter face; unlike backticks, also right in a table's cell."""
    shown = escape(text)
    return f"<code>{shown}</code>" if shown else ""


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, of cells that are escaped already."""
    return [
        f"| {' | '.join(titles)} |",
        f"|{'---|' * len(titles)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def counted(items: Sequence[str], most: int) -> list[str]:
    """As many items as are worth reading, and how many more there are."""
    left = len(items) - most
    return [*items[:most], f"and {left} more"] if left > 0 else list(items)
