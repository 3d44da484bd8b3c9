"""Machine code for inner loops, kept on disk between processes.

Import the modules that use it inside functions: numba takes half a second to load, and much of the package needs none.
No fast-math anywhere: propensities must come out the same to the last bit wherever they are recomputed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

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

    Kept in NUMBA_CACHE_DIR, beside the source or in the home directory, in this order: in the first that holds its code
    already or may be written. inline: written into its callers, where a call would cost more than what it does.
    """

    def decorate(function: F) -> F:
        fast: Any = numba.njit(nogil=True, inline="always" if inline else "never")(function)
        if fast is not function:  # as it is with NUMBA_DISABLE_JIT
            with suppress(RuntimeError):  # nowhere to keep it: compile once a process
                fast._cache = _Kept(function)  # type: ignore[no-untyped-call]
            if arguments:
                fast.compile(arguments)
                fast.disable_compile()
        return cast(F, fast)

    return decorate


class _Readable:
    """A folder that holds the function's machine code serves where it may not be written, as in an image: numba by
    itself would compile anew in every process."""

    _py_file: str
    _lineno: int

    def ensure_cache_path(self) -> None:
        try:
            super().ensure_cache_path()  # type: ignore[misc]
        except OSError:
            major, minor = sys.version_info[:2]
            name = f"{Path(self._py_file).stem}.*-{self._lineno}.py{major}{minor}*.nbi"
            if not any(Path(self.get_cache_path()).glob(name)):  # type: ignore[attr-defined]
                raise


class _Given(_Readable, UserProvidedCacheLocator):
    pass


class _InTree(_Readable, InTreeCacheLocator):
    pass


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Given, _InTree, UserWideCacheLocator]  # noqa: RUF012 (as numba has it)


class _Kept(FunctionCache):
    _impl_class = _Implementation

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):  # may not be written, or the disk is full
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
