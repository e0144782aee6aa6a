"""The command line beside pytest: look at the artifact cache, print the report's schema.

Not for judging models: that is ``pytest`` with the plugin.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.resources
import sys
from collections.abc import Sequence
from pathlib import Path

from edgecheck import __version__
from edgecheck.errors import EdgecheckError
from edgecheck.store import Store
from edgecheck.units import format_bytes, parse_quantity

DEFAULT_CACHE = Path(".edgecheck/cache")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (EdgecheckError, OSError) as error:
        print(f"edgecheck: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgecheck",
        description="Companion of the pytest plugin edgecheck. Models are judged by pytest: "
        "pytest suites --edge-targets=ort,tflite",
    )
    parser.add_argument("--version", action="version", version=f"edgecheck {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    cache = commands.add_parser("cache", help="list, prune or clear the artifact cache")
    actions = cache.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the entries, the least recently used first")
    listing.set_defaults(run=_list_cache)
    prune = actions.add_parser("prune", help="remove the least recently used beyond a size")
    prune.add_argument("size", help='what may stay, as in "2 GB"')
    prune.set_defaults(run=_prune_cache)
    clear = actions.add_parser("clear", help="remove all entries")
    clear.set_defaults(run=_clear_cache)
    for action in (listing, prune, clear):
        action.add_argument(
            "--edge-cache",
            type=Path,
            default=DEFAULT_CACHE,
            metavar="DIR",
            help=f"the cache directory (default: {DEFAULT_CACHE})",
        )
    schema = commands.add_parser("schema", help="print the JSON Schema of --edge-json")
    schema.set_defaults(run=_print_schema)
    return parser


def _store(options: argparse.Namespace) -> Store:
    if not options.edge_cache.is_dir():
        raise EdgecheckError(
            f"there is no cache at {options.edge_cache}: name it with --edge-cache DIR"
        )
    return Store(options.edge_cache, options.edge_cache)


def _list_cache(options: argparse.Namespace) -> int:
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


def _prune_cache(options: argparse.Namespace) -> int:
    return _remove(options, int(parse_quantity(options.size, "bytes")))


def _clear_cache(options: argparse.Namespace) -> int:
    return _remove(options, 0)


def _remove(options: argparse.Namespace, limit_bytes: int) -> int:
    removed = _store(options).prune(limit_bytes)
    freed = format_bytes(sum(entry.size_bytes for entry in removed))
    print(f"removed {len(removed)} entries, {freed}")
    return 0


def _print_schema(options: argparse.Namespace) -> int:
    print(schema_text(), end="")
    return 0


def schema_text() -> str:
    """The JSON Schema of the report."""
    folder = importlib.resources.files("edgecheck.report")
    return (folder / "schema" / "report-1.schema.json").read_text(encoding="utf-8")
