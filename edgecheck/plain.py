"""Text of others, made fit to be shown: names in model files and reports, words of libraries.

Control characters can rewrite what a terminal shows, and a CI takes certain words in a log for
commands. Both are shown as the characters that they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# GitHub's workflow commands (docs.github.com, "Workflow commands for GitHub Actions"), which its
# runner also finds behind blanks, and those of Azure Pipelines and TeamCity. Not all that follows
# "::" is one: names of operators have it.
_COMMANDS = re.compile(
    r"::(?=(?:error|warning|notice|debug|group|endgroup|echo|stop-commands|add-mask|set-output"
    r"|save-state|set-env|add-path|add-matcher|remove-matcher)(?: |::))"
    r"|##(?=\[|vso\[|teamcity\[)",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """Text without control characters, but for tabs and ends of lines, and without CI's commands.

    What is not printable (Unicode categories "other" and "separator", as `str.isprintable` has it)
    is written as Python does it: ``\\x1b``. So the text is also valid XML.
    """
    if not text.isprintable():
        text = "".join(
            letter
            if letter.isprintable() or letter in "\t\n"
            else letter.encode("unicode_escape").decode()
            for letter in text
        )
    return _COMMANDS.sub(lambda found: " ".join(found[0]), text)


def plain_data(value: Any) -> Any:
    """Plain data with all its text, names included, made so."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {
            plain(name) if isinstance(name, str) else name: plain_data(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [plain_data(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain_data(item) for item in value)
    return value
