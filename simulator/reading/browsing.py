"""How a home page is read: rows top-down with abandonment, cards left to right with swiping.

The first card of the first row of a displayed page is reached. A reached card is looked at (always, but where looking
depends on content); a card that is looked at is seen, and streamed with probability appeal x trust of its column x
trust of its row. Then the listener goes on to the next column with probability hc1 after a stream, hc0 without one;
whoever leaves the row goes on to the next one with probability hr1 if the row had a stream, hr0 if not, and otherwise
leaves the page. Worlds differ in these numbers, by listener and by content (docs/worlds.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from bart.types import Bools, Floats, Ints
from simulator.reading.scanning import Hazards, two_state


@dataclass(frozen=True, slots=True)
class BrowsingParams:
    """One way of reading pages.

    hc0, hc1: to go on to the next column after a card without, with a stream. hr0, hr1: to the next row after a row
    without, with a stream. column_trust, row_trust: t per step, so that column c has trust column_trust^c. patience:
    how much a listener's own patience (standard normal) moves the logits of all four. content: how much the appeal of
    a card moves whether it is looked at and whether one goes on, in logits for each logit of appeal above `usual`.
    glance: share of reached cards of the usual appeal that are looked at. displayed: share of pages that get to a
    screen. touch: share of cards seen without a stream that are played for less than 30 s. saved: share of streams.
    """

    name: str = "custom"
    hc0: float = 0.85
    hc1: float = 0.85
    hr0: float = 0.85
    hr1: float = 0.85
    column_trust: float = 1.0
    row_trust: float = 1.0
    patience: float = 0.0
    content: float = 0.0
    usual: float = 0.08
    glance: float = 1.0
    displayed: float = 0.97
    touch: float = 0.06
    saved: float = 0.08
    edge: float = 1.0
    skipped: float = 0.0
    returns: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "hc0", "hc1", "hr0", "hr1", "column_trust", "row_trust", "glance", "displayed", "touch", "saved", "edge",
            "skipped", "returns",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share in [0, 1]")
        if not 0 < self.usual < 1:
            raise ValueError(f"usual is {self.usual}; expected an appeal in (0, 1)")
        if self.patience < 0 or self.content < 0:
            raise ValueError("patience and content must be at least 0")
        if self.skipped and self.returns:
            raise ValueError("skipped and returns are both more than 0; expected one of them")


WORLDS: dict[str, BrowsingParams] = {
    p.name: p
    for p in (
        BrowsingParams("W1", hc0=0.85, hc1=0.85, hr0=0.85, hr1=0.85),
        BrowsingParams("W2", hc0=0.90, hc1=0.0, hr0=0.90, hr1=0.0),
        BrowsingParams("W3", hc0=0.82, hc1=0.90, hr0=0.78, hr1=0.92, column_trust=0.93),
        BrowsingParams("W4", hc0=0.85, hc1=0.85, hr0=0.85, hr1=0.85, patience=1.0),
        BrowsingParams("W5", hc0=0.82, hc1=0.90, hr0=0.78, hr1=0.92, column_trust=0.93, patience=1.0),
        BrowsingParams("W6", hc0=0.80, hc1=0.88, hr0=0.80, hr1=0.90, column_trust=0.96, content=0.6, glance=0.85),
        # Fitted on real interactions, CC BY-SA 4.0: see simulator/datasets/kuairand/world.py.
        BrowsingParams(
            "KUAIRAND", hc0=0.423, hc1=0.370, hr0=0.512, hr1=0.510, column_trust=0.951, row_trust=0.975, patience=0.695
        ),
        # Middle bias, slower decay, row skipping: what eye tracking finds on grids (Xie et al., 2019).
        BrowsingParams("GRID", hc0=0.92, hc1=0.92, hr0=0.85, hr1=0.85, edge=0.7, skipped=0.2),
        BrowsingParams("RETURN", hc0=0.75, hc1=0.85, hr0=0.75, hr1=0.88, column_trust=0.95, returns=0.3),
    )
}


def world_params(name: str) -> BrowsingParams:
    """The way of reading called `name`; ValueError for an unknown one."""
    if name not in WORLDS:
        raise ValueError(f"world is {name!r}; expected one of {', '.join(WORLDS)}")
    return WORLDS[name]


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """What happened on b pages.

    displayed [b]. seen, streamed, listened_s, saved [b, rows, columns]; listened_s is at least 30 exactly where
    streamed, and 0 where not played.
    """

    displayed: Bools
    seen: Bools
    streamed: Bools
    listened_s: Floats
    saved: Bools


def hazards(appeal: Floats, present: Bools, params: BrowsingParams, patience: Floats | None = None) -> Hazards:
    """What governs the reading of each page; everything [b, rows, columns] or [b, rows].

    appeal [b, rows, columns] in [0, 1] (anything where no card is present). patience [b]: of the page's listener,
    needed where `params.patience` is not 0.
    """
    b, rows, columns = _shape(appeal, present)
    bad = present & ~((appeal >= 0) & (appeal <= 1))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"appeal{list(where)} is {appeal[where]}; expected a probability in [0, 1]")
    if params.patience and patience is None:
        raise ValueError(f"patience is missing; expected [{b}], as world {params.name} depends on the listener's own")
    own = np.zeros(b) if patience is None or not params.patience else params.patience * np.asarray(patience)
    trust = params.row_trust ** np.arange(rows)[:, None] * params.column_trust ** np.arange(columns)
    stream = np.where(present, appeal, 0.0) * trust
    interest = np.zeros((b, rows, columns))
    if params.content:
        level = logit(np.clip(appeal, 1e-4, 1 - 1e-4)) - logit(params.usual)
        interest = np.where(present, params.content * np.clip(level, -3.0, 3.0), 0.0)
    outward = np.abs(2 * np.arange(columns) - (columns - 1)) / max(columns - 1, 1)  # 0 in the middle, 1 at either end
    look = np.where(present, _moved(params.glance, interest), 0.0) * (1 - (1 - params.edge) * outward)
    card = own[:, None, None] + interest
    # A row's own appeal is the mean over its cards: a promising row makes the next one worth a look.
    row = own[:, None] + interest.sum(axis=2) / np.maximum(present.sum(axis=2), 1)
    return Hazards(
        stream=stream,
        look=look,
        column_0=_moved(params.hc0, card),
        column_1=_moved(params.hc1, card),
        row_0=_moved(params.hr0, row),
        row_1=_moved(params.hr1, row),
        skipped=params.skipped,
        returns=params.returns,
    )


def browse(
    appeal: Floats,
    present: Bools,
    params: BrowsingParams,
    rng: np.random.Generator,
    *,
    patience: Floats | None = None,
    duration_s: Floats | None = None,
) -> Feedback:
    """What b listeners do with their pages.

    appeal [b, rows, columns]: P(stream | examined); present [b, rows, columns]: where a card stands (from the left).
    patience [b]: see `hazards`. duration_s [b, rows, columns]: of the tracks, bounds what is listened. Every page takes
    the same number of random draws, whatever is on it, so that two policies can be compared on shared randomness.
    """
    h = hazards(appeal, present, params, patience)
    b, rows, columns = appeal.shape
    u = rng.random((b, 5, rows, columns))  # look, stream, go on, seconds, small actions
    go_down = rng.random((b, rows))
    displayed: Bools = np.asarray(rng.random(b) < params.displayed)
    passed: Bools = np.asarray(rng.random((b, rows)) < h.skipped if h.skipped else np.zeros((b, rows), dtype=np.bool_))
    reader = _Reader(h, present, u)
    reader.read(displayed, ~passed, go_down)
    if h.returns:
        back: Bools = np.asarray(rng.random(b) < h.returns)
        reader.read(displayed & back, ~passed, rng.random((b, rows)))
    seen, streamed = reader.seen, reader.streamed
    # A stream lasts 30 s and more; a touch stays below.
    most = np.full((b, rows, columns), 600.0) if duration_s is None else np.maximum(duration_s, 30.0)
    long = np.minimum(30.0 - 150.0 * np.log1p(-u[:, 3]), most)
    touched = seen & ~streamed & (u[:, 4] < params.touch)
    listened = np.where(streamed, long, np.where(touched, 1.0 + 28.0 * u[:, 3], 0.0))
    return Feedback(
        displayed=displayed,
        seen=seen,
        streamed=streamed,
        listened_s=np.floor(10 * listened) / 10,
        saved=streamed & (u[:, 4] < params.saved),
    )


class _Reader:
    """Readers of b pages on the way from the top: what they have seen and streamed, and how far they are in each row.

    u: [b, 3 and more, rows, columns] uniform numbers: look, stream, go on. A card is come to once at most.
    """

    def __init__(self, h: Hazards, present: Bools, u: Floats) -> None:
        self.h, self.present, self.u = h, present, u
        self.seen: Bools = np.zeros(present.shape, dtype=np.bool_)
        self.streamed: Bools = np.zeros(present.shape, dtype=np.bool_)
        self.done: Ints = np.zeros(present.shape[:2], dtype=np.int64)  # cards of each row that were come to

    def read(self, on_page: Bools, looked: Bools, go_down: Floats) -> None:
        """One way down. on_page: [b], who starts. looked: [b, rows], not passed over. go_down: [b, rows] uniform."""
        h, u = self.h, self.u
        for r in range(self.present.shape[1]):
            there = on_page & self.present[:, r, 0]
            reading, start = there & looked[:, r], self.done[:, r].copy()
            for c in range(self.present.shape[2]):
                ahead = c >= start
                here = reading & ahead & self.present[:, r, c]
                seen = here & (u[:, 0, r, c] < h.look[:, r, c])
                stream = seen & (u[:, 1, r, c] < h.stream[:, r, c])
                self.seen[:, r, c] |= seen
                self.streamed[:, r, c] |= stream
                self.done[:, r] += here
                on = u[:, 2, r, c] < np.where(stream, h.column_1[:, r, c], h.column_0[:, r, c])
                reading = np.where(ahead, here & on, reading)
            success = self.streamed[:, r].any(axis=1)
            on_page = there & (go_down[:, r] < np.where(success, h.row_1[:, r], h.row_0[:, r]))


def page_value(appeal: Floats, present: Bools, params: BrowsingParams, *, patience: Floats | None = None) -> Floats:
    """[b] expected streams of each displayed page, exactly: what goes on depends on nothing but two states a row.

    Shapes as in `browse`. A page that is not displayed is left out of everything, so it is left out here.
    """
    stream, _ = two_state(hazards(appeal, present, params, patience), present)
    out: Floats = stream.sum(axis=(1, 2))
    return out


def exposure(appeal: Floats, present: Bools, params: BrowsingParams, *, patience: Floats | None = None) -> Floats:
    """[b, rows, columns] probability that each card of a displayed page is seen, exactly."""
    return two_state(hazards(appeal, present, params, patience), present)[1]


def _moved(share: float, by: Floats) -> Floats:
    """A probability moved by logits; 0 and 1 stay."""
    if share in (0.0, 1.0):
        return np.full(by.shape, share)
    out: Floats = expit(logit(share) + by)
    return out


def _shape(appeal: Floats, present: Bools) -> tuple[int, int, int]:
    if appeal.ndim != 3 or appeal.shape != present.shape:
        raise ValueError(f"appeal {appeal.shape} and present {present.shape} must both be [b, rows, columns]")
    if np.any(present[:, :, 1:] & ~present[:, :, :-1]) or np.any(present[:, 1:, 0] & ~present[:, :-1, 0]):
        raise ValueError("present has a gap; expected rows filled from the top and cards from the left")
    return appeal.shape
