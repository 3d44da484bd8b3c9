"""Whether tracks that nobody has played find their neighbours by artist and tags: real tags of MTG-Jamendo.

    python benchmarks/content_vectors.py FOLDER [--seed 0]

FOLDER holds autotagging_*.tsv of https://github.com/MTG/mtg-jamendo-dataset. There are no plays in it, so the track
space is word2vec of what stands together: albums, and an artist's tracks. 2,000 tracks are hidden; their vectors are
expected from the others by artist and tags (genre, instrument, mood), by tags alone, by genre alone. Recall: share of a
hidden track's ten nearest among the first hundred found. Needs a minute.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from bart.types import Labels
from recommender.shelves.items import item_table, read_items
from recommender.vectors.content import cold_recall
from recommender.vectors.sentences import Sentences
from recommender.vectors.track import train_track_vectors

FILES = "autotagging_*.tsv"


def read_tracks(folder: Path) -> dict[str, tuple[str, str, set[str]]]:
    """{track: (artist, album, tags)} of all files; their first five columns are fixed, then come any number of tags."""
    found: dict[str, tuple[str, str, set[str]]] = {}
    for path in sorted(folder.glob(FILES)):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            track, artist, album, _, _, *tags = line.split("\t")
            found.setdefault(track, (artist, album, set()))[2].update(tags)
    return found


def groups(keys: list[str], rng: np.random.Generator) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Rows of equal key, each group in random order: on an album near and far tracks belong together alike."""
    _, code = np.unique(keys, return_inverse=True)
    order = np.lexsort((rng.random(len(code)), code))
    return [g for g in np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(g) > 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.folder is None:
        print("content_vectors: nothing measured; expected the folder of the MTG-Jamendo tags")
        return
    tracks = read_tracks(asked.folder)
    if not tracks:
        parser.error(f"{asked.folder} holds no {FILES}")
    order_rng, hide_rng = np.random.default_rng(asked.seed).spawn(2)
    ids = sorted(tracks)
    artist, album = [tracks[t][0] for t in ids], [tracks[t][1] for t in ids]
    together = groups(album, order_rng) + groups(artist, order_rng)
    offset = np.concatenate([[0], np.cumsum([len(g) for g in together])]).astype(np.int64)
    vector = train_track_vectors(Sentences(np.concatenate(together), offset), len(ids), seed=asked.seed)
    tags = [sorted(tracks[t][2]) for t in ids]
    columns = {"item_id": ids, "artist": artist, "genres": pa.array(tags, pa.list_(pa.string()))}
    items = item_table(read_items(pa.table(columns)).items, vector)
    nobody = Labels.of([()] * len(ids))
    genres = Labels.of([tuple(tag for tag in own if tag.startswith("genre---")) for own in tags])
    n_tags = len(set().union(*map(set, tags)))
    print(f"seed {asked.seed}: {len(ids):,} tracks, {len(set(artist)):,} artists, {n_tags} tags")
    for name, table in (
        ("artist and tags", items),
        ("tags alone", replace(items, artists=nobody)),
        ("genre alone", replace(items, artists=nobody, genres=genres)),
    ):
        found = cold_recall(table, hide_rng.spawn(1)[0])
        print(f"{name}: recall {found.recall:.3f}, chance {found.chance:.4f}, {found.hidden:,} hidden")


if __name__ == "__main__":
    main()
