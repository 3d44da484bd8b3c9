"""`bart log`: verify, export, count, migrate, prune, erase, exchange."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, TextIO

import typer

from api.options import Config, moment, number_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api.run.settings import Settings
    from bart.log.decision_log import DecisionLog
    from bart.log.proof.chain import Entry

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Log = Annotated[Path, typer.Argument(help="A decision log (log.sqlite).")]
Window = Annotated[
    float | None,
    typer.Option(help="Hours until the feedback on a page is complete; by default reward.window_h."),
]
ProofKey = Annotated[
    Path | None,
    typer.Option(envvar="BART_LOG__PROOF_KEY", help="File of the key that seals closed days, as log.proof_key."),
]
PROBLEMS_SHOWN = 20
_LONGEST_WINDOW_H = 24 * 366
_OLDEST_D = 36_525  # a century: more is a slip of the finger


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A decision log, or its export.")],
    proof_key: ProofKey = None,
    kept: Annotated[Path | None, typer.Option(help="Lines of bart log roots that were kept elsewhere.")] = None,
    config: Config = None,
) -> int:
    """Recomputes every propensity, replays every choice, checks every checksum and what is proven of outcomes.

    Exit 1 where something is wrong.
    """
    from bart.errors import DataError
    from bart.log.care.verify import verify as check
    from bart.log.proof.check import read_kept

    if kept is not None and not kept.is_file():
        raise DataError(f"{kept} does not exist; expected a file of lines that bart log roots printed")
    lines = [] if kept is None else read_kept(kept.read_text(encoding="utf-8", errors="replace"))
    found = check(path, proof_key=_key(proof_key, path.parent, _settings(path, config)), kept=lines)
    flaws = () if found.proof is None else found.proof.flaws
    for number, flaw in enumerate(flaws[:PROBLEMS_SHOWN]):
        first = "first difference: " if number == 0 else ""
        typer.echo(f"{first}{flaw.day or '(no day)'} {flaw.record or '(the day)'}: {flaw.text}")
    if len(flaws) > PROBLEMS_SHOWN:
        typer.echo(f"... and {len(flaws) - PROBLEMS_SHOWN} more")
    for problem in found.problems[:PROBLEMS_SHOWN]:
        typer.echo(f"{problem.request_id or '(unreadable)'}: {problem.text}")
    if found.problem_count > PROBLEMS_SHOWN:
        typer.echo(f"... and {found.problem_count - PROBLEMS_SHOWN} more")
    for mean in found.means:
        if not mean.passed:
            typer.echo(f"{mean.choice}: mean of 1 / (n p) is {mean.mean:.4f} +- {mean.standard_error:.4f}; expected 1")
    judged = [mean for mean in found.means if mean.judged]
    typer.echo(
        f"{path}: {found.verified:,} of {found.records:,} records verified; mean 1 / (n p) within four "
        f"standard errors of 1 for {sum(mean.passed for mean in judged)} of {len(judged)} kinds of choice; "
        f"{found.forced:,} forced, {found.tombstones:,} erased; checksum only: {found.imported:,} imported, "
        f"{found.unknown_policy:,} of a policy that is not known"
    )
    if found.proof is not None:
        typer.echo(f"{path}: {found.proof.told()}")
    return 0 if found.ok else 1


@app.command()
def export(
    path: Log,
    out: Annotated[Path, typer.Option(help="Directory for date=YYYY-MM-DD/part-*.parquet.")],
    bundle: Annotated[Path | None, typer.Option(help="Bundle that served: durations for rewards.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="Reward to record, see docs/decision_log.md; by default reward.name.")
    ] = None,
    include_open: Annotated[bool, typer.Option(help="Also pages whose window is not over.")] = False,
    window_h: Window = None,
    proof_key: ProofKey = None,
    config: Config = None,
) -> None:
    """Writes closed pages with their feedback as Parquet, by date; prints the roots of days that are closed by that."""
    from bart.item_store import load_items
    from bart.log.care.export import export_log

    items = load_items(bundle / "items") if bundle is not None else None
    settings = _settings(path, config)
    name = reward or settings.reward.name
    with _open(path, settings, window_h, proof_key=proof_key) as log:
        result = export_log(
            log, out, now=datetime.now(timezone.utc), duration_s=items, reward=name, include_open=include_open
        )
    typer.echo(
        f"{out}: {result.pages:,} pages of {result.days} days in {result.files} files; {result.open:,} open left out, "
        f"{result.undisplayed:,} never displayed, {result.late_events:,} late events"
    )
    _tell_entries(result.closed)
    if not result.pages:
        hours = window_h or settings.reward.window_h
        typer.echo(
            f"warning: no page is exported; expected pages displayed more than {hours:g} hours ago (--window-h, "
            "reward.window_h), or --include-open",
            err=True,
        )


@app.command()
def roots(path: Log, config: Config = None) -> None:
    """Prints the chain of closed days, a line an entry: number, kind, day, records, root, seal. Keep them elsewhere."""
    from bart.log.proof.check import entry_line

    with _open(path, _settings(path, config), reads=True) as log:
        for entry in log.chain():
            typer.echo(entry_line(entry))


@app.command()
def lower(
    path: Log,
    to: Annotated[str | None, typer.Option(help="Time in UTC; by default a feedback window before now.")] = None,
    window_h: Window = None,
    proof_key: ProofKey = None,
    config: Config = None,
) -> None:
    """Moves the moment up to which windows are closed back, where a clock was ahead; the chain says so."""
    now = datetime.now(timezone.utc)
    settings = _settings(path, config)
    wanted = moment(to, "--to") or now - timedelta(hours=window_h or settings.reward.window_h)
    with _open(path, settings, window_h, proof_key=proof_key) as log:
        _tell_entries([log.lower_watermark(wanted)])
    typer.echo(f"{path}: windows are closed up to {wanted:%Y-%m-%dT%H:%M:%SZ}")


@app.command()
def stats(path: Log, window_h: Window = None, config: Config = None) -> None:
    """Counts what a log holds."""
    from dataclasses import asdict

    from bart.log.store.marks import count_marks

    with _open(path, _settings(path, config), window_h, reads=True) as log:
        found = log.stats()
        with log.reading() as connection:
            marked = count_marks(connection)
    for name, value in asdict(found).items():
        typer.echo(f"{name:<12} {value:,}" if isinstance(value, int) else f"{name:<12} {value}")
    for name, count in marked.items():
        typer.echo(f"{name:<12} {count:,}")


@app.command()
def consume(
    redis: Annotated[str, typer.Option(help="redis://HOST:PORT/DB that the services send to.")],
    log: Annotated[Path, typer.Option(help="The decision log to write, RUN/log.sqlite; made where there is none.")],
    name: Annotated[str, typer.Option(help="As store.name of the services.")] = "bart",
    consumer: Annotated[str, typer.Option(help="Name in the consumer group; by default this host's.")] = "",
    claim_after_s: Annotated[float, typer.Option(help="Take over what another consumer left for so long.")] = 10.0,
    once: Annotated[bool, typer.Option(help="End when nothing is left.")] = False,
    window_h: Window = None,
    config: Config = None,
) -> None:
    """Takes decisions and feedback from a Redis stream into the log, each once, until it is stopped."""
    from api.hosts.stream_command import consume as take

    if claim_after_s <= 0:
        from bart.errors import DataError

        raise DataError(f"--claim-after-s is {claim_after_s:g}; expected seconds, more than 0")
    with _open(log, _settings(log, config), window_h, create=True, durable=True) as opened:
        done = take(redis, opened, name, consumer, claim_after_s, once)
    typer.echo(
        f"{log}: {done.entries:,} entries taken: {done.decisions:,} decisions, {done.reports:,} reports; "
        f"{done.refused:,} refused, {done.lost:,} lost, {done.claimed:,} claimed from other consumers"
    )


@app.command()
def migrate(
    path: Annotated[Path, typer.Argument(help="A decision log, or its export.")],
    proof_key: ProofKey = None,
    config: Config = None,
) -> None:
    """Rewrites a log of an older version as the present one."""
    from bart.log.care.migrate import migrate as rewrite

    result = rewrite(path, _key(proof_key, path.parent, _settings(path, config)))
    typer.echo(f"{path}: version {result.from_version} to {result.to_version}, {result.records:,} records")


@app.command()
def prune(
    path: Log,
    older_than: Annotated[str, typer.Option(help="Age such as 90d; whole days, at least 1.")],
    proof_key: ProofKey = None,
    config: Config = None,
) -> None:
    """Removes decisions of whole days that are older; exports stay."""
    from bart.log.care.erasure import prune as remove

    age = _days(older_than)
    with _open(path, _settings(path, config), proof_key=proof_key) as log:
        result = remove(log, datetime.now(timezone.utc) - age, compact=False)
        typer.echo(f"{path}: {result.pages:,} pages before {result.before:%Y-%m-%d} removed")
        log.compact()


@app.command()
def erase(
    path: Log,
    user: Annotated[str, typer.Option(help="User to erase.")],
    export: Annotated[list[Path] | None, typer.Option(help="Exports to rewrite too; may be repeated.")] = None,
    proof_key: ProofKey = None,
    config: Config = None,
) -> None:
    """Removes every trace of a user from the log and its exports, and leaves tombstones."""
    from bart.log.care.erasure import erase_user

    with _open(path, _settings(path, config), proof_key=proof_key) as log:
        result = erase_user(log, user, datetime.now(timezone.utc), export or [], compact=False)
        typer.echo(  # before what may fail: what was removed is removed
            f"{path}: {result.pages:,} pages, {result.events:,} events, {result.quarantined:,} in quarantine and "
            f"{result.exported:,} exported rows of {user!r} erased"
        )
        log.compact()


@app.command("import-dsjson")
def import_dsjson(
    path: Log,
    lines: Annotated[Path, typer.Argument(help="DSJSON lines of Vowpal Wabbit or Personalizer.")],
    user: Annotated[str | None, typer.Option(help="Where c names the user, such as GUser.id.")] = None,
    reward_range: Annotated[
        str, typer.Option(help="LOW,HIGH: least and largest -_label_cost, which become rewards of 0 and 1.")
    ] = "0,1",
    decided_at: Annotated[str | None, typer.Option(help="Time (UTC) of lines without a Timestamp.")] = None,
    config: Config = None,
) -> None:
    """Takes DSJSON lines (gzip too) into a log, and counts what cannot be mapped."""
    from bart.errors import DataError
    from bart.log.care.dsjson import NO_TIME, survey
    from bart.log.care.dsjson import import_dsjson as take
    from bart.log.care.dsjson_line import open_lines

    if not lines.is_file():
        raise DataError(f"{lines} does not exist; expected a file of DSJSON lines")
    low, high = number_range(reward_range, "--reward-range")
    at = moment(decided_at, "--decided-at")
    with _text(open_lines(lines)) as stream:
        found = survey(stream)
    if found.outcomes:
        why = ", ".join(f"{count:,} lines: {reason}" for reason, count in found.outcomes.items())
        raise DataError(
            f"{lines}: {why}; a log holds neither weights nor lines without an outcome, and the rest is no sample; "
            f"expected bart evaluate {lines}, which weighs the lines and says what is missing"
        )
    if found.least < low or found.most > high:
        raise DataError(
            f"{lines} holds rewards (-_label_cost) from {found.least:g} to {found.most:g}; expected {low:g} to "
            f"{high:g}, or another --reward-range=LOW,HIGH that holds them"
        )
    with _open(path, _settings(path, config), create=True) as log, _text(open_lines(lines)) as stream:
        result = take(log, stream, user=user, reward_range=(low, high), decided_at=at)
    typer.echo(f"{path}: {result.pages:,} pages of {result.lines:,} lines")
    for reason, count in {**result.skipped, **result.fields}.items():
        typer.echo(f"  {count:,} {reason}{'; --decided-at gives one' if reason == NO_TIME else ''}")


@app.command("export-dsjson")
def export_dsjson(
    path: Log,
    out: Annotated[Path, typer.Option(help="File to write.")],
    proof_key: ProofKey = None,
    config: Config = None,
) -> None:
    """Writes one DSJSON line for each drawn card of each closed page."""
    from bart.log.care.dsjson_export import export_dsjson as write

    with _open(path, _settings(path, config), proof_key=proof_key) as log:
        log.close_windows(datetime.now(timezone.utc))
        result = write(log, out)
    typer.echo(f"{out}: {result.lines:,} lines of {result.pages:,} pages")
    for reason, count in result.skipped.items():
        typer.echo(f"  {count:,} {reason}")


def _text(stream: BinaryIO) -> TextIO:
    return TextIOWrapper(stream, encoding="utf-8", errors="replace")


def _settings(path: Path, config: Path | None) -> Settings:
    """The settings; where there is no file of them, rewards are those that the run was made with."""
    from api.run.recorded import settings_of_run

    return settings_of_run(path.parent, config)


def _open(
    path: Path,
    settings: Settings,
    window_h: float | None = None,
    create: bool = False,
    durable: bool = False,
    reads: bool = False,
    proof_key: Path | None = None,
) -> DecisionLog:
    """An open log. reads: nothing is written to it, and no table added that an earlier version lacks."""
    from bart.errors import DataError, LogError
    from bart.log.decision_log import DecisionLog

    window_h = settings.reward.window_h if window_h is None else window_h
    if not 0 < window_h <= _LONGEST_WINDOW_H:
        raise DataError(f"--window-h is {window_h}; expected hours, more than 0 and at most {_LONGEST_WINDOW_H}")
    if not create and not (path.is_file() and path.stat().st_size):
        raise LogError(f"{path} does not exist or is empty; expected a decision log (log.sqlite)")
    synchronous: Literal["FULL", "NORMAL"] = "FULL" if durable else "NORMAL"
    key, window = _key(proof_key, path.parent, settings), timedelta(hours=window_h)
    return DecisionLog(path, feedback_window=window, create=not reads, synchronous=synchronous, proof_key=key)


def _key(file: Path | None, run: Path, settings: Settings) -> bytes | None:
    from bart.log.proof.key import read_key

    given = file or (Path(settings.log.proof_key) if settings.log.proof_key else None)
    return None if given is None else read_key(given, run)


def _tell_entries(entries: Sequence[Entry]) -> None:
    """Prints what the chain gained, to be kept elsewhere."""
    from bart.log.proof.check import entry_line

    for entry in entries:
        typer.echo(entry_line(entry))


def _days(text: str) -> timedelta:
    from bart.errors import DataError

    number = text.removesuffix("d")
    if not (number.isascii() and number.isdecimal() and int(number[:9]) >= 1 and len(number) <= 9):
        raise DataError(f"--older-than is {text!r}; expected whole days such as 90d")
    if int(number) > _OLDEST_D:
        raise DataError(f"--older-than is {text!r}; expected {_OLDEST_D}d at most")
    return timedelta(days=int(number))
