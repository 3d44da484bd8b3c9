"""All settings in one place: bart.toml, environment variables (BART_PAGE__ROWS=8) and flags over both.

Each section configures one part; the effective values are stored in every bundle and report.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from api.run.checked import Bounds, Section, SettingError, description_of, setting, settings_of
from bart.errors import DataError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = Path("bart.toml")


@dataclass(frozen=True)
class PageSettings(Section):
    rows: int = setting(6, ge=1, le=50, description="shelves on a page")
    columns: int = setting(6, ge=1, le=100, description="cards on a shelf")
    per_shelf: int = setting(30, ge=1, le=200, description="candidates a shelf rule may bring")


@dataclass(frozen=True)
class ExplorationSettings(Section):
    epsilon: float | None = setting(
        None, ge=0, le=1, description="one rate for all surfaces; unset: the table by surface"
    )
    surfaces: dict[str, Annotated[float, Bounds(ge=0, le=1)]] = setting(
        {}, description="rates by surface, over the built-in table"
    )
    adapt: bool = setting(False, description="adapt the rate to account age, diversity and recent success")
    lowest: float = setting(0.05, ge=0, le=1, description="bound of the rate by surface")
    highest: float = setting(0.5, ge=0, le=1, description="bound of the rate by surface")
    greedy_rows: tuple[Annotated[int, Bounds(ge=0)], ...] = setting(
        (), description="rows held greedy: no support there"
    )
    greedy_positions: tuple[Annotated[int, Bounds(ge=0)], ...] = setting((), description="columns held greedy")


@dataclass(frozen=True)
class ListenerSettings(Section):
    model: Literal["auto", "cosernn", "average", "popularity"] = setting(
        "auto", description="of the listener's vector; auto: what ranks the last sessions of the data best"
    )
    hidden: int = setting(100, ge=8, le=1024, description="LSTM cells of CoSeRNN")
    epochs: int = setting(4, ge=1, le=100, description="passes over the sessions")
    learn_from: int = setting(
        20_000, ge=50, le=10_000_000, description="listeners of whom CoSeRNN learns at most, drawn by the seed"
    )
    users: bool = setting(False, description="train the user encoder, one vector a listener for tasks beside the page")
    timezone: str | None = setting(None, description="zone of event times that carry none; unset: UTC, hours unknown")


@dataclass(frozen=True)
class EventSettings(Section):
    zip_limit_mb: int = setting(4096, ge=1, le=10_000_000, description="MB that a ZIP of events may unpack to")
    weights: dict[
        Annotated[str, Bounds(pattern=r"^[a-z][a-z0-9_]{0,63}$")], Annotated[float, Bounds(ge=-1000, le=1000)]
    ] = setting({}, description="what one signal counts, in plays, by type, over the built-in table; further types too")
    rating_lowest: float | None = setting(None, ge=-100, le=100, description="of the scale; unset: found in the file")
    rating_highest: float | None = setting(None, ge=-100, le=100, description="of the scale; unset: found in the file")

    def check(self) -> None:
        for name in ("play", "skip", "weighted"):
            if name in self.weights:
                raise SettingError(("weights", name), self.weights[name], "no weight: a play counts 1, a skipped one 0")
        ends = self.rating_lowest, self.rating_highest
        if ends[0] is not None and ends[1] is not None and ends[0] >= ends[1]:
            raise SettingError(("rating_highest",), ends[1], "more than rating_lowest")


@dataclass(frozen=True)
class RewardSettings(Section):
    name: str = setting(
        "streamed_30s", description="streamed_30s, completed, clicked, share_30s, or one of an installed package"
    )
    order: Literal[1, 2, 3] = setting(2, description="highest order of feature crosses")
    learning_rate: float | None = setting(0.001, gt=0, le=10, description="of adaptive gradient steps")
    base_rate: float = setting(
        0.1, gt=0, lt=1, description="reward of a seen card that a new model expects until pages are reported"
    )
    weighting: Literal["none", "conditional", "exposure"] = setting("none", description="counterfactual weighting")
    cap: float | None = setting(None, gt=0, description="largest weight; unset: by percentile alone")
    cap_percentile: float = setting(99.0, gt=0, le=100, description="weights above it are cut to it; 100: none is")
    passes: int = setting(4, ge=1, le=50, description="passes over the log")
    holdout: float = setting(0.1, gt=0, lt=1, description="share of the pages, the latest, that bart train measures on")
    window_h: float = setting(24.0, gt=0, le=24 * 30, description="hours until the feedback on a page is complete")

    def check(self) -> None:
        if self.name != "streamed_30s":  # the others may be those of installed packages, which takes a look
            from bart.reward.rewards import find_reward

            try:
                find_reward(self.name)
            except ValueError as error:
                raise SettingError(("name",), self.name, str(error).rpartition("expected ")[2]) from error


@dataclass(frozen=True)
class EvaluationSettings(Section):
    level: float = setting(0.95, gt=0.5, lt=1, description="confidence level of intervals")
    holdout: float = setting(0.5, gt=0, lt=1, description="share of the pages, the latest, kept from training")


@dataclass(frozen=True)
class LearningSettings(Section):
    online: bool = setting(False, description="learn from joined feedback between retrains")
    every_s: float = setting(2.0, ge=0.05, le=3600, description="how often new pages are looked for")
    delay_s: float = setting(300.0, ge=0, description="age at which a page is learnt from, once, window closed or not")
    min_s: float = setting(60.0, ge=0, description="between two publications, at least")
    min_examples: int = setting(200, ge=1, description="seen cards between two publications, at least")
    max_loss: float = setting(0.01, ge=0, description="log loss a card over that of the serving model, at most")
    max_bias: float = setting(0.5, gt=0, description="distance of mean prediction over mean reward from 1, at most")


@dataclass(frozen=True)
class RetrainSettings(Section):
    holdout: float = setting(
        0.5, gt=0, lt=1, description="share of the new pages, the latest, that judge the new model"
    )
    min_pages: int = setting(200, ge=20, description="pages held out below which nothing is judged")
    max_ece: float = setting(0.05, gt=0, le=1, description="largest expected calibration error on the pages held out")
    max_bias: float = setting(0.25, gt=0, description="largest distance from 1 of mean prediction over mean reward")
    tolerance: float = setting(
        0.03, ge=0, le=1, description="loss, as a share of the serving value, that the lower bound of the gain may show"
    )
    weeks: int = setting(4, ge=0, le=520, description="the best kept bundle that served in them must be kept up with")
    floor: float | None = setting(None, ge=0, description="least lower bound of the value of a page; unset: none")
    keep: int = setting(5, ge=2, le=1000, description="bundles to keep, the active one among them")


@dataclass(frozen=True)
class EditorialSettings(Section):
    title: str = setting(shortest=1, longest=200)
    item_ids: tuple[str, ...] = setting(shortest=1, longest=200, description="in the order to be shown")
    explanation: str = ""
    specificity: int = setting(45, ge=0, le=1000, description="the lower shelf gets an item that two could show")


@dataclass(frozen=True)
class ShelfSettings(Section):
    editorial: dict[Annotated[str, Bounds(pattern=r"^[a-z][a-z0-9_]{0,63}$")], EditorialSettings] = setting(
        {}, description="shelves of given items by name, see docs/shelves.md"
    )


@dataclass(frozen=True)
class WorldSettings(Section):
    listeners: int = setting(1000, ge=20, le=1_000_000)
    days: int = setting(60, ge=21, le=3650)
    tracks: int = setting(30_000, ge=500, le=10_000_000)
    playlists: int = setting(20_000, ge=100, le=10_000_000)
    containers: bool | None = setting(
        None, description="albums, playlists and shows beside the tracks; unset: in bart demo alone"
    )
    visits: int = setting(20_000, ge=200, le=10_000_000, description="simulated visits to the home page")
    browsing: str = setting("W1", description="how a page is read: W1 to W6, see docs/worlds.md")
    epsilon: float = setting(0.2, ge=0.01, le=1, description="exploration of the logging policy")
    off: tuple[str, ...] = setting((), description="effects that are switched off, see docs/worlds.md")


@dataclass(frozen=True)
class KeySettings(Section):
    sha256: str = setting(pattern="^[0-9a-f]{64}$", description="of the key, as sha256sum prints it")
    scopes: tuple[Literal["page", "feedback", "admin"], ...] = ("page", "feedback")


@dataclass(frozen=True)
class ArmSettings(Section):
    share: float = setting(gt=0, le=1, description="of the listeners")
    bundle: str | None = setting(None, description="name of a bundle of the run; unset: the active one")
    epsilon: float | None = setting(None, ge=0, le=1, description="one exploration rate; unset: as without experiment")
    scorer: Literal["model", "popularity"] = setting("model", description="popularity: a holdout")


@dataclass(frozen=True)
class ExperimentSettings(Section):
    name: str = setting("", longest=64, description="recorded with each page; another name draws the arms anew")
    salt: str = setting("", longest=64, description="of the draw of arms")
    arms: dict[Annotated[str, Bounds(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], ArmSettings] = setting(
        {}, description="arms by name: share, and what differs: bundle, epsilon, scorer"
    )

    def check(self) -> None:
        total = sum(arm.share for arm in self.arms.values())
        if total > 1 + 1e-9:
            raise SettingError(("arms",), total, "shares of at most 1 together")
        if self.arms and not self.name:
            raise SettingError(("name",), self.name, "the name of the experiment, arms are given")


@dataclass(frozen=True)
class GuardSettings(Section):
    """Limits under which the model that serves is rolled back by itself; off unless one is set."""

    min_reward_rate: float = setting(0.0, ge=0, le=1, description="reward a seen card, at least; 0: no limit")
    max_empty_share: float = setting(1.0, ge=0, le=1, description="pages without a card, at most; 1: no limit")
    pages: int = setting(200, ge=20, le=500, description="pages of this model that must be known before it is judged")

    @property
    def on(self) -> bool:
        """Whether there is a limit."""
        return self.min_reward_rate > 0 or self.max_empty_share < 1


@dataclass(frozen=True)
class ServeSettings(Section):
    host: str = "127.0.0.1"
    port: int = setting(8000, ge=1, le=65535)
    workers: int = setting(1, ge=1, le=64, description="processes that answer; they share the log")
    durable: bool = setting(False, description="sync to disk before each answer: pages, feedback, sessions, picks")
    admin_key: str = setting("", description="key of administrative calls; empty: one is made, in RUN/admin.key")
    hosts: tuple[Annotated[str, Bounds(pattern=r"^[A-Za-z0-9._~:\[\]-]{1,253}$")], ...] = setting(
        (),
        description="names that it is called by, beside those of this machine; empty: any, unless host is this machine",
    )
    keys: dict[str, KeySettings] = setting(
        {}, description="API keys by name: {sha256 = hex digest, scopes = page, feedback, admin}"
    )
    rate: float = setting(0.0, ge=0, le=1e6, description="requests a second that a caller may send a worker; 0: any")
    burst: float = setting(20.0, ge=1, le=1e6, description="requests that a caller may send at once")
    request_log: bool = setting(False, description="one line of JSON a request on standard error")
    hash_users: bool = setting(True, description="hide user ids in it")
    image_hosts: tuple[Annotated[str, Bounds(pattern=r"^[a-z0-9.-]{1,253}(:[0-9]{1,5})?$")], ...] = setting(
        (), description="from which pages show covers, by HTTPS, beside those in RUN/covers"
    )
    web: bool | None = setting(None, description="show the page at /; unset: only where the host is this machine")
    debug: bool | None = setting(
        None, description="answer ?debug=true to administrators; unset: only where the host is this machine"
    )


@dataclass(frozen=True)
class LimitSettings(Section):
    """What one process takes before it refuses, so that no caller can use it up."""

    connections: int = setting(
        1000, ge=8, le=100_000, description="open at once, and half of the process's descriptors"
    )
    request_s: float = setting(15.0, gt=0, le=3600, description="within which a request must have arrived as a whole")
    header_kb: int = setting(64, ge=1, le=1024, description="of the head of a request")
    open_rate: float = setting(100.0, ge=0, le=1e6, description="calls without a key a second and address; 0: any")
    wrong_keys: float = setting(5.0, ge=0, le=1e6, description="wrong keys a second and address; 0: any")
    reports: int = setting(5000, ge=1, le=1_000_000, description="events of one page")
    quarantine: int = setting(200_000, ge=1, le=100_000_000, description="events that wait for pages that nobody knows")


@dataclass(frozen=True)
class LogSettings(Section):
    """Left out of bundles and reports: where a key lies is nobody's business."""

    proof_key: str = setting(
        "", description="file of 32 bytes or more that seals closed days, outside the run; empty: unkeyed"
    )
    max_wal_mb: int = setting(
        1024, ge=64, le=1_000_000, description="length of the write-ahead file from which on nothing more is taken"
    )


