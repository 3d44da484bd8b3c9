"""What an importer is: a format by its name, what tells it from others, and how its files become blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from recommender.events.blocks import Block
from recommender.events.importers.files import SourceFile
from recommender.events.table import Said

ME = "me"  # the listener of an export of one, where no name is given

Form = Literal["json", "text", "parquet", ""]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file looks like. names: fields of its first records, or the cells of its first line. first: the first
    records of JSON. form: "" for what is none of these."""

    form: Form
    names: tuple[str, ...] = ()
    first: tuple[Mapping[str, Any], ...] = ()

    def lacks(self, needed: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that are not here."""
        return tuple(name for name in needed if name not in self.names)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller wants of the rows. user: the name of the one listener of an export; None: not said. mapping:
    {our column: the file's column}."""

    user: str | None = None
    mapping: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of an export, and where its columns have other names. same: {item_id: the id that it is known by},
    filled while the blocks are taken."""

    blocks: Iterator[Block]
    mapping: Mapping[str, str]
    same: dict[str, str] = field(default_factory=dict)


Read = Callable[[Sequence[SourceFile], Said, Asked], Rows]


@dataclass(frozen=True, slots=True)
class Importer:
    """A format. said: its name for people. form, needs: by which it is told. close: fewer of `needs` than all, at least
    so many, look like it. fits: more than names tell, over `needs`."""

    name: str
    said: str
    read: Read
    form: Form = ""
    needs: tuple[str, ...] = ()
    close: int = 2
    fits: Callable[[Shape], bool] | None = None

    def is_it(self, shape: Shape) -> bool:
        """Whether a file of this shape is of this format."""
        if self.fits is not None and self.fits(shape):
            return True
        return bool(self.needs) and shape.form == self.form and not shape.lacks(self.needs)

    def nearly(self, shape: Shape) -> tuple[str, ...]:
        """What a file lacks that looks like this format; () where it does not."""
        if shape.form != self.form or not self.needs:
            return ()
        lacking = shape.lacks(self.needs)
        return lacking if 0 < len(lacking) <= len(self.needs) - self.close else ()


def name_of_one(asked: Asked, found: str | None = None) -> str:
    """The listener of an export of one: as asked, else as the export says, else "me"."""
    return asked.user or found or ME
