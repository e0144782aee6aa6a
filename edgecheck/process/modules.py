"""Which modules a module imports, read from their sources: for sending them, and for cache keys."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def imported_modules(module: str) -> tuple[str, ...]:
    """A module and all that it imports of edgecheck and of its own package, dependencies first.

    Imports inside functions count; those under ``if TYPE_CHECKING`` don't.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    packages = frozenset({module.split(".")[0], "edgecheck"})
    entered: set[str] = set()
    order: list[str] = []

    def visit(name: str) -> None:
        entered.add(name)
        for other in _imports(name, packages):
            if other not in entered:
                visit(other)
        order.append(name)

    visit(module)
    return tuple(order)


def module_source(module: str) -> str:
    """A module's source, without importing it here.

    Raises:
        ModuleNotFoundError: there is no such module, or it has no source.
    """
    return _origin(module).read_text(encoding="utf-8")


@cache
def _imports(module: str, packages: frozenset[str]) -> tuple[str, ...]:
    """The modules of some packages that a module's source imports by name."""
    path = _origin(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: dict[str, None] = {}
    for node in _executed(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(dict.fromkeys(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            if base.split(".")[0] not in packages:
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                names[inner if _is_module(inner) else base] = None
    return tuple(name for name in names if name.split(".")[0] in packages and _is_module(name))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        typing_only = (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        )
        if not typing_only:
            yield child
            yield from _executed(child)


@cache
def _is_module(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return False
    return spec is not None and spec.origin is not None and spec.origin.endswith(".py")


def _origin(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ModuleNotFoundError(f"there is no source of a module {module}")
    return Path(spec.origin)