@dataclass(frozen=True)
class StoreSettings(Section):
    """Left out of bundles and reports: an address may hold a password."""

    url: str = setting("", description="redis://HOST:PORT/DB, shared by several hosts; empty: the files of the run")
    name: Annotated[str, Bounds(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = setting("bart", description="of the run there")
    stream: bool = setting(False, description="send decisions and feedback there, for bart log consume")


@dataclass(frozen=True)
class Settings(Section):
    seed: int = setting(1, ge=0, description="of everything random")
    page: PageSettings = PageSettings()
    exploration: ExplorationSettings = ExplorationSettings()
    listener: ListenerSettings = ListenerSettings()
    events: EventSettings = EventSettings()
    reward: RewardSettings = RewardSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    learning: LearningSettings = LearningSettings()
    retrain: RetrainSettings = RetrainSettings()
    shelves: ShelfSettings = ShelfSettings()
    world: WorldSettings = WorldSettings()
    serve: ServeSettings = ServeSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = field(default=LogSettings(), metadata={"hidden": True})
    store: StoreSettings = field(default=StoreSettings(), metadata={"hidden": True})
    guard: GuardSettings = GuardSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    rules: dict[str, Any] = setting({}, description="business rules, see docs/decision_log.md")


def load_settings(
    flags: dict[str, dict[str, Any] | Any] | None = None,
    file: Path | None = None,
    otherwise: dict[str, Any] | None = None,
) -> Settings:
    """The effective settings: `flags` (None values left out) over the environment over `file` (or ./bart.toml, or where
    that is not there `otherwise`).

    Raises DataError with the name of the setting, its value and what was expected.
    """
    path = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if path is not None and not path.is_file():
        raise DataError(f"{path} does not exist; expected a settings file (bart init writes one)")
    try:
        given: dict[str, Any] = (otherwise or {}) if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not TOML, or not UTF-8
        raise DataError(f"{path}: {error}") from error
    try:
        settings = Settings.of(_over(_over(given, from_environment(os.environ)), _without_none(flags or {})))
    except SettingError as error:
        if error.known:
            raise DataError(str(error)) from error
        name = ".".join(error.place)
        raise DataError(f"setting {name} is {error.value!r}, which is no setting; expected {error.expected}") from error
    if settings.rules:
        from bart.page.rules import Rules

        Rules.from_mapping(settings.rules)  # a mistake shows here, not at the first visit
    return settings


def from_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """What BART_SECTION__NAME=... sets, as nested tables of texts; a whole section may be given as JSON.

    A variable that names no section (BART_DEBUG) is not one of the settings.
    """
    found: dict[str, Any] = {}
    for variable, text in sorted(variables.items()):
        prefix, _, rest = variable.lower().partition("_")
        parts = rest.split("__")
        if prefix != "bart" or parts[0] not in settings_of(Settings):
            continue
        value: Any = text
        if len(parts) == 1 and text.lstrip().startswith("{"):
            try:
                value = json.loads(text)
            except ValueError as error:
                raise DataError(f"{variable}: {error}; expected JSON") from error
        for part in reversed(parts):
            value = {part: value}
        found = _over(found, value)
    return found


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged, where both have a value the one above."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _over(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged


def commented_toml() -> str:
    """A bart.toml with every setting at its default, commented out, and what it means."""
    lines = ["# Settings of bart. Flags win over environment variables (BART_PAGE__ROWS=8), those over this file.", ""]
    known = settings_of(Settings)
    lines += [f"# seed = {known['seed'].default}    # {description_of(known['seed'])}", ""]
    for name, one in known.items():
        section = one.default
        if not isinstance(section, Section):
            continue
        lines.append(f"[{name}]")
        for key, option in settings_of(type(section)).items():
            value = getattr(section, key)
            note = f"    # {description_of(option)}" if description_of(option) else ""
            text = "" if value is None else _toml_value(value)
            lines.append(f"# {key} = {text or '...'}{note}")
        lines.append("")
    lines += ["[rules]", "# business rules such as block_recent, boosts and pins, see docs/decision_log.md", ""]
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple | dict):
        return "[]" if isinstance(value, tuple) else "{}"  # defaults are empty
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _without_none(flags: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in flags.items():
        if isinstance(value, dict):
            inner = _without_none(value)
            if inner:
                out[name] = inner
        elif value is not None:
            out[name] = value
    return out
