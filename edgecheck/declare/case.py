"""Cases: one model on one target at one precision, and how the matrix expands and is selected.

Pure.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgecheck.declare.budget import DEFAULTS, WIDE_HALF_SUMS, Budget
from edgecheck.declare.device_classes import DeviceClass
from edgecheck.declare.limits import Limit
from edgecheck.declare.model import (
    Artifact,
    ArtifactKey,
    Model,
    Source,
    artifact_key,
    as_artifact,
    source_kind,
)
from edgecheck.names import CALIBRATED, CHECKS, PRECISIONS
from edgecheck.targets.base import Target


@dataclass(frozen=True)
class Case:
    """One candidate: a model, or a variant of it, on one target at one precision.

    Attributes:
        model_name: what reports call the model.
        variant: the variant's name, or "" for the model itself.
        unsupported: why the target can't have the precision that was asked for, or "".
        trial: what tells it from the declared candidate, where something is tried with it.
    """

    model_name: str
    variant: str
    target: Target
    precision: str
    model: Model = field(repr=False)
    budget: Budget = field(repr=False)
    profile: DeviceClass | None = field(default=None, repr=False)
    unsupported: str = ""
    trial: str = ""

    @property
    def id(self) -> str:
        """The stable id in pytest's brackets."""
        words = (self.variant, self.target.name, self.precision)
        return "-".join(word for word in words if word)

    @property
    def candidate(self) -> str:
        """The stable name of what is judged: model, variant, target and precision."""
        name = f"{self.model_name}:{self.variant}" if self.variant else self.model_name
        trial = f" {self.trial}" if self.trial else ""
        return f"{name}/{self.target.name}/{self.precision}{trial}"

    @property
    def artifact(self) -> Artifact | None:
        """The file that the user brought, if this case judges one."""
        return None if self.variant else find_artifact(self.model, self.target.name, self.precision)

    @property
    def baseline(self) -> Artifact | None:
        """The file of the last release, if one is declared."""
        return (
            None if self.variant else _find(self.model.baselines, self.target.name, self.precision)
        )

    @property
    def options(self) -> dict[str, Any]:
        """The target's options: its defaults, and what the model says."""
        return {
            **self.target.options.defaults,
            **self.model.target_options.get(self.target.name, {}),
        }

    def limits(self, output: str = "", part: str = "") -> dict[str, Limit]:
        """The limits by name; those of one output, or of a part of it, where it is named."""
        profile = self.profile.name if self.profile else ""
        words = {self.target.name, self.precision, self.variant, output, part, profile} - {""}
        if self.target.runtime.wide_half_sums:
            words.add(WIDE_HALF_SUMS)
        return limits_for(self.precision, frozenset(words), self.budget, self.profile)


@dataclass(frozen=True)
class Selection:
    """What the command line selects.

    Attributes:
        targets: those to run, in order.
        required: whether the targets were named, so that each of their cases must be checked.
        precisions: those named, or None for all that each target and model has.
        models: globs over model names, matched against ``model`` and ``model:variant``.
        checks: those to make.
        profile: of ``--edge-profile``, or None.
    """

    targets: tuple[Target, ...]
    required: bool = False
    precisions: tuple[str, ...] | None = None
    models: tuple[str, ...] = ()
    checks: tuple[str, ...] = CHECKS
    profile: DeviceClass | None = None


@dataclass(frozen=True)
class Absence:
    """Something that a reader may expect and that has no case.

    Attributes:
        subject: the model, or the candidate.
        what: the check or precision that is absent.
        reason: why, and what would bring it.
    """

    subject: str
    what: str
    reason: str


@dataclass(frozen=True)
class Matrix:
    """The cases of one model, and what has none for lack of data."""

    cases: tuple[Case, ...]
    absences: tuple[Absence, ...]


def expand(name: str, model: Model, budget: Budget, selection: Selection) -> Matrix:
    """The cases of a model under a selection."""
    cases: list[Case] = []
    absences: list[Absence] = []
    for target in selection.targets:
        for variant in ("", *sorted(model.variants)):
            label = f"{name}:{variant}" if variant else name
            if selection.models and not any(
                fnmatch.fnmatchcase(label, glob) for glob in selection.models
            ):
                continue
            for precision in _precisions(model, target, selection):
                unsupported = _unsupported(target, precision, selection)
                reason = "" if unsupported else _lacks_data(model, target, variant, precision)
                if reason:
                    absences.append(Absence(f"{label}/{target.name}", precision, reason))
                    continue
                cases.append(
                    Case(
                        name,
                        variant,
                        target,
                        precision,
                        model,
                        budget,
                        selection.profile,
                        unsupported,
                    )
                )
    if cases and model.evaluation is None and "accuracy" in selection.checks:
        absences.append(
            Absence(name, "accuracy", "no evaluation data: pass evaluation= to the Model")
        )
    return Matrix(tuple(cases), tuple(absences))


