"""The command line beside pytest: past runs, reports, the artifact cache.

Each command is a module in `edgecheck.commands`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from edgecheck import __version__
from edgecheck.commands import cache, compare, doctor, explain, history, merge, report
from edgecheck.errors import EdgecheckError
from edgecheck.plain import plain

_SHELLS = ("bash", "zsh", "tcsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, what a command says, or 2 for wrong usage."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        return 0
    except (EdgecheckError, OSError) as error:
        print(f"edgecheck: {plain(str(error))}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="edgecheck",
        description="Companion of the pytest plugin edgecheck. Models are judged by pytest: "
        "pytest suites --edge-targets=ort,tflite",
    )
    parser.add_argument("--version", action="version", version=f"edgecheck {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (doctor, explain, compare, history, report, merge, cache):
        module.add(commands)
    schema = commands.add_parser("schema", help="print the JSON Schema of --edge-json")
    schema.set_defaults(run=_print_schema)
    completion = commands.add_parser(
        "completion", help="print a shell's completion: source <(edgecheck completion bash)"
    )
    completion.add_argument("shell", choices=_SHELLS)
    completion.set_defaults(run=_print_completion)
    return parser


def _print_schema(options: argparse.Namespace) -> int:
    from edgecheck.history.report_file import schema_text

    print(schema_text(), end="")
    return 0


def _print_completion(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(build_parser(), options.shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
