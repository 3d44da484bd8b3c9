"""The bundles of a run by name, and which of them is active.

    RUN/bundle              a relative link to the active one
    RUN/bundles/NAME/       a bundle; NAME is the time it was made and the first half of its model id
    RUN/bundles/history.jsonl   one line an activation, the newest last

The link is the truth. It is swapped in one step, after the history has its line and that is on the disk; a line that
the link does not bear out was never carried out and is not read. What is not yet a bundle bears a name that begins with
a dot. In a run of the older layout RUN/bundle is the bundle itself: the first activation moves it to its name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from api.run.clock import utc_now
from api.run.leftovers import remove_leftovers
from api.run.older_layout import adopt, broken, repair
from bart.bundle import MANIFEST, made_at, open_bundle, read_manifest
from bart.directories import exclusive, point, sync_directory, write_synced
from bart.errors import BundleError

if TYPE_CHECKING:
    from api.run.settings import Settings

RESULT = "retrain.json"  # what `bart retrain` came to last
KEEP = 5  # bundles of a run, the active one among them
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}(-[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Version:
    """One bundle of a run. gate: what `bart retrain` found of it ({} where it was made otherwise)."""

    name: str
    batch_id: str
    model_id: str
    created_at: str
    active: bool
    parent: str | None
    learnt_until_s: int | None
    gate: Mapping[str, Any]

    @property
    def refused(self) -> bool:
        """Whether a gate refused it."""
        return self.gate.get("passed") is False


@dataclass(frozen=True, slots=True)
class Activation:
    """One line of the history. previous: active before; None for the first."""

    at: str
    name: str
    previous: str | None
    kind: Literal["activate", "rollback"]
    why: str


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which one bundle served, and when it ended."""

    name: str
    until: datetime


