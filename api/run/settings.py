"""All settings in one place: bart.toml, environment variables (BART_PAGE__ROWS=8) and flags over both.

Each section configures one part; the effective values are stored in every bundle and report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from bart.errors import DataError

DEFAULT_FILE = Path("bart.toml")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PageSettings(Section):
    rows: int = Field(6, ge=1, le=50, description="shelves on a page")
    columns: int = Field(6, ge=1, le=100, description="cards on a shelf")
    per_shelf: int = Field(30, ge=1, le=200, description="candidates a shelf rule may bring")


class ExplorationSettings(Section):
    epsilon: float | None = Field(
        None, ge=0, le=1, description="one rate for all surfaces; unset: the table by surface"
    )
    surfaces: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="rates by surface, over the built-in table"
    )
    adapt: bool = Field(False, description="adapt the rate to account age, diversity and recent success")
    lowest: float = Field(0.05, ge=0, le=1, description="bound of the rate by surface")
    highest: float = Field(0.5, ge=0, le=1, description="bound of the rate by surface")
    greedy_rows: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="rows held greedy: no support there")
    greedy_positions: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="columns held greedy")


class ListenerSettings(Section):
    hidden: int = Field(100, ge=8, le=1024, description="LSTM cells of CoSeRNN")
    epochs: int = Field(4, ge=1, le=100, description="passes over the sessions")
    timezone: str | None = Field(None, description="zone of event times that carry none; unset: UTC, hours unknown")


class RewardSettings(Section):
    name: str = Field(
        "streamed_30s", description="streamed_30s, completed, clicked, share_30s, or one of an installed package"
    )
    order: Literal[1, 2, 3] = Field(2, description="highest order of feature crosses")
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="of adaptive gradient steps; unset: coin betting, which has none to choose"
    )
    weighting: Literal["none", "conditional", "exposure"] = Field("none", description="counterfactual weighting")
    cap: float | None = Field(None, gt=0, description="largest weight; unset: by percentile alone")
    cap_percentile: float = Field(99.0, gt=0, le=100, description="weights above it are cut to it; 100: none is")
    passes: int = Field(2, ge=1, le=50, description="passes over the log")
    holdout: float = Field(0.1, gt=0, lt=1, description="share of the pages, the latest, that bart train measures on")
    window_h: float = Field(24.0, gt=0, le=24 * 30, description="hours until the feedback on a page is complete")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != "streamed_30s":  # the others may be those of installed packages, which takes a look
            from bart.reward.rewards import find_reward

            find_reward(name)
        return name


class EvaluationSettings(Section):
    level: float = Field(0.95, gt=0.5, lt=1, description="confidence level of intervals")
    holdout: float = Field(0.5, gt=0, lt=1, description="share of the pages, the latest, kept from training")


class LearningSettings(Section):
    online: bool = Field(False, description="learn from joined feedback between retrains")
    every_s: float = Field(2.0, ge=0.05, le=3600, description="how often new pages are looked for")
    delay_s: float = Field(300.0, ge=0, description="age at which a page is learnt from, once, window closed or not")
    min_s: float = Field(60.0, ge=0, description="between two publications, at least")
    min_examples: int = Field(200, ge=1, description="seen cards between two publications, at least")
    max_loss: float = Field(0.01, ge=0, description="log loss a card over that of the serving model, at most")
    max_bias: float = Field(0.5, gt=0, description="distance of mean prediction over mean reward from 1, at most")


class RetrainSettings(Section):
    holdout: float = Field(0.5, gt=0, lt=1, description="share of the new pages, the latest, that judge the new model")
    min_pages: int = Field(200, ge=20, description="pages held out below which nothing is judged")
    max_ece: float = Field(0.05, gt=0, le=1, description="largest expected calibration error on the pages held out")
    max_bias: float = Field(0.25, gt=0, description="largest distance from 1 of mean prediction over mean reward")
    tolerance: float = Field(
        0.05, ge=0, le=1, description="loss, as a share of the serving value, that the lower bound of the gain may show"
    )
    floor: float | None = Field(None, ge=0, description="least lower bound of the value of a page; unset: none")
    keep: int = Field(5, ge=2, le=1000, description="bundles to keep, the active one among them")


class EditorialSettings(Section):
    title: str = Field(min_length=1, max_length=200)
    item_ids: tuple[str, ...] = Field(min_length=1, max_length=200, description="in the order to be shown")
    explanation: str = ""
    specificity: int = Field(45, ge=0, le=1000, description="the lower shelf gets an item that two could show")


class ShelfSettings(Section):
    editorial: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], EditorialSettings] = Field(
        default_factory=dict, description="shelves of given items by name, see docs/shelves.md"
    )


class WorldSettings(Section):
    listeners: int = Field(1000, ge=20, le=1_000_000)
    days: int = Field(60, ge=21, le=3650)
    tracks: int = Field(30_000, ge=500, le=10_000_000)
    playlists: int = Field(20_000, ge=100, le=10_000_000)
    visits: int = Field(20_000, ge=200, le=10_000_000, description="simulated visits to the home page")
    browsing: str = Field("W1", description="how a page is read: W1 to W6, see docs/worlds.md")
    epsilon: float = Field(0.2, ge=0.01, le=1, description="exploration of the logging policy")
    off: tuple[str, ...] = Field((), description="effects that are switched off, see docs/worlds.md")


class KeySettings(Section):
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the key, as sha256sum prints it")
    scopes: tuple[Literal["page", "feedback", "admin"], ...] = ("page", "feedback")


class ArmSettings(Section):
    share: float = Field(gt=0, le=1, description="of the listeners")
    bundle: str | None = Field(None, description="name of a bundle of the run; unset: the active one")
    epsilon: float | None = Field(None, ge=0, le=1, description="one exploration rate; unset: as without experiment")
    scorer: Literal["model", "popularity"] = Field("model", description="popularity: a holdout")


class ExperimentSettings(Section):
    name: str = Field("", max_length=64, description="recorded with each page; another name draws the arms anew")
    salt: str = Field("", max_length=64, description="of the draw of arms")
    arms: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], ArmSettings] = Field(
        default_factory=dict, description="arms by name: share, and what differs: bundle, epsilon, scorer"
    )

    @model_validator(mode="after")
    def _whole(self) -> ExperimentSettings:
        if sum(arm.share for arm in self.arms.values()) > 1 + 1e-9:
            raise ValueError("arms have shares of more than 1 together; expected at most 1")
        if self.arms and not self.name:
            raise ValueError("arms are given without a name; expected the name of the experiment")
        return self


class GuardSettings(Section):
    """Limits under which the model that serves is rolled back by itself; off unless one is set."""

    min_reward_rate: float = Field(0.0, ge=0, le=1, description="reward a seen card, at least; 0: no limit")
    max_empty_share: float = Field(1.0, ge=0, le=1, description="pages without a card, at most; 1: no limit")
    pages: int = Field(200, ge=20, le=500, description="pages of this model that must be known before it is judged")

    @property
    def on(self) -> bool:
        """Whether there is a limit."""
        return self.min_reward_rate > 0 or self.max_empty_share < 1


class ServeSettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    workers: int = Field(1, ge=1, le=64, description="processes that answer; they share the log")
    durable: bool = Field(False, description="sync the log to disk before each answer")
    admin_key: str = Field("", description="key of administrative calls; empty: only from this machine")
    keys: dict[str, KeySettings] = Field(
        default_factory=dict, description="API keys by name: {sha256 = hex digest, scopes = page, feedback, admin}"
    )
    rate: float = Field(0.0, ge=0, le=1e6, description="requests a second that a caller may send a worker; 0: any")
    burst: float = Field(20.0, ge=1, le=1e6, description="requests that a caller may send at once")
    request_log: bool = Field(False, description="one line of JSON a request on standard error")
    hash_users: bool = Field(True, description="hide user ids in it")
    web: bool | None = Field(None, description="show the page at /; unset: only where the host is this machine")
    debug: bool | None = Field(
        None, description="answer ?debug=true to administrators; unset: only where the host is this machine"
    )


class StoreSettings(Section):
    """Left out of bundles and reports: an address may hold a password."""

    url: str = Field("", description="redis://HOST:PORT/DB, shared by several hosts; empty: the files of the run")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field("bart", description="of the run there")
    stream: bool = Field(False, description="send decisions and feedback there, for bart log consume")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="BART_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )
    seed: int = Field(1, ge=0, description="of everything random")
    page: PageSettings = PageSettings()
    exploration: ExplorationSettings = ExplorationSettings()
    listener: ListenerSettings = ListenerSettings()
    reward: RewardSettings = RewardSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    learning: LearningSettings = LearningSettings()
    retrain: RetrainSettings = RetrainSettings()
    shelves: ShelfSettings = ShelfSettings()
    world: WorldSettings = WorldSettings()
    serve: ServeSettings = ServeSettings()
    store: StoreSettings = Field(StoreSettings(), exclude=True)
    guard: GuardSettings = GuardSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    rules: dict[str, Any] = Field(default_factory=dict, description="business rules, see docs/decision_log.md")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = _file_in_use
        toml = (TomlConfigSettingsSource(settings_cls, toml_file=file),) if file is not None else ()
        return (init_settings, env_settings, *toml)


_file_in_use: Path | None = None  # read by settings_customise_sources, which pydantic calls without arguments


def load_settings(flags: dict[str, dict[str, Any] | Any] | None = None, file: Path | None = None) -> Settings:
    """The effective settings: `flags` (None values left out) over the environment over `file` (or ./bart.toml).

    Raises DataError with the name of the setting, its value and what was expected.
    """
    global _file_in_use
    path = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if path is not None and not path.is_file():
        raise DataError(f"{path} does not exist; expected a settings file (bart init writes one)")
    _file_in_use = path
    try:
        settings = Settings(**_without_none(flags or {}))
        if settings.rules:
            from bart.page.rules import Rules

            Rules.from_mapping(settings.rules)  # a mistake shows here, not at the first visit
        return settings
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(_settings_in(first["loc"][:-1]))
            raise DataError(
                f"setting {name} is {first.get('input')!r}, which is no setting; expected {known}"
            ) from error
        raise DataError(f"setting {name} is {first.get('input')!r}: {first['msg'].lower()}") from error
    except ValueError as error:  # a TOML file that cannot be parsed
        raise DataError(f"{path or 'settings'}: {error}") from error
    finally:
        _file_in_use = None


def _settings_in(place: tuple[int | str, ...]) -> list[str]:
    """Names that may stand at a place: sections, or the settings of one."""
    fields = Settings.model_fields
    if place and str(place[0]) in fields and isinstance(fields[str(place[0])].default, Section):
        return list(type(fields[str(place[0])].default).model_fields)
    return list(fields)


def commented_toml() -> str:
    """A bart.toml with every setting at its default, commented out, and what it means."""
    lines = ["# Settings of bart. Flags win over environment variables (BART_PAGE__ROWS=8), those over this file.", ""]
    default = Settings.model_construct()
    lines += [f"# seed = {default.seed}    # {Settings.model_fields['seed'].description}", ""]
    for name, field in Settings.model_fields.items():
        section = field.default
        if not isinstance(section, Section):
            continue
        lines.append(f"[{name}]")
        for key, option in type(section).model_fields.items():
            value = getattr(section, key)
            note = f"    # {option.description}" if option.description else ""
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
