"""How a long job tells how far it is: named stages, each with a progress of its own."""

from __future__ import annotations

from typing import Protocol


class Tick(Protocol):
    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class Stages(Protocol):
    """Named stages of a long job, each with a progress of its own."""

    def stage(self, name: str) -> Tick:
        """Begins a stage and ends the one before; the returned function takes (done, total, note)."""
        ...

    def finish(self) -> None:
        """Ends the last stage."""
        ...


class Quiet:
    """Stages for nobody."""

    def stage(self, name: str) -> Tick:  # noqa: ARG002
        return ignore

    def finish(self) -> None:
        return None


def ignore(done: int, total: int, note: str = "") -> None:
    """Progress for nobody."""
