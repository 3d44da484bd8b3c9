"""Track vectors by co-occurrence against word2vec: neighbours, recall, CoSeRNN, CPU time, stability.

    OMP_NUM_THREADS=1 python benchmarks/track_vectors.py [--data FOLDER] [--part test] [--grid] [--cosernn]

Three simulated worlds, by playlists and by sessions, and the real data sets of FOLDER (benchmarks/_track_sets.py).
Vectors learn from what lies before the part that is judged. CBOW is gensim's, with the settings that served in 0.1, and
is left out where gensim is not installed. Columns:

half, next    recall of the second half of a session from its first, of a session from the listener's last one: share of
              its tracks among the nearest 100 (20 of fewer than 4,000), +- 1.96 standard errors
artist, genre share of the ten nearest that have them in common
seeds, new    share of the ten nearest kept between two seeds, and after 1 % of the items and what is heard of them came
              in; old: mean cosine of those vectors, aligned, to the ones before
--cosernn     cosine and MRR among 20 sessions of others (open) of EMA and CoSeRNN; the MRR can be compared between
              spaces, the cosine only beside that of a random session (chance)
--grid        one setting at a time, on validation data; half + next relative to the defaults
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError
from benchmarks._track_sets import TrackSet, track_sets
from recommender.listener.data import evaluation_days, sessions_before
from recommender.listener.training import evaluation_training
from recommender.sessions.sessions import cut_sessions
from recommender.study.evaluation import EvaluationConfig, evaluate_sessions
from recommender.vectors.sentences import Sentences, sentences_of_events
from recommender.vectors.track import TrackVectorConfig, train_track_vectors, unit

Vectors = np.ndarray[Any, Any]
Maker = Callable[[Sentences, int, int], Vectors]
MOST = 2_000  # sessions, or items, that are judged


def cooccurrence(sentences: Sentences, n: int, seed: int) -> Vectors:
    return train_track_vectors(sentences, n, seed=seed)


def cbow(sentences: Sentences, n: int, seed: int) -> Vectors:
    """As version 0.1 trained: gensim's CBOW, small data read more often, centred and of unit length."""
    from gensim.models import Word2Vec

    words = len(sentences.row)
    config = TrackVectorConfig()
    history = config.reach(words, len(sentences)) > 10
    text = sentences.row.astype(str).tolist()
    model = Word2Vec(
        [
            text[start : min(start + 1_000, end)]
            for begin, end in zip(sentences.offset[:-1].tolist(), sentences.offset[1:].tolist(), strict=True)
            for start in range(begin, end, 1_000)
        ],
        vector_size=40, window=50 if history else 10, min_count=config.fewest(words), sample=1e-4 if history else 1e-3,
        negative=10, alpha=0.1, epochs=int(np.clip(2_000_000 // max(words, 1), 3, 60)), sg=0, workers=1, seed=seed,
    )  # fmt: skip
    out = np.zeros((n, 40), dtype=np.float32)
    out[np.array(model.wv.index_to_key, dtype=np.int64)] = model.wv.vectors - model.wv.vectors.mean(axis=0)
    return unit(out)


def recall(vector: Vectors, asked: list[tuple[Vectors, Vectors]], found: int) -> tuple[float, float]:
    """Mean share of `wanted` among the nearest of the mean of `given`, and 1.96 standard errors. asked: rows."""
    asked = [(given, wanted) for given, wanted in asked if vector[given].any() and len(wanted)]
    rng = np.random.default_rng(0)
    asked = [asked[k] for k in np.sort(rng.permutation(len(asked))[:MOST])]
    mean = unit(np.array([vector[given].sum(axis=0) for given, _ in asked], dtype=np.float32))
    missing = ~vector.any(axis=1)
    hit = []
    for start in range(0, len(asked), 500):
        score = mean[start : start + 500] @ vector.T
        score[:, missing] = -2
        near = np.argpartition(-score, found - 1, axis=1)[:, :found]
        hit += [np.isin(w, n).mean() for n, (_, w) in zip(near, asked[start : start + 500], strict=True)]
    return float(np.mean(hit)), float(1.96 * np.std(hit) / np.sqrt(len(hit)))


def both_recalls(data: TrackSet, vector: Vectors) -> dict[str, tuple[float, float]]:
    halves, nexts = [], []
    for k, (listener, rows) in enumerate(data.held):
        middle = (len(rows) + 1) // 2
        halves.append((rows[:middle], np.setdiff1d(rows[middle:], rows[:middle])))
        if k and data.held[k - 1][0] == listener:
            nexts.append((data.held[k - 1][1], np.unique(rows)))
    return {"half": recall(vector, halves, data.found), "next": recall(vector, nexts, data.found)}


def neighbours(vector: Vectors, able: Vectors, asked: Vectors) -> Vectors:
    """[asked, 10] rows of the nearest of `able`."""
    score = vector[asked] @ vector[able].T
    score[np.arange(len(asked)), np.searchsorted(able, asked)] = -2
    return able[np.argpartition(-score, 9, axis=1)[:, :10]]


def kept(one: Vectors, other: Vectors) -> float:
    """Share of the ten nearest that both have in common."""
    able = np.flatnonzero(one.any(axis=1) & other.any(axis=1))
    asked = np.sort(np.random.default_rng(0).permutation(able)[:MOST])
    pairs = zip(neighbours(one, able, asked), neighbours(other, able, asked), strict=True)
    return float(np.mean([np.isin(a, b).mean() for a, b in pairs]))


def with_new_items(data: TrackSet, make: Maker) -> tuple[float, float]:
    """Neighbours kept, and mean cosine to the old vectors once aligned, after 1 % of the items came in."""
    new = np.zeros(data.n, dtype=bool)
    new[np.random.default_rng(1).permutation(data.n)[: max(data.n // 100, 1)]] = True
    old = make(data.sentences.only(~new), data.n, 1)
    now = make(data.sentences, data.n, 1)
    both = old.any(axis=1) & now.any(axis=1)
    left, _, right = np.linalg.svd(now[both].T @ old[both])
    return kept(old, now), float(((now @ (left @ right))[both] * old[both]).sum(axis=1).mean())


def cosernn(data: TrackSet, make: Maker) -> str:
    """Cosine and open MRR of EMA and CoSeRNN on the last days, and the cosine of a random session."""
    test_d, validation_d = evaluation_days(data.events)
    sentences = data.sentences
    if "playlists" not in data.name:
        sentences = sentences_of_events(sessions_before(data.events, test_d + validation_d), data.row_of)
    vector = make(sentences, data.n, 1)
    sessions = cut_sessions(data.events, data.row_of, vector)
    config = EvaluationConfig(
        ("EMA", "CoSeRNN"), 64, test_d, validation_d, evaluation_training(8), seeds=1, rates=(2e-3,)
    )
    try:
        table = evaluate_sessions(sessions, vector, config, rng=np.random.default_rng(1))["table2"]
    except DataError as error:
        return f"  CoSeRNN: {error}"
    played = sessions.columns.played[sessions.has_played]
    a, b = (np.random.default_rng(s).permutation(len(played))[:5_000] for s in (1, 2))
    chance = float((played[a] * played[b]).sum(axis=1).mean())
    return f"  cosine chance {chance:.3f}, " + ", ".join(
        f"{name} {row['cosine']:.3f} (open {row['open_mrr']:.3f})" for name, row in table.items()
    )


def judged(data: TrackSet, name: str, make: Maker, with_cosernn: bool) -> None:
    start = time.process_time()
    vector = make(data.sentences, data.n, 1)
    cpu_s = time.process_time() - start
    able = np.flatnonzero(vector.any(axis=1))
    asked = np.sort(np.random.default_rng(0).permutation(able)[:MOST])
    near = neighbours(vector, able, asked)
    told = [f"{m} {value:.3f} +- {error:.3f}" for m, (value, error) in both_recalls(data, vector).items()]
    told += [f"{m} {(code[near] == code[asked][:, None]).mean():.3f}" for m, code in data.label.items()]
    new, old = with_new_items(data, make)
    told += [f"seeds {kept(vector, make(data.sentences, data.n, 2)):.3f}", f"new {new:.3f}", f"old {old:.3f}"]
    print(f"  {name:<14} {cpu_s:6.2f} s  {', '.join(told)}; {len(able):,} items", flush=True)
    if with_cosernn:
        print(cosernn(data, make), flush=True)


def grid(data: TrackSet) -> None:
    """One setting at a time beside the defaults."""
    base = TrackVectorConfig()
    tried = {"smoothing": (0.5, 1.0), "pseudo_count": (0.0, 0.3, 3.0), "shift": (0.3, 0.7), "power": (0.0, 0.25, 1.0),
             "window": (5, 20, 50)}  # fmt: skip
    first = None
    for name, value in [("defaults", None), *((name, v) for name, values in tried.items() for v in values)]:
        config = base if value is None else replace(base, **{name: value})
        found = both_recalls(data, train_track_vectors(data.sentences, data.n, config, seed=1))
        total = sum(v for v, _ in found.values())
        first = first or total
        told = ", ".join(f"{m} {v:.3f}" for m, (v, _) in found.items())
        print(f"  {name} {'' if value is None else value}".ljust(22) + f"{told}  {total / first:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--seeds", type=int, nargs="*", default=[11, 12, 13])
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--cosernn", action="store_true")
    asked = parser.parse_args()
    methods: dict[str, Maker] = {"co-occurrence": cooccurrence}
    try:
        import gensim  # noqa: F401

        methods["CBOW"] = cbow
    except ModuleNotFoundError:
        print("CBOW is left out: gensim is not installed")
    for data in track_sets(asked.data, "validation" if asked.grid else asked.part, asked.seeds, asked.listeners):
        words = f"{len(data.sentences.row):,} words in {len(data.sentences):,} sentences"
        print(f"\n{data.name}: {data.n:,} items, {words}, {len(data.held):,} later sessions", flush=True)
        if asked.grid:
            grid(data)
        else:
            for name, make in methods.items():
                judged(data, name, make, asked.cosernn)


if __name__ == "__main__":
    main()
