"""Which models served the pages of an export, and whether the log is therefore adaptive.

A log is adaptive where what served at one time had learnt from pages before it: then pages are not independent of each
other, and what is said of independent ones is to be looked at again (docs/evaluation.md). A log does not say what a
model learnt from; it shows that one model followed another. Arms of an experiment, each with a model of its own that
stays, are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bart.log.store.files import export_files, open_export

COLUMNS = ("arm", "batch_id", "model_id")


@dataclass(slots=True)
class ServedModels:
    """pages: by (arm, batch, model) of what drew them; forced pages are drawn by nobody."""

    pages: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add(self, arm: str, batch_id: str, model_id: str, pages: int = 1) -> None:
        key = (arm, batch_id, model_id)
        self.pages[key] = self.pages.get(key, 0) + pages

    @property
    def models(self) -> int:
        """Different models, of which an id is known."""
        return len({key[1:] for key in self.pages if key[2]})

    @property
    def unnamed(self) -> int:
        """Pages whose record names no model."""
        return sum(pages for (_, _, model), pages in self.pages.items() if not model)

    @property
    def adaptive(self) -> bool | None:
        """Whether one model followed another in some arm; None where records name none."""
        arms = [key[0] for key in self.pages if key[2]]
        if len(arms) > len(set(arms)):
            return True
        return None if self.unnamed or not arms else False

    def line(self, changes: Mapping[str, int] | None = None, unit: str = "pages") -> str:
        """One line for a report. changes: how many models of the run came by what (online learning, bart retrain)."""
        if self.adaptive is None:
            named = f"{self.unnamed:,} {unit} name no model" if self.unnamed else f"the {unit} name no model"
            return f"Whether this log is adaptive is not known: {named}."
        count = sum(self.pages.values())
        if not self.adaptive:
            each = "one model" if self.models == 1 else "one model an arm"
            return f"Not an adaptive log: {each} served its {count:,} {unit}."
        by = ", ".join(f"{n:,} by {name}" for name, n in (changes or {}).items() if n)
        return (
            f"An adaptive log: {self.models:,} models served its {count:,} {unit}, one after the other"
            f"{f' (in the run: {by})' if by else ''}. Intervals hold for policies that were fixed before it; what"
            " learnt from it is to be judged by what came later."
        )

    def as_dict(self, changes: Mapping[str, int] | None = None, unit: str = "pages") -> dict[str, Any]:
        """Plain values for a report."""
        return {
            "adaptive": self.adaptive,
            "models": self.models,
            "unnamed": self.unnamed,
            "changes": dict(changes or {}),
            "line": self.line(changes, unit),
        }


def served_models(log: Path, since: datetime | None = None) -> ServedModels:
    """The models of the drawn pages of an export, decided from `since` on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from bart.log.store.files import upgraded

    out = ServedModels()
    for file in export_files(log, None if since is None else since.date()):
        parquet, version = open_export(file)
        with parquet:
            there = [name for name in (*COLUMNS, "forced", "decided_at") if name in parquet.schema_arrow.names]
            lacks = len(there) < len(COLUMNS) + 2
            for batch in parquet.iter_batches(100_000, columns=None if lacks else there):
                table = pa.Table.from_batches([upgraded(batch, version) if lacks else batch])
                keep = pc.invert(table["forced"])
                if since is not None:
                    keep = pc.and_(
                        keep, pc.greater_equal(table["decided_at"], pa.scalar(since, table["decided_at"].type))
                    )
                found = table.filter(keep).group_by(list(COLUMNS)).aggregate([([], "count_all")])
                for row in found.to_pylist():
                    out.add(row["arm"] or "", row["batch_id"] or "", row["model_id"] or "", row["count_all"])
    return out
