"""What several commands share: the option that names the history, and tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgecheck.plain import plain
from edgecheck.plugin.options import DEFAULT_HISTORY

_WIDTH = 100
RUN_HELP = "a JSON report, or of the history run:ID, tag:NAME or branch:NAME (its last that passed)"


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add ``--edge-history``."""
    parser.add_argument(
        "--edge-history",
        default=DEFAULT_HISTORY,
        metavar="URL",
        help=f"the history: an SQLite file or a postgresql:// URL (default: {DEFAULT_HISTORY})",
    )


def print_lines(lines: Sequence[str]) -> None:
    """Print ready lines."""
    print("\n".join(lines))


def is_terminal() -> bool:
    """Whether colours can be shown."""
    return sys.stdout.isatty()


def table_lines(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A plain table of at most 100 columns; the last column wraps."""
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=title != titles[-1])
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH, no_color=True).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def write_text(path: Path, text: str) -> None:
    """Write a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
