"""What files hold: columns of Arrow schemas, fields of records, names in tables of the code."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module

from generators.tables import table


def columns(place: str) -> str:
    """The columns of an Arrow schema, `module:NAME`."""
    module, name = place.split(":")
    schema = getattr(import_module(module), name)
    rows = [(f"`{one.name}`", f"`{one.type}`", "no" if not one.nullable else "yes") for one in schema]
    return "\n".join(table(("column", "Arrow type", "may be null"), rows))


def record(place: str) -> str:
    """The fields of a dataclass with their types, `module:Name`."""
    module, name = place.split(":")
    rows = [(f"`{one.name}`", f"`{one.type}`") for one in fields(getattr(import_module(module), name))]
    return "\n".join(table(("field", "type"), rows))


def constant(place: str) -> str:
    """The value of a constant, `module:NAME`."""
    module, name = place.split(":")
    return str(getattr(import_module(module), name))


def names(place: str) -> str:
    """The names in a table or tuple of the code, `module:NAME`, in one line."""
    module, name = place.split(":")
    return ", ".join(f"`{one}`" for one in getattr(import_module(module), name))
