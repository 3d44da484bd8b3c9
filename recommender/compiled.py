"""Machine code for inner loops, kept on disk between processes.

Import the modules that use it inside functions: numba takes half a second to load. No fast-math: results are the same
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def read(element: Any, dimensions: int = 1) -> Any:
    """The type of a C-contiguous array that is only read."""
    return numba.types.Array(element, dimensions, "C", readonly=True)


def write(element: Any, dimensions: int = 1) -> Any:
    """The type of a C-contiguous array that is filled."""
    return numba.types.Array(element, dimensions, "C")


def compiled(*arguments: Any) -> Callable[[F], F]:
    """Compiles a function for these argument types when its module is loaded; cached on disk where that can be."""

    def decorate(function: F) -> F:
        fast: Any
        try:
            fast = numba.njit(arguments, cache=True, nogil=True)(function)
        except RuntimeError:  # neither the package nor the home directory is writable: compile once a process
            fast = numba.njit(arguments, nogil=True)(function)
        return cast(F, fast)

    return decorate
