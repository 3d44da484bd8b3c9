"""Albums, playlists and shows of a world: what stands in them, and which of them each listener comes back to.

Every track stands in one album of its artist; some of the world's playlists are cards; a show stands near a cluster
of the music and its episodes near the show, so that who likes a kind of music likes shows about it. Rows of the world
are its tracks, then episodes, albums, playlists and shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Dates, Floats, Floats32, Ints, Members
from simulator.world import names
from simulator.world.catalogue import Catalogue, around, unit
from simulator.world.config import ContainerConfig, WorldConfig
from simulator.world.population import BUCKET_OF_HOUR, BUCKETS, HOUR_SHARE, Population

KINDS = ("episode", "album", "playlist", "show")
ALBUM, PLAYLIST, SHOW = range(1, len(KINDS))
HABITS = (SHOW, PLAYLIST, ALBUM, SHOW)  # what a listener comes back to
TRIED = 12  # shows that a listener may try
_CLOSENESS = 9.0  # how closely habits keep to the taste
_MASS = 0.6  # how much well-known ones draw
_BLOCK = 2_000  # listeners drawn for at once; bounds the memory


@dataclass(frozen=True, eq=False)
class Containers:
    """c cards beside the n tracks; arrays by card in the order of `KINDS`.

    kind [c] into KINDS. vector [c, d] unit. weight [c] how often it is played, beside others of its kind. quality [c]
    hidden. artist [c]: of an album the catalogue's, else a number of its own. cluster [c]: what it is about. members:
    world rows of the tracks and episodes of each world row. habit [L, 4] world rows of `HABITS`, habit_bucket [L, 4]
    into BUCKETS; tried [L, 12] world rows of shows.
    """

    kind: Ints
    item_id: tuple[str, ...]
    title: tuple[str, ...]
    host: tuple[str, ...]  # of shows and their episodes, "" of others
    vector: Floats32
    weight: Floats
    quality: Floats
    artist: Ints
    cluster: Ints
    released_at: Dates
    duration_s: Floats
    members: Members
    habit: Ints
    habit_bucket: Ints
    tried: Ints

    def __len__(self) -> int:
        return len(self.kind)

    def rows(self, kind: int, tracks: int) -> Ints:
        """World rows of a kind."""
        return tracks + np.flatnonzero(self.kind == kind)

    def owner(self, tracks: int) -> Ints:
        """[n + c] the container that a card stands for: its own row, of an episode the show's; -1 of a track."""
        out = np.full(tracks + len(self), -1, dtype=np.int64)
        out[tracks:] = np.arange(tracks, tracks + len(self))
        for show in self.rows(SHOW, tracks).tolist():
            out[self.members[show]] = show
        return out


@dataclass(frozen=True, eq=False)
class Cards:
    """What the truth and the events read of every world row; owner: see `Containers.owner`."""

    item_id: tuple[str, ...]
    vector: Floats32
    popularity: Floats
    quality: Floats
    artist: Ints
    duration_s: Floats
    owner: Ints

    def __len__(self) -> int:
        return len(self.item_id)

    @classmethod
    def of(cls, music: Catalogue, more: Containers | None) -> Cards:
        n = len(music)
        tracks = cls(
            music.item_id, music.vector, music.popularity, music.quality, music.artist, music.duration_s,
            np.full(n, -1, dtype=np.int64),
        )  # fmt: skip
        if more is None:
            return tracks
        return cls(
            (*music.item_id, *more.item_id),
            np.concatenate([music.vector, more.vector]),
            np.concatenate([music.popularity, popularity_of(more)]),
            np.concatenate([music.quality, more.quality]),
            np.concatenate([music.artist, more.artist]),
            np.concatenate([music.duration_s, np.where(np.isnan(more.duration_s), 1_800.0, more.duration_s)]),
            more.owner(n),
        )


def popularity_of(containers: Containers) -> Floats:
    """[c] in [0, 1] on a log scale, beside others of the kind."""
    out = np.zeros(len(containers))
    for kind in range(len(KINDS)):
        mine = containers.kind == kind
        log = np.log(containers.weight[mine])
        out[mine] = (log - log.min()) / max(float(log.max() - log.min()), 1e-12)
    return out


