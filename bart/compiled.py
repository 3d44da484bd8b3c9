"""Machine code for inner loops, kept on disk between processes.

Import the modules that use it inside functions: numba takes half a second to load, and much of the package needs none.
No fast-math anywhere: propensities must come out the same to the last bit wherever they are recomputed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def read(element: Any, dimensions: int = 1) -> Any:
    """The type of a C-contiguous array that is only read. One that may be written passes too, so that arrays from a
    file or a buffer do not each cost a compilation of their own."""
    return numba.types.Array(element, dimensions, "C", readonly=True)


def write(element: Any, dimensions: int = 1) -> Any:
    """The type of a C-contiguous array that is filled."""
    return numba.types.Array(element, dimensions, "C")


def compiled(*arguments: Any, inline: bool = False) -> Callable[[F], F]:
    """Compiles a function for these argument types when its module is loaded, or at its first use without any.

    Cached on disk where the installation allows it. inline: written into its callers, where a call would cost more than
    what it does.
    """
    signature = arguments or None
    options: dict[str, Any] = {"nogil": True, "inline": "always" if inline else "never"}

    def decorate(function: F) -> F:
        fast: Any
        try:
            fast = numba.njit(signature, cache=True, **options)(function)
        except RuntimeError:  # neither the package nor the home directory is writable: compile once a process
            fast = numba.njit(signature, **options)(function)
        return cast(F, fast)

    return decorate
