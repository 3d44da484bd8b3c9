"""Settings with their defaults and meanings."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from generators.tables import table, toml


def settings() -> str:
    """Every setting of bart.toml with its default and meaning."""
    from api.run.checked import Section, description_of, settings_of
    from api.run.settings import ArmSettings, EditorialSettings, KeySettings, Settings

    out: list[str] = []
    top = [
        (f"`{name}`", f"`{toml(field.default)}`", description_of(field))
        for name, field in settings_of(Settings).items()
        if not isinstance(field.default, Section) and name != "rules"
    ]
    out += table(("setting", "default", "meaning"), top)
    nested = {
        "shelves.editorial.NAME": EditorialSettings,
        "serve.keys.NAME": KeySettings,
        "experiment.arms.NAME": ArmSettings,
    }
    sections = {
        name: type(field.default) for name, field in settings_of(Settings).items() if isinstance(field.default, Section)
    }
    for name, section in {**sections, **nested}.items():
        note = (section.__doc__ or "").strip().splitlines()
        if note and not note[0].startswith(section.__name__):  # without one, a dataclass shows its signature
            out += [f"## [{name}]", "", note[0], ""]
        else:
            out += [f"## [{name}]", ""]
        rows = [
            (f"`{key}`", _setting_default(field), description_of(field)) for key, field in settings_of(section).items()
        ]
        out += table(("setting", "default", "meaning"), rows)
    return "\n".join(out)


def business_rules() -> str:
    """The settings of [rules], from the record that checks them."""
    from bart.page.rules import Rules

    return "\n".join(table(("setting", "default"), [(f"`{one.name}`", f"`{_plain(one)}`") for one in fields(Rules)]))


def _setting_default(field: Any) -> str:
    from api.run.checked import default_of, required

    if required(field):
        return "required"
    value = default_of(field)
    return "unset" if value is None else f"`{toml(value)}`"


def _plain(one: Any) -> str:
    if one.default is not MISSING:
        return "unset" if one.default is None else toml(one.default)
    return toml(one.default_factory())