def make_containers(
    music: Catalogue, people: Population, playlists: pa.Table, config: WorldConfig, rng: np.random.Generator
) -> Containers:
    """The containers of a world, and the habits of its listeners."""
    asked = config.containers or ContainerConfig()
    n = len(music)
    album_rng, list_rng, show_rng, word_rng, habit_rng = rng.spawn(5)
    albums = _albums(music, asked.album_tracks, album_rng)
    lists, list_ids = _chosen_lists(music, playlists, asked.playlists, list_rng)
    n_shows, each = asked.shows, asked.episodes
    episodes = [np.arange(n + s * each, n + (s + 1) * each) for s in range(n_shows)]
    held = [*albums, *lists, *episodes]
    n_episodes = n_shows * each
    members = Members.of_lists([()] * (n + n_episodes) + [rows.tolist() for rows in held])

    about = show_rng.integers(0, config.n_clusters, size=n_shows)
    show_vector = around(music.cluster_vector[about], 0.5, show_rng)
    show_weight = (show_rng.permutation(n_shows) + 6.0) ** -0.9
    show_quality = show_rng.standard_normal(n_shows)
    of = np.repeat(np.arange(n_shows), each)
    episode_vector = around(show_vector[of], 0.3, show_rng)
    of_tracks = [*albums, *lists]
    mean = unit(np.stack([music.vector[rows].astype(np.float64).sum(axis=0) for rows in of_tracks]))
    cluster = [int(np.bincount(music.cluster[rows]).argmax()) for rows in of_tracks]
    weight = [float(music.weight[rows].sum()) for rows in albums] + [float(music.weight[rows].mean()) for rows in lists]
    quality = [float(music.quality[rows].mean()) for rows in of_tracks]
    n_artists = int(music.artist.max()) + 1
    kind = np.repeat(np.arange(len(KINDS)), [n_episodes, len(albums), len(lists), n_shows])
    style = [music.cluster_style[c] for c in [*cluster, *about.tolist()]]
    hosts = names.artist_names(n_shows, word_rng)
    a, p = len(albums), len(albums) + len(lists)
    shows = names.show_titles(style[p:], word_rng)
    made = Containers(
        kind=kind,
        item_id=(
            *(f"e{i:07d}" for i in range(n_episodes)),
            *(f"a{i:06d}" for i in range(a)),
            *list_ids,
            *(f"s{i:05d}" for i in range(n_shows)),
        ),
        title=(
            *(f"{shows[s]} {i % each + 1}" for i, s in enumerate(of.tolist())),
            *names.track_titles(a, word_rng),
            *names.list_titles(style[a:p], word_rng),
            *shows,
        ),
        host=(*(hosts[s] for s in of.tolist()), *([""] * p), *hosts),
        vector=np.concatenate([episode_vector, mean, show_vector]).astype(np.float32),
        weight=np.concatenate([show_weight[of], weight, show_weight]),
        quality=np.concatenate([show_quality[of], quality, show_quality]),
        artist=np.concatenate(
            [n_artists + of, [music.artist[rows[0]] for rows in albums], n_artists + n_shows + np.arange(len(lists)),
             n_artists + np.arange(n_shows)]
        ).astype(np.int64),
        cluster=np.concatenate([about[of], cluster, about]).astype(np.int64),
        released_at=_released(music, of_tracks, n_shows, each, config),
        duration_s=np.concatenate(
            [
                np.clip(show_rng.normal(1_900.0, 500.0, size=n_episodes), 600.0, 3_600.0).round(),
                np.full(p + n_shows, np.nan),
            ]
        ),
        members=members,
        habit=np.empty((0, len(HABITS)), dtype=np.int64),
        habit_bucket=np.empty((0, len(HABITS)), dtype=np.int64),
        tried=np.empty((0, TRIED), dtype=np.int64),
    )  # fmt: skip
    return _with_habits(made, n, people, habit_rng)


def with_titles(playlists: pa.Table, containers: Containers) -> pa.Table:
    """playlists.parquet with the titles of those that are cards."""
    mine = np.flatnonzero(containers.kind == PLAYLIST)
    title = {containers.item_id[k]: containers.title[k] for k in mine.tolist()}
    place = pc.index_in(playlists["playlist_id"].combine_chunks(), pa.array(list(title), pa.string()))
    return playlists.append_column("title", pa.array(list(title.values()), pa.string()).take(place))


def with_container_rows(tracks: pa.Table, music: Catalogue, more: Containers) -> pa.Table:
    """items.parquet of the tracks with their albums, and rows for what the containers add."""
    n = len(music)
    within: dict[str, list[str | None]] = {name: [None] * (n + len(more)) for name in ("album", "show")}
    for kind, name in ((ALBUM, "album"), (SHOW, "show")):
        for row in more.rows(kind, n).tolist():
            for member in more.members[row].tolist():
                within[name][member] = more.item_id[row - n]
    artists = [[host] if host else [] for host in more.host]
    for k in np.flatnonzero(more.kind == ALBUM).tolist():
        artists[k] = [music.artist_name[int(more.artist[k])]]
    explicit = np.zeros(n + len(more), dtype=np.bool_)
    explicit[:n] = music.explicit
    holder, member = more.members.pairs()
    np.logical_or.at(explicit, holder, explicit[member])
    text = pa.list_(pa.string())
    genre = [names.genre_name(int(music.cluster_genre[c])) for c in more.cluster.tolist()]
    added = pa.table(
        {
            "item_id": pa.array(more.item_id, pa.string()),
            "title": pa.array(more.title, pa.string()),
            "type": pa.array([KINDS[k] for k in more.kind.tolist()], pa.string()),
            "artist_ids": pa.array(artists, text),
            "genres": pa.array(
                [[g, music.cluster_style[c]] for g, c in zip(genre, more.cluster.tolist(), strict=True)], text
            ),
            "released_at": pa.array(more.released_at.astype("datetime64[D]"), pa.date32()),
            "duration_s": pa.array(more.duration_s, pa.float64(), from_pandas=True),
            "explicit": pa.array(explicit[n:], pa.bool_()),
            "countries": pa.array([[]] * len(more), text),
            "popularity": pa.array(popularity_of(more), pa.float64()),
        }
    )
    table = pa.concat_tables([tracks, added])
    for name, ids in within.items():
        table = table.append_column(name, pa.array(ids, pa.string()))
    return table


