"""The errors that edgecheck raises on purpose, each with a message a user can act on."""

from __future__ import annotations

from edgecheck.plain import plain


class EdgecheckError(Exception):
    """Base of every error that edgecheck raises on purpose."""

    def __str__(self) -> str:
        return plain(super().__str__())


class DeclarationError(EdgecheckError):
    """A Model, Input, Evaluation or Budget that says something impossible."""


class SelectionError(EdgecheckError):
    """A target, precision, check or profile name that does not exist."""


class DataError(EdgecheckError):
    """Calibration, evaluation or sample data that does not fit the declared inputs."""


class ArtifactError(EdgecheckError):
    """A model file that is missing, truncated, of another format, or does not fit the model."""


class HistoryError(EdgecheckError):
    """A history or report that can't be opened, read or written, or a run that is not in it."""


class ChildError(EdgecheckError):
    """A child process that raised, crashed or ran out of time.

    Attributes:
        kind: ``raised``, ``crashed`` or ``timeout``.
        log_tail: the end of what the child printed, decoded with replacement characters.
    """

    def __init__(self, message: str, *, kind: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.log_tail = log_tail
