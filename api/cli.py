"""The command line: parse, call one library function, print. A user's mistake is one line on stderr and exit 2."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from api.commands import (
    arena,
    batch,
    bundle,
    control,
    data,
    demo,
    evaluate,
    evaluate_estimators,
    explain,
    features,
    items,
    kernels,
    listener,
    log,
    page,
    rank_all,
    report,
    retrain,
    score,
    serve,
    simulate_loop,
    train,
    users,
)
from api.extras import lacking, missing

app = typer.Typer(
    name="bart",
    help="A home-page ranker that logs exact propensities and can say what another policy would have earned.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("init")(data.init)
app.command("demo")(demo.demo)
app.command("build")(data.build)
app.command("check")(data.check)
app.command("simulate")(demo.simulate)
app.command("simulate-loop")(simulate_loop.simulate_loop)
app.command("compile")(kernels.compile_kernels)
app.command("serve")(serve.serve)
app.command("page")(page.page)
app.command("train")(train.train)
app.command("retrain")(retrain.retrain)
app.command("evaluate")(evaluate.evaluate)
app.command("explain")(explain.explain)
app.command("rank-all")(rank_all.rank_all)
app.command("train-listener")(listener.train_listener)
app.command("evaluate-listener")(listener.evaluate_listener)
app.command("evaluate-users")(users.evaluate_users)
app.command("score")(score.score)
app.command("evaluate-estimators")(evaluate_estimators.evaluate_estimators)
app.add_typer(log.app, name="log", help="Verify, export and look after a decision log.")
app.add_typer(
    arena.app, name="arena", help="Page estimators against known truths, on logs that are the same everywhere."
)
app.command("control")(control.control)
app.command("report")(report.report)
app.add_typer(features.app, name="features", help="What is known of a candidate, and what was known then.")
app.add_typer(items.app, name="items", help="Bring the catalogue of a run up to date.")
app.add_typer(
    batch.app, name="batch", help="Build a batch of new vectors beside the one that serves, and exchange them."
)
app.add_typer(users.app, name="users", help="One vector a listener, for tasks beside the page.")
app.add_typer(bundle.app, name="bundle", help="Look at bundles, check that they are whole, choose the active one.")


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 a check failed, 2 a mistake in what was asked for, 3 refused by a gate,
    4 an evaluation does not show what was required."""
    given = sys.argv[1:] if arguments is None else arguments
    command = given[0] if given else ""
    absent = None if "--help" in given else lacking(command)
    if absent is not None:
        _fail(absent, 2)
    try:
        code = app(arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 130)
    except _foreseen() as error:
        # A lookup or overflow that gets here came from an input that nobody foresaw: still one line, with its kind.
        if os.environ.get("BART_DEBUG"):
            raise
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        _fail(f"{kind}{_one_line(error)}", 2)
    except ModuleNotFoundError as error:
        told = missing(error, command)
        if told is None or os.environ.get("BART_DEBUG"):
            raise
        _fail(told, 2)
    except Exception as error:
        # Which click typer raises from depends on its version; what can be shown has format_message.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        _fail(f"{_one_line(error.format_message())}{hint}", 2)
    sys.exit(code if isinstance(code, int) else 0)


def _foreseen() -> tuple[type[Exception], ...]:
    """What is a user's mistake; of SQLite, where a command has loaded it at all."""
    sqlite3 = sys.modules.get("sqlite3")
    of_store: tuple[type[Exception], ...] = () if sqlite3 is None else (sqlite3.Error,)
    return (ValueError, OSError, OverflowError, LookupError, *of_store)


def _one_line(error: Exception | str) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, code: int) -> NoReturn:
    print(f"bart: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