def is_habit(containers: Containers, owner: Ints, listener: Ints, hour: Ints) -> tuple[Bools, Bools]:
    """[m] whether a card stands for what a listener comes back to, and whether it is at its time.

    owner [m]: of `Cards.owner`; listener [m] index; hour [m] local.
    """
    match = (containers.habit[listener] == owner[:, None]) & (owner >= 0)[:, None]
    now = match & (containers.habit_bucket[listener] == BUCKET_OF_HOUR[hour][:, None])
    habit: Bools = match.any(axis=1)
    at_its_time: Bools = now.any(axis=1)
    return habit, at_its_time


def _albums(music: Catalogue, length: float, rng: np.random.Generator) -> list[Ints]:
    """Rows of the tracks of each album: an artist's tracks, shuffled, in albums of nearly equal length."""
    out: list[Ints] = []
    for start, stop in zip(music.artist_start[:-1].tolist(), music.artist_start[1:].tolist(), strict=True):
        rows = start + rng.permutation(stop - start)
        out.extend(np.sort(part) for part in np.array_split(rows, max(1, round(len(rows) / length))))
    return out


def _chosen_lists(
    music: Catalogue, playlists: pa.Table, most: int, rng: np.random.Generator
) -> tuple[list[Ints], list[str]]:
    """Rows of the tracks of some playlists, in their order, and the ids of these."""
    encoded = playlists["playlist_id"].combine_chunks().dictionary_encode()
    ids = encoded.dictionary.to_pylist()
    code = encoded.indices.to_numpy()
    row = pc.index_in(playlists["item_id"].combine_chunks(), pa.array(music.item_id, pa.string())).to_numpy()
    start = np.searchsorted(code, np.arange(len(ids) + 1))
    chosen = np.sort(rng.permutation(len(ids))[:most]).tolist()
    return [row[start[k] : start[k + 1]].astype(np.int64) for k in chosen], [ids[k] for k in chosen]


def _released(music: Catalogue, of_tracks: list[Ints], n_shows: int, each: int, config: WorldConfig) -> Dates:
    """Episodes come out regularly, a third of them before the first day; an album with its last track."""
    first = np.datetime64(config.start.date(), "D")
    horizon = config.days + config.visit_days
    day = np.floor((np.arange(each) - each // 3) * horizon / max(each - each // 3, 1)).astype(np.int64)
    episode = first + np.tile(day, n_shows).astype("timedelta64[D]")
    sets = np.array([music.released_at[rows].max() for rows in of_tracks], dtype="datetime64[D]")
    show = np.full(n_shows, first + day[0].astype("timedelta64[D]"))
    out: Dates = np.concatenate([episode, np.minimum(sets, first), show])
    return out


def _with_habits(made: Containers, tracks: int, people: Population, rng: np.random.Generator) -> Containers:
    """The containers with what each listener comes back to and may try, by taste and by how well known it is."""
    n = len(people)
    size = np.diff(made.members.offset)
    able = {k: rows[size[rows] >= 4] for k in (ALBUM, PLAYLIST, SHOW) for rows in (made.rows(k, tracks),)}
    shows = HABITS.count(SHOW)
    habit = np.empty((n, len(HABITS)), dtype=np.int64)
    tried = np.empty((n, TRIED), dtype=np.int64)
    for first in range(0, n, _BLOCK):
        part = slice(first, min(first + _BLOCK, n))
        interest, share = people.interest[part].astype(np.float64), people.interest_share[part]
        taste = unit(np.einsum("lk,lkd->ld", share, interest))
        for kind, rows in able.items():
            score = _CLOSENESS * taste @ made.vector[rows - tracks].T.astype(np.float64)
            score += _MASS * np.log(made.weight[rows - tracks]) + rng.gumbel(size=score.shape)
            most = shows + TRIED if kind == SHOW else 1
            found = rows[np.argsort(-score, axis=1, kind="stable")[:, :most]]
            slots = [slot for slot, name in enumerate(HABITS) if name == kind]
            habit[part, slots] = found[:, : len(slots)]
            if kind == SHOW:
                tried[part] = found[:, shows:]
    bucket_share = np.bincount(BUCKET_OF_HOUR, weights=HOUR_SHARE, minlength=len(BUCKETS))
    bucket = rng.choice(len(BUCKETS), size=habit.shape, p=bucket_share / bucket_share.sum())
    fields = {name: getattr(made, name) for name in Containers.__dataclass_fields__}
    return Containers(**{**fields, "habit": habit, "habit_bucket": bucket, "tried": tried})
