"""Which of a model's sources a candidate is built from.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
import numpy as np
from edgecheck.capture import data
from edgecheck.declare.case import Case
from edgecheck.declare.case import brought
from edgecheck.declare.case import find_builder
from edgecheck.errors import ArtifactError
from edgecheck.declare.model import Artifact
from edgecheck.declare.model import Model
from edgecheck.declare.model import Source
from edgecheck.names import CALIBRATED
from edgecheck.process.run_cache import Once
from edgecheck.process.parent import Child
from edgecheck.process.parent import Pool
from edgecheck.process.parent import Service
from edgecheck.capture.client import Sources
from edgecheck.capture.client import dimension_ranges
from edgecheck.capture.client import existing
from edgecheck.build.artifact_cache import Store
from edgecheck.build.recipe import recipe
from edgecheck.digests import digest_of
from edgecheck.digests import file_sha256
from edgecheck.targets.base import Inspection, Target
from edgecheck.targets.registry import find_target
from edgecheck.targets.common import keep_float
from edgecheck.targets.registry import find_target

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
