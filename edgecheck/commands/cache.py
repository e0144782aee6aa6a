"""``edgecheck cache``: look at the artifact cache."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

from edgecheck.build.artifact_cache import Store
from edgecheck.errors import EdgecheckError
from edgecheck.units import format_bytes, parse_quantity

DEFAULT_CACHE = Path(".edgecheck/cache")


def add(commands: Any) -> None:
    """Add the parser."""
    cache = commands.add_parser("cache", help="list, prune or clear the artifact cache")
    actions = cache.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the entries, the least recently used first")
    listing.set_defaults(run=_list)
    prune = actions.add_parser("prune", help="remove the least recently used beyond a size")
    prune.add_argument("size", help='what may stay, as in "2 GB"')
    prune.set_defaults(run=_prune)
    clear = actions.add_parser("clear", help="remove all entries")
    clear.set_defaults(run=_clear)
    for action in (listing, prune, clear):
        action.add_argument(
            "--edge-cache",
            type=Path,
            default=DEFAULT_CACHE,
            metavar="DIR",
            help=f"the cache directory (default: {DEFAULT_CACHE})",
        )


def _store(options: argparse.Namespace) -> Store:
    if not options.edge_cache.is_dir():
        raise EdgecheckError(
            f"there is no cache at {options.edge_cache}: name it with --edge-cache DIR"
        )
    return Store(options.edge_cache, options.edge_cache)


def _list(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    entries = _store(options).entries()
    table = Table(box=None, pad_edge=False)
    for title in ("key", "what", "size", "built in", "last used"):
        table.add_column(title, no_wrap=title != "what")
    for entry in entries:
        used = datetime.datetime.fromtimestamp(entry.used_at).isoformat(" ", "minutes")
        table.add_row(
            entry.key[:12],
            Text(entry.label),
            format_bytes(entry.size_bytes),
            f"{entry.build_s:.1f} s",
            used,
        )
    console = Console()
    console.print(table)
    total = sum(entry.size_bytes for entry in entries)
    console.print(f"{len(entries)} entries, {format_bytes(total)}", highlight=False)
    return 0


def _prune(options: argparse.Namespace) -> int:
    return _remove(options, int(parse_quantity(options.size, "bytes")))


def _clear(options: argparse.Namespace) -> int:
    return _remove(options, 0)


def _remove(options: argparse.Namespace, limit_bytes: int) -> int:
    removed = _store(options).prune(limit_bytes)
    freed = format_bytes(sum(entry.size_bytes for entry in removed))
    print(f"removed {len(removed)} entries, {freed}")
    return 0