def _precisions(model: Model, target: Target, selection: Selection) -> Sequence[str]:
    """The precisions of interest for a target, whether they can be built or not."""
    shipped = shipped_precisions(model, target)
    if selection.precisions is not None:
        asked = [item for item in selection.precisions if item in shipped]
        # What the runtime does not have at all is an error where it was asked for by name.
        absent = [item for item in selection.precisions if item not in target.build.precisions]
        return list(dict.fromkeys([*asked, *absent]))
    allowed = selection.profile.precisions if selection.profile else None
    return [item for item in shipped if allowed is None or item in allowed]


def shipped_precisions(model: Model, target: Target) -> list[str]:
    """The precisions that a model ships to a target, in the order of reports."""
    if model.targets is not None:
        wanted: Iterable[str] = model.targets.get(target.name, ())
    elif model.artifacts or model.builders:
        keys = [artifact_key(key) for key in (*model.artifacts, *model.builders)]
        wanted = [precision for name, precision in keys if name == target.name]
    else:
        wanted = tuple(target.build.precisions)
    return [item for item in PRECISIONS if item in set(wanted)]


def _unsupported(target: Target, precision: str, selection: Selection) -> str:
    if precision not in target.build.precisions:
        return f"{target.name} has no {precision}; it has {', '.join(target.build.precisions)}"
    profile = selection.profile
    if profile and profile.precisions is not None and precision not in profile.precisions:
        return f"a {profile.name} device runs {', '.join(profile.precisions)} only, not {precision}"
    return ""


def _lacks_data(model: Model, target: Target, variant: str, precision: str) -> str:
    """Why a precision can't be made of what the model declares, or ""."""
    names = (target.name, *filter(None, [target.files.shared_with]))
    if not variant and any(brought(model, name, precision) for name in names):
        return ""
    if precision == "int8-qat":
        qat = model.qat_source(target.name)
        if variant or qat is None:
            return "no QAT-converted program: pass qat= to the Model"
        return _lacks_route(target, precision, qat)
    if precision in CALIBRATED and model.calibration is None:
        return "no calibration data: pass calibration= to the Model"
    source = model.variants[variant] if variant else model.source
    made_from = target.build.precisions[precision]
    maker = target.float_file_of(made_from)
    if made_from != "float" and maker:
        names = (maker,)
    if made_from != "torch" and not variant and any(brought(model, n, "fp32") for n in names):
        return ""
    if source is None:
        return f"no source to build it from, and no artifact ({target.name!r}, {precision!r})"
    return _lacks_route(target, precision, source)


def _lacks_route(target: Target, precision: str, source: Source) -> str:
    kind = source_kind(source)
    # What a callable returns is not known before it is called.
    if not kind or target.made_from(precision, kind):
        return ""
    return target.no_route(precision, kind)


def brought(model: Model, target: str, precision: str) -> bool:
    """Whether the user brings the file, or the code that writes it."""
    return bool(find_artifact(model, target, precision) or find_builder(model, target, precision))


def find_artifact(model: Model, target: str, precision: str) -> Artifact | None:
    """The artifact that the user declared for a target and precision."""
    return _find(model.artifacts, target, precision)


def _find(
    artifacts: Mapping[ArtifactKey, Artifact | str | os.PathLike[str]], target: str, precision: str
) -> Artifact | None:
    for key, artifact in artifacts.items():
        if artifact_key(key) == (target, precision):
            return as_artifact(artifact)
    return None


def find_builder(model: Model, target: str, precision: str) -> object | None:
    """The builder that the user declared for a target and precision."""
    for key, builder in model.builders.items():
        if artifact_key(key) == (target, precision):
            return builder
    return None


def limits_for(
    precision: str, words: frozenset[str], budget: Budget, profile: DeviceClass | None
) -> dict[str, Limit]:
    """The limits by name for a case of a precision.

    What the budget states replaces the default; a profile's limit holds besides, and the
    stricter of the two counts.
    """
    limits = DEFAULTS[precision].select(words, "default") if precision in DEFAULTS else {}
    limits |= budget.select(words, "budget")
    if profile is not None:
        for name, limit in profile.budget.select(words, f"profile {profile.name}").items():
            stated = limits.get(name)
            if stated is None or not limit.allows(stated.value):
                limits[name] = limit
    return limits
