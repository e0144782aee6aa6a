"""What a model says of its targets, held against what they know."""

from __future__ import annotations

from edgecheck.declare.model import Model
from edgecheck.errors import DeclarationError
from edgecheck.names import resolve
from edgecheck.targets.common import keep_float
from edgecheck.targets.registry import all_targets


def check_target_options(model: Model) -> None:
    """Hold a model's options against what its targets know.

    Raises:
        EdgecheckError: there is no such target or option, or a value does not fit.
    """
    for name, given in model.target_options.items():
        target = all_targets()[resolve(name, all_targets(), "target")]
        for option in given:
            resolve(option, target.options.defaults, f"option of {name}")
        if problem := target.options.problem({**target.options.defaults, **given}):
            raise DeclarationError(f"target_options of {name}: {problem}")
        for key in given.get(keep_float.OPTION, {}):
            if variant := key.rpartition("/")[0]:
                resolve(variant, model.variants, f"variant in {keep_float.OPTION} of {name}")
