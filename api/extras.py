"""Which extra brings what a command lacks: the core evaluates; serving, learning and pictures are extras."""

from __future__ import annotations

from importlib.util import find_spec

# By the name under which a module is imported; pyproject.toml has the packages.
OF_MODULE = {
    "fastapi": "serve",
    "httptools": "serve",
    "orjson": "serve",
    "prometheus_client": "serve",
    "pydantic": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "uvloop": "serve",
    "faiss": "listeners",
    "torch": "listeners",
    "vowpal_wabbit_next": "listeners",
    "jinja2": "plots",
    "matplotlib": "plots",
    "pandas": "spark",
    "pyspark": "spark",
    "redis": "redis",
}
# What a command needs to the end, with a module that tells whether it is there: said before minutes of work, not after.
OF_COMMAND = {
    "build": {"torch": "listeners"},
    "demo": {"torch": "listeners", "fastapi": "serve", "matplotlib": "plots"},
    "evaluate-listener": {"torch": "listeners", "matplotlib": "plots"},
    "evaluate-users": {"torch": "listeners"},
    "score": {"torch": "listeners"},
    "serve": {"fastapi": "serve"},
    "simulate-loop": {"torch": "listeners"},
    "train-listener": {"torch": "listeners"},
}


def lacking(command: str) -> str | None:
    """One line that says what to install before a command can run; None where nothing is missing."""
    absent = {module: extra for module, extra in OF_COMMAND.get(command, {}).items() if not _there(module)}
    return _line(", ".join(absent), list(absent.values())) if absent else None


def missing(error: ModuleNotFoundError, command: str) -> str | None:
    """The same for a module that was not found at work; None for one that no extra brings."""
    module = (error.name or "").split(".")[0]
    if module not in OF_MODULE:
        return None
    whole = OF_COMMAND.get(command, {}).values()
    return _line(module, list(whole) if OF_MODULE[module] in whole else [*whole, OF_MODULE[module]])


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _line(modules: str, extras: list[str]) -> str:
    return f"{modules} not installed; expected pip install 'bart-home[{','.join(extras)}]'"
