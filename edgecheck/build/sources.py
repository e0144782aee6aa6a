"""Which of a model's sources a candidate is built from."""

from __future__ import annotations

from collections.abc import Mapping

from edgecheck.declare.case import Case
from edgecheck.declare.model import Source
from edgecheck.errors import ArtifactError


def own_source(case: Case) -> tuple[str, Source]:
    """Name and source of the candidate itself."""
    source = case.model.variants[case.variant] if case.variant else case.model.source
    if source is None:
        raise ArtifactError(f"{case.model_name} has no source to build from")
    return f"{case.model_name}:{case.variant}", source


def program_source(case: Case) -> tuple[str, Source]:
    """Name and source of the program that the candidate is built from."""
    if case.precision != "int8-qat":
        return own_source(case)
    source = case.model.qat_source(case.target.name)
    assert source is not None
    return qat_name(case), source


def qat_name(case: Case) -> str:
    """Name of the QAT-converted program: one for all targets, or one for each."""
    each = isinstance(case.model.qat, Mapping)
    return f"{case.model_name} qat {case.target.name}" if each else f"{case.model_name} qat"