class Versions:
    """The bundles of the run at `root`. Processes may share it: changes are made under a lock.

    keep: how many bundles `prune` leaves; spared: names that it leaves besides. clock: the time.
    """

    def __init__(
        self,
        root: Path,
        keep: int = KEEP,
        clock: Callable[[], datetime] | None = None,
        spared: Collection[str] = (),
    ) -> None:
        self.root = Path(root)
        self.link = self.root / "bundle"
        self.directory = self.root / "bundles"
        self.keep = keep
        self.spared = frozenset(spared)
        self._clock = clock or utc_now
        if not self.root.is_dir():
            raise BundleError(f"{self.root} does not exist; expected a run made by bart demo or bart build")

    @classmethod
    def of(cls, root: Path, settings: Settings) -> Versions:
        """The bundles of a run, of which `prune` leaves as many as the settings say, those of an experiment, and the
        one that `bart retrain` found to be the best, for as many weeks as it is judged against."""
        arms = settings.experiment.arms.values()
        found = cls(root, settings.retrain.keep, spared=[arm.bundle for arm in arms if arm.bundle is not None])
        best = found.best()
        since = utc_now() - timedelta(weeks=settings.retrain.weeks)
        if best is not None and any(line.name == best and line.until > since for line in found.spells()):
            found.spared |= {best}
        return found

    # ------------------------------------------------------------------------------------------------------- reading

    def active(self) -> str | None:
        """Name of the active bundle (in the older layout the one that it will bear); None where there is none."""
        if self.link.is_symlink():
            return Path(os.readlink(self.link)).name
        return self._name_for(self.link) if (self.link / MANIFEST).is_file() else None

    def list(self) -> tuple[Version, ...]:
        """The bundles, the oldest first; of each the manifest alone is read. Without those of `damaged`."""
        return tuple(one for one in self._looked_at().values() if isinstance(one, Version))

    def damaged(self) -> dict[str, str]:
        """Bundles whose manifest says nothing, by name, with what is wrong."""
        return {name: one for name, one in self._looked_at().items() if isinstance(one, str)}

    def _looked_at(self) -> dict[str, Version | str]:
        active = self.active()
        paths = {name: self.directory / name for name in self._names()}
        if active is not None and active not in paths:
            paths[active] = self.link
        found: dict[str, Version | str] = {}
        for name in sorted(paths):
            try:
                found[name] = _version(name, paths[name], name == active)
            except BundleError as error:
                found[name] = str(error)
        return found

    def path(self, name: str) -> Path:
        """Where the bundle of that name stands. Raises BundleError for what is no name, and for an unknown one."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise BundleError(f"{name!r:.80} is not the name of a bundle; expected one such as {self._example()}")
        found = self.directory / name
        if not (found / MANIFEST).is_file():
            raise BundleError(f"{self.root} has no bundle {name}; expected one of {', '.join(self._names()) or 'none'}")
        return found

    def history(self) -> tuple[Activation, ...]:
        """What was activated, the newest last."""
        file = self.directory / "history.jsonl"
        try:
            lines = [Activation(**json.loads(line)) for line in file.read_text().splitlines()] if file.is_file() else []
        except (ValueError, TypeError) as error:
            raise BundleError(f"{file} is damaged: {error}; expected one activation a line") from error
        active = self.active()
        if lines and lines[-1].name != active and lines[-1].previous == active:
            lines.pop()  # killed before the link was swapped
        if active is not None and (not lines or lines[-1].name != active):  # older layout, or a link made by hand
            at = datetime.fromtimestamp(os.lstat(self.link).st_mtime, tz=timezone.utc).isoformat(timespec="seconds")
            lines.append(Activation(at, active, lines[-1].name if lines else None, "activate", "was there"))
        return tuple(lines)

    def before(self) -> str | None:
        """The bundle that `rollback` returns to; None where there is none."""
        stack = _stack(self.history())
        return stack[-2] if len(stack) > 1 else None

    def left(self) -> set[str]:
        """Model ids of the bundles that somebody rolled back from and that are still kept."""
        names = {line.previous for line in self.history() if line.kind == "rollback"}
        return {version.model_id for version in self.list() if version.name in names}

    def best(self) -> str | None:
        """The kept bundle that was worth most when `bart retrain` judged last; None where none is known."""
        try:
            name = json.loads((self.root / RESULT).read_text()).get("best")
        except (OSError, ValueError, AttributeError):
            return None
        return name if isinstance(name, str) and NAME.fullmatch(name) else None

    def spells(self) -> tuple[Spell, ...]:
        """When which bundle served, in order; the last one still does."""
        lines = self.history()
        ends = [datetime.fromisoformat(line.at) for line in lines[1:]] + [self._clock().astimezone(timezone.utc)]
        return tuple(Spell(line.name, end) for line, end in zip(lines, ends, strict=True))

    def served(self, batch_id: str, since: datetime) -> set[str]:
        """Kept bundles of a batch that served after that time and that nobody rolled back from."""
        left = {line.previous for line in self.history() if line.kind == "rollback"}
        late = {spell.name for spell in self.spells() if spell.until > since}
        return {v.name for v in self.list() if v.batch_id == batch_id and v.name in late - left}

    def marker(self) -> str:
        """Changes with every activation; costs one look at the file system."""
        try:
            if self.link.is_symlink():
                stat = os.lstat(self.link)
                return f"{os.readlink(self.link)} {stat.st_ino} {stat.st_mtime_ns}"
            stat = (self.link / MANIFEST).stat()
        except OSError:
            return ""
        return f"bundle {stat.st_ino} {stat.st_mtime_ns}"

    # ------------------------------------------------------------------------------------------------------- changing

    def activate(
        self, name: str, why: str = "activate", *, expected: str | None = None, force: bool = False
    ) -> Activation:
        """Makes the bundle of that name the active one; says what it replaced.

        The bundle is verified first, file by file, and its listeners must be known. Nothing is done for the one that is
        active. expected: what must still be active, where the choice was made on that. force: also a refused one.
        Raises BundleError with the reason, and leaves all as it was.
        """
        with self._lock():
            self._adopt_older()
            path = self.path(name)
            if expected is not None and self.active() != expected:
                raise BundleError(f"{self.active()} became active meanwhile; expected {expected}")
            if _version(name, path, False).refused and not force:
                raise BundleError(f"{name} was refused by its gate; expected one that passed")
            return self._take(name, "activate", why)

    def before_batch(self) -> str | None:
        """The bundle that was active last with another batch than the present one; None where there is none."""
        batch = {version.name: version.batch_id for version in self.list()}
        here = batch.get(self.active() or "")
        return next((name for name in reversed(_stack(self.history())) if batch.get(name) not in (None, here)), None)

    def rollback(self, why: str = "rollback", *, to: str | None = None) -> Activation:
        """Returns to the bundle that was active before this one; again, to the one before that.

        to: a bundle further back; those after it are left too. Raises BundleError where there is none, or where it is
        no longer kept.
        """
        with self._lock():
            self._adopt_older()
            name = self.before()
            if to is not None and to in _stack(self.history())[:-1]:
                name = to
            elif to is not None:
                raise BundleError(f"{to} was not active before {self.active()}; nothing to return to")
            if name is None:
                raise BundleError(f"{self.root}: no bundle was active before {self.active()}; nothing to return to")
            return self._take(name, "rollback", why)

    def settle(self) -> str:
        """Brings a run of the older layout to the present one; the name of the active bundle.

        Raises BundleError where none is active.
        """
        with self._lock():
            self._adopt_older()
        name = self.active()
        if name is None:
            raise BundleError(f"{self.link} is missing; expected a run made by bart demo or bart build")
        return name

    def draft(self) -> Path:
        """Where this process may write a bundle, to be handed to `add`."""
        self.directory.mkdir(exist_ok=True)
        return self.directory / f".draft-{os.getpid()}"

    def add(self, draft: Path) -> str:
        """Takes a written bundle in under its name, which is returned. It is not active yet."""
        with self._lock():
            name = self._name_for(draft)
            taken, number = name, 1
            while os.path.lexists(self.directory / name):
                number += 1
                name = f"{taken}-{number}"
            os.rename(draft, self.directory / name)
            sync_directory(self.directory)
            return name

    def take_from(self, other: Versions) -> None:
        """Moves the bundles of another run here and activates them in the order in which they were there."""
        names = {name: self.add(other.path(name)) for name in other._names()}
        for line in other.history():
            self.activate(names[line.name], line.why)

    def prune(self) -> tuple[str, ...]:
        """Removes the oldest bundles beyond `keep`, never the active one, the one before it, the last of the batch
        before or a spared one; their names."""
        with self._lock():
            safe = {self.active(), self.before(), self.before_batch(), *self.spared}
            names = self._names()
            gone = [name for name in names if name not in safe][: max(0, len(names) - self.keep)]
            for name in gone:
                leaving = self.directory / f".gone-{name}"  # first the name: no half bundle bears one
                os.rename(self.directory / name, leaving)
                shutil.rmtree(leaving, ignore_errors=True)
            return tuple(gone)

    def clean(self) -> None:
        """Removes what killed processes left, and ends a half-made change; what living ones write stays."""
        if not self.directory.is_dir() and self.link.is_dir():
            return
        with self._lock():
            repair(self.link)
            remove_leftovers(self.root, self.directory)

    def repair(self) -> None:
        """Gives RUN/bundle back where a kill took it: in a conversion, where names cannot be exchanged in one step."""
        if broken(self.link):
            with self._lock():
                repair(self.link)

    # ------------------------------------------------------------------------------------------------------ machinery

    def _take(self, name: str, kind: Literal["activate", "rollback"], why: str) -> Activation:
        bundle = open_bundle(self.path(name))
        _has_listeners(self.root / "listeners.sqlite", bundle.batch_id, name)
        lines, active = self.history(), self.active()
        if name == active:
            return lines[-1]
        new = Activation(self._clock().astimezone(timezone.utc).isoformat(timespec="seconds"), name, active, kind, why)
        text = "".join(json.dumps(asdict(line)) + "\n" for line in (*lines, new))
        write_synced(self.directory / "history.jsonl", text)
        point(self.link, f"{self.directory.name}/{name}")
        return new

    def _adopt_older(self) -> None:
        repair(self.link)
        if self.link.is_dir() and not self.link.is_symlink():
            adopt(self.link, self.directory, self._name_for(self.link))

    def _names(self) -> tuple[str, ...]:
        if not self.directory.is_dir():
            return ()
        return tuple(sorted(p.name for p in self.directory.iterdir() if NAME.fullmatch(p.name) and p.is_dir()))

    def _example(self) -> str:
        names = self._names()
        return names[-1] if names else "20260131T051200Z-0123abcd"

    def _name_for(self, path: Path) -> str:
        manifest = read_manifest(path)
        at = made_at(manifest["created_at"]).astimezone(timezone.utc)
        return f"{at:%Y%m%dT%H%M%SZ}-{manifest['model_id'][:8]}"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.directory.mkdir(exist_ok=True)
        with exclusive(self.directory / ".lock"):
            yield


def _stack(history: tuple[Activation, ...]) -> list[str]:
    """Names in the order in which `rollback` would leave them, the active one last."""
    stack: list[str] = []
    for line in history:
        if line.kind == "rollback" and stack:
            stack.pop()
            while line.name in stack and stack[-1] != line.name:  # further back than one
                stack.pop()
        if not stack or stack[-1] != line.name:
            stack.append(line.name)
    return stack


def _version(name: str, path: Path, active: bool) -> Version:
    found = read_manifest(path)
    return Version(
        name,
        found["batch_id"],
        found["model_id"],
        found["created_at"],
        active,
        found["parent"],
        found["learnt_until_s"],
        gate_of(found["metrics"]),
    )


def gate_of(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `bart retrain` found of a bundle; {} where its metrics tell nothing of it."""
    found = metrics.get("retrain")
    return found if isinstance(found, dict) else {}


def _has_listeners(file: Path, batch_id: str, name: str) -> None:
    """Raises BundleError where the states of all listeners are of other batches: every page would be a stranger's."""
    from recommender.states.states import stored_batches

    if file.is_file() and batch_id not in (batches := stored_batches(file)) and batches:
        raise BundleError(
            f"{name} is of batch {batch_id}, of which {file} holds no listener; expected one of its batches"
        )
