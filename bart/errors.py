"""Errors that a caller may want to catch by name.

A caller's mistake is a plain ``ValueError`` with what was wrong, where and what was expected; the names below are for
the few that somebody handles differently.
"""

from __future__ import annotations


class BartError(Exception):
    """Base of the project's own errors."""


class SupportError(BartError, ValueError):
    """A propensity is 0 or missing where the estimate or the training needs it to be positive."""


class BundleError(BartError, ValueError):
    """A bundle cannot be read: a file is missing, altered, or of a version that this code does not know."""


class SchemaMismatch(BundleError):
    """A model and a feature schema (or a vector and a batch) do not belong together."""


class LogError(BartError, ValueError):
    """A decision log cannot be read or written."""


class ErasedError(LogError):
    """A record is of somebody who was erased: it must not be kept anywhere."""


class StoreError(BartError, OSError):
    """A store of listener states cannot be reached; what was asked of it was not acknowledged."""


class FeedbackError(BartError, ValueError):
    """A feedback event cannot be merged: it names a card that was not on the page, or contradicts itself."""


class DataError(BartError, ValueError):
    """A user's input file lacks columns or volume, or cannot be read."""
