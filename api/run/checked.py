"""Records of settings whose bounds stand beside their fields and are checked when a record is made."""

from __future__ import annotations

import json
import operator
import re
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

S = TypeVar("S", bound="Section")
Place = tuple[str, ...]


@dataclass(frozen=True)
class Bounds:
    """What a value must be beside its type: a number within, a text or a sequence so long, a text that matches."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    shortest: int | None = None
    longest: int | None = None
    pattern: str | None = None

    def broken(self, value: Any) -> str | None:
        """What was expected, where the value is not that."""
        for limit, holds, words in (
            (self.ge, operator.ge, "at least"),
            (self.gt, operator.gt, "more than"),
            (self.le, operator.le, "at most"),
            (self.lt, operator.lt, "less than"),
        ):
            if limit is not None and not holds(value, limit):
                return f"{words} {limit}"
        if self.shortest is not None and len(value) < self.shortest:
            return f"a length of at least {self.shortest}"
        if self.longest is not None and len(value) > self.longest:
            return f"a length of at most {self.longest}"
        if self.pattern is not None and not re.search(self.pattern, value):
            return f"a text that matches {self.pattern}"
        return None


class SettingError(ValueError):
    """A setting that cannot be: its place, what was given and what was expected."""

    def __init__(self, place: Place, value: Any, expected: str, *, known: bool = True) -> None:
        self.place, self.value, self.expected, self.known = place, value, expected, known
        super().__init__(f"setting {'.'.join(place)} is {value!r}; expected {expected}")


def setting(default: Any = MISSING, description: str = "", **bounds: Any) -> Any:
    """A field with its default (required without one), what it means, and Bounds by name."""
    told: dict[str, Any] = {"metadata": {"description": description, "bounds": Bounds(**bounds)}}
    if isinstance(default, dict):
        return field(default_factory=default.copy, **told)
    return field(**told) if default is MISSING else field(default=default, **told)


class Section:
    """A frozen record of settings. A text from the environment becomes the number or the list that it says."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for one in fields(self):  # type: ignore[arg-type]
            value = _converted(getattr(self, one.name), hints[one.name], (one.name,))
            _within(one.metadata.get("bounds"), value, (one.name,))
            object.__setattr__(self, one.name, value)
        self.check()

    def check(self) -> None:
        """Raises SettingError where values that are each right do not go together, or for what bounds cannot say."""

    @classmethod
    def of(cls: type[S], given: Mapping[str, Any]) -> S:
        """The record of a mapping, sections in it as mappings.

        Raises SettingError with the place of the first value that cannot be.
        """
        known = settings_of(cls)
        for name, value in given.items():
            if name not in known:
                raise SettingError((name,), value, ", ".join(known), known=False)
        missing = [name for name, one in known.items() if required(one) and name not in given]
        if missing:
            raise SettingError((missing[0],), None, "a value, there is no default")
        return cls(**given)

    def as_dict(self, leave_out: Collection[str] = ()) -> dict[str, Any]:
        """The values as plain dictionaries, without some and without those that are kept out of records."""
        hidden = {name for name, one in settings_of(type(self)).items() if one.metadata.get("hidden")}
        return {k: v for k, v in asdict(self).items() if k not in hidden and k not in leave_out}  # type: ignore[call-overload]


def settings_of(section: type[Section]) -> dict[str, Field[Any]]:
    """The fields of a section by name."""
    return {one.name: one for one in fields(section)}  # type: ignore[arg-type]


def required(one: Field[Any]) -> bool:
    """Whether a setting has no default."""
    return one.default is MISSING and one.default_factory is MISSING


def default_of(one: Field[Any]) -> Any:
    """The default of a setting that has one."""
    return one.default_factory() if one.default_factory is not MISSING else one.default


def description_of(one: Field[Any]) -> str:
    """What a setting means, in words; empty where its name says it."""
    return str(one.metadata.get("description", ""))


def _within(bounds: Bounds | None, value: Any, place: Place) -> None:
    expected = bounds.broken(value) if bounds is not None and value is not None else None
    if expected is not None:
        raise SettingError(place, value, expected)


def _converted(value: Any, hint: Any, place: Place) -> Any:
    """The value as the type of its field, or a SettingError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _converted(value, inner[0], place)
        for bounds in inner[1:]:
            _within(bounds, value, place)
        return value
    if origin in (Union, types.UnionType):  # only of one type and None
        return None if value is None else _converted(value, next(a for a in inner if a is not type(None)), place)
    if origin is Literal:
        for one in inner:
            if not isinstance(value, bool) and value in (one, str(one)):
                return one
        raise SettingError(place, value, f"one of {', '.join(map(str, inner))}")
    if origin is dict:
        found = _parsed(value, dict, place, "a table")
        return {
            _converted(k, inner[0], (*place, str(k))): _converted(v, inner[1], (*place, str(k)))
            for k, v in found.items()
        }
    if origin is tuple:
        found = _parsed(value, (list, tuple), place, "a list")
        return tuple(_converted(v, inner[0], (*place, str(k))) for k, v in enumerate(found))
    if hint is Any:
        return value
    if issubclass(hint, Section):
        return value if isinstance(value, hint) else _section(_parsed(value, dict, place, "a table"), hint, place)
    return _PLAIN[hint](value, place)


def _section(given: dict[str, Any], hint: type[Section], place: Place) -> Section:
    try:
        return hint.of(given)
    except SettingError as error:
        raise SettingError((*place, *error.place), error.value, error.expected, known=error.known) from None


def _parsed(value: Any, kind: type | tuple[type, ...], place: Place, expected: str) -> Any:
    """A table or a list; from the environment it comes as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise SettingError(place, value, f"{expected} (as JSON)") from None
    if not isinstance(value, kind):
        raise SettingError(place, value, expected)
    return value


def _whole(value: Any, place: Place) -> int:
    number = _number(value, place, "a whole number")
    if not number.is_integer():
        raise SettingError(place, value, "a whole number")
    return int(value) if isinstance(value, int | str) else int(number)


def _number(value: Any, place: Place, expected: str = "a number") -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise SettingError(place, value, expected)


def _flag(value: Any, place: Place) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False, "on": True, "off": False}
    found = words.get(str(value).lower()) if isinstance(value, bool | int | str) else None
    if found is None:
        raise SettingError(place, value, "true or false")
    return found


def _text(value: Any, place: Place) -> str:
    if not isinstance(value, str):
        raise SettingError(place, value, "a text")
    return value


_PLAIN: dict[Any, Callable[[Any, Place], Any]] = {int: _whole, float: _number, bool: _flag, str: _text}
