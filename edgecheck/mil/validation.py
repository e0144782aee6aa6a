"""What is looked at before a function runs: that all of its operators are known and whole."""

from __future__ import annotations

from collections.abc import Container

from edgecheck.mil.call import UnsupportedError
from edgecheck.mil.program import Block, Operation, ProgramError


def refuse_unknown(block: Block, known: Container[str]) -> None:
    """Look at all operators, those of nested blocks too.

    Raises:
        UnsupportedError: if there are others than the known ones; it names each once.
    """
    unknown: dict[str, str] = {}
    for operation in block.walk():
        if operation.operator not in known:
            unknown.setdefault(operation.operator, operation.name)
    if unknown:
        named = ", ".join(f"{operator} ({name!r})" for operator, name in sorted(unknown.items()))
        raise UnsupportedError(f"operators that the reference executor does not know: {named}")


def refuse_malformed(block: Block) -> None:
    """Look at constants and control flow, which have no handler that would.

    Raises:
        ProgramError: if a part is missing or too many; it names the operation.
    """
    for operation in block.walk():
        if not _PARTS.get(operation.operator, _nothing)(operation):
            raise ProgramError(
                f"operation {operation.name!r} ({operation.operator}) is malformed: its inputs, "
                "blocks and outputs do not fit together"
            )


def _nothing(operation: Operation) -> bool:
    return not operation.blocks


def _const(operation: Operation) -> bool:
    return "val" in operation.attributes and len(operation.outputs) == 1


def _cond(operation: Operation) -> bool:
    return (
        len(operation.inputs.get("pred", ())) == 1
        and len(operation.blocks) == 2
        and all(len(each.outputs) == len(operation.outputs) for each in operation.blocks)
        and not any(each.inputs for each in operation.blocks)
    )


def _while_loop(operation: Operation) -> bool:
    if len(operation.blocks) != 2:
        return False
    condition, body = operation.blocks
    count = len(operation.inputs.get("loop_vars", ()))
    counts = {len(each) for each in (condition.inputs, body.inputs, body.outputs)}
    return counts == {count} == {len(operation.outputs)} and len(condition.outputs) == 1


_PARTS = {"const": _const, "cond": _cond, "while_loop": _while_loop}
