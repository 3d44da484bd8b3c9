"""Evaluation and training of listener models as commands: files, figures by hand, resuming, vectors of the past."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_listening import Synthetic, synthetic_listening

from api.cli import main
from bart.errors import DataError
from recommender.listener.data import evaluation_days, listening_data, read_vectors, write_vectors
from recommender.listener.model import ListenerModel
from recommender.listener.train_job import train_listener_model
from recommender.sessions.sessions import Sessions, cut_sessions
from recommender.states.states import load_listener_model
from recommender.study.evaluation import METRICS, MODELS
from recommender.study.exploratory import ContextKind, context_kinds, nearest_sessions, shares, skips_by_similarity
from recommender.study.metrics import track_candidates, track_cosine, track_ranking
from recommender.study.paper_tables import PAPER_TABLE_2
from recommender.study.repeats import fit_repeats, repeat_features


def world(users: int = 8, days: int = 22, **effects: float) -> tuple[Sessions, Synthetic]:
    w = synthetic_listening(np.random.default_rng(0), users=users, days=days, **effects)  # type: ignore[arg-type]
    return cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector), w


def files(folder: Path) -> tuple[Path, Path]:
    _, w = world()
    events, tracks = folder / "events.parquet", folder / "vectors.parquet"
    pq.write_table(w.events, events)
    write_vectors(tracks, np.array(w.item_id, dtype=object), w.vector)
    return events, tracks


def bart(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


def test_the_command_writes_a_table_of_models_only_and_the_rest_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, tracks = files(tmp_path)
    bad = pq.read_table(events).slice(0, 7).to_pylist()
    both = [*pq.read_table(events).to_pylist(), *({**row, "listened_s": -1.0} for row in bad)]
    pq.write_table(pa.Table.from_pylist(both), events)
    out = tmp_path / "study"
    small = ("--hidden", "8", "--epochs", "1", "--test-days", "5", "--validation-days", "2", "--seeds", "2")
    code, said, error = bart(
        capsys, "evaluate-listener", events, "--out", out, "--tracks", tracks, "--seed", "3", *small
    )
    assert code == 0, error
    table = json.loads((out / "table2.json").read_text())
    assert tuple(table) == MODELS
    assert set(PAPER_TABLE_2) < set(table)  # every model of the paper under the paper's name
    assert all(tuple(values) == METRICS for values in table.values())
    run = json.loads((out / "run.json").read_text())
    assert run["seed"] == 3
    assert run["sizes"]["test_sessions"] > 0
    assert set(run["p_values"]) == set(MODELS) - {"CoSeRNN"}
    assert set(run["figures"]) == {"figure1", "figure2a", "figure2b", "figure3", "figure5"}
    drawn = {"table2", "figure1", "figure2a", "figure3", "figure5"}
    assert drawn <= {path.stem for path in out.glob("*.svg")}
    assert "CoSeRNN, cosine:" in said
    tables = (out / "tables.md").read_text()
    assert f"{table['EMA']['cosine']:.4f}" in tables
    assert run["events"][0] == "read as a table (table)"
    assert "\n- 7 rows left out: listened_s is below 0; e.g. row " in tables


def test_a_users_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, tracks = files(tmp_path)
    wrong = tmp_path / "wrong.parquet"
    pq.write_table(pa.table({"item_id": ["a", "b"], "vector": [[1.0], [1.0, 0.0]]}), wrong)
    for arguments, said in (
        (("evaluate-listener", tmp_path / "none.parquet"), "does not exist"),
        (("evaluate-listener", events, "--tracks", tmp_path / "none.parquet"), "expected a file of track vectors"),
        (("evaluate-listener", events, "--tracks", wrong), "one length for all"),
        (("evaluate-listener", events, "--tracks", tracks, "--test-days", "99"), "days; expected more than"),
        (("train-listener", events, "--tracks", tracks, "--model", "BERT"), "CoSeRNN or CoSeRNN+"),
    ):
        code, _, error = bart(capsys, *arguments, "--out", tmp_path / "out")
        assert code == 2
        last = error.strip().splitlines()[-1]
        assert last.startswith("bart: ")
        assert said in last
    assert not (tmp_path / "out" / "table2.json").exists()


def trained(folder: Path, epochs: int = 2, seed: int = 1) -> tuple[dict[str, object], ListenerModel]:
    events, tracks = pq.read_table(folder / "events.parquet"), folder / "vectors.parquet"
    record = train_listener_model(events, folder / "model", tracks=tracks, hidden=8, epochs=epochs, seed=seed)
    return record, load_listener_model(folder / "model")


def test_a_trained_listener_model_can_be_loaded_and_run_again_resumes_to_the_same_bits(tmp_path: Path) -> None:
    files(tmp_path)
    record, model = trained(tmp_path)
    again, same = trained(tmp_path)  # from the checkpoint: nothing is left to do
    assert record == again
    assert len(record["validation"]) == 2  # type: ignore[arg-type]
    state = model.initial(np.array([3.0]))
    np.testing.assert_array_equal(state, same.initial(np.array([3.0])))
    assert model.dimension == 8
    item_id, vector = read_vectors(tmp_path / "model" / "tracks.parquet")
    np.testing.assert_allclose(vector, world()[1].vector, atol=1e-6)
    assert len(item_id) == len(vector)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    files(tmp_path)
    trained(tmp_path, epochs=1)
    with pytest.raises(DataError, match="seed differs"):
        trained(tmp_path, epochs=1, seed=2)
    checkpoint = tmp_path / "model" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a whole checkpoint"):
        trained(tmp_path, epochs=1)
    (tmp_path / "model" / "training.json").write_text("7")
    with pytest.raises(DataError, match="an unknown training"):
        trained(tmp_path, epochs=1)


def test_vectors_are_trained_on_nothing_that_is_validated_on_or_tested() -> None:
    _, w = world(days=30)
    at = w.events["started_at"].cast(pa.int64()).to_numpy()
    late = at >= at.max() - 19 * 86_400 * 1_000_000
    shuffled = np.array(w.events["item_id"].to_pylist(), dtype=object)
    shuffled[late] = np.random.default_rng(1).permutation(shuffled[late])
    changed = w.events.set_column(1, "item_id", pa.array(shuffled.tolist()))
    one, other = (listening_data(e, rng=np.random.default_rng(5)) for e in (w.events, changed))
    np.testing.assert_array_equal(one.vector, other.vector)
    assert "before the validation set" in one.vectors_from


def test_a_listener_model_learns_from_plays_alone() -> None:
    _, w = world(days=30)
    n = len(w.events)
    plays = w.events.append_column("type", pa.nulls(n, pa.string()))
    likes = w.events.append_column("type", pa.array(["like"] * n))
    both = pa.concat_tables([plays, likes.slice(0, n // 2)]).sort_by(
        [("user_id", "ascending"), ("started_at", "ascending")]
    )
    one, other = (listening_data(e, rng=np.random.default_rng(5)) for e in (w.events, both))
    np.testing.assert_array_equal(one.vector, other.vector)
    np.testing.assert_array_equal(one.sessions.columns.played, other.sessions.columns.played)
    with pytest.raises(DataError, match="no event is a play"):
        listening_data(likes, rng=np.random.default_rng(5))


def test_the_last_14_days_are_tested_and_of_a_short_span_a_fifth() -> None:
    def days(span: float) -> tuple[float, float]:
        second = (
            pa.array([0, int(span * 86_400)], pa.int64()).cast(pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
        )
        return evaluation_days(pa.table({"started_at": second}))

    assert days(60) == days(33) == (14, 5)
    assert days(20) == (4, 2)
    with pytest.raises(DataError, match="there are no plays"):
        evaluation_days(pa.table({"started_at": pa.array([], pa.timestamp("us", "UTC"))}))


def test_shares_count_sessions_and_listeners_by_hand() -> None:
    s, _ = world(users=4, days=3)
    first = np.where(s.user == 0, 0, 1)  # listener 0 in one context, the others in another
    found = shares(s, ContextKind(("a", "b"), first))
    assert found == {"a": {"sessions": 0.25, "listeners": 0.25}, "b": {"sessions": 0.75, "listeners": 0.75}}


def test_nearest_sessions_share_their_context_only_where_context_moves_taste() -> None:
    def diagonal(effect: float) -> float:
        s, _ = world(users=30, days=20, context_effect=effect, drift=0.0)
        found = nearest_sessions(s, context_kinds(s)["device"], np.random.default_rng(0))
        excess = np.array(found["excess"])
        np.testing.assert_allclose(excess.sum(axis=1), 0, atol=1e-12)
        return float(np.diagonal(excess).mean())

    assert diagonal(2.0) > 0.3  # 0.5 at most
    assert abs(diagonal(0.0)) < 0.05


def test_the_slope_of_skips_is_that_of_a_line_through_the_sessions() -> None:
    s, _ = world(users=10, days=20)
    s = replace(s, track_skipped=np.random.default_rng(1).random(len(s.track)) < 0.4)
    cosine, rate = [], []
    for row in np.flatnonzero(s.position > 0):
        past = s.columns.all[row - s.position[row] : row]
        mean = np.arange(1, len(past) + 1) @ past
        cosine.append(float(mean @ s.columns.all[row] / np.linalg.norm(mean)))
        rate.append(s.track_skipped[s.track_offset[row] : s.track_offset[row + 1]].mean())
    for entry in skips_by_similarity(s)[:3]:
        kept = [i for i, r in enumerate(rate) if round(6 * r) >= entry["least"]]
        x, y = np.array(cosine)[kept], np.array(rate)[kept]
        assert entry["sessions"] == len(kept)
        assert entry["slope"] == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-6)
        assert entry["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)


def repeating(rng: np.random.Generator) -> Sessions:
    """Listening in which what was heard last comes again, whatever the vectors say."""
    s, _ = world(users=12, days=20)
    track = s.track.copy()
    for row in np.flatnonzero(s.position > 0):
        here = slice(s.track_offset[row], s.track_offset[row + 1])
        before = slice(s.track_offset[row - 1], s.track_offset[row])
        again = rng.random(6) < 0.7
        track[here] = np.where(again, rng.permutation(track[before]), rng.integers(400, size=6))
    return replace(s, track=track, track_skipped=np.zeros_like(s.track_skipped))


def test_the_repeat_component_learns_recency_and_the_cosine_where_each_decides() -> None:
    rng = np.random.default_rng(2)
    s = repeating(rng)
    _, w = world()
    rows = np.flatnonzero(s.position > 5)
    past = track_candidates(s, rows, 100, literal=True)
    noise = rng.standard_normal((len(rows), 8)).astype(np.float32)
    cosine = track_cosine(noise, w.vector, past)
    weight = fit_repeats(cosine, past, rng)
    both = track_ranking(repeat_features(cosine, past) @ weight, past)[0]
    alone = track_ranking(cosine, past)[0]
    assert weight[1] > 0.5  # the nearer the front the likelier
    assert abs(weight[2]) < 0.2  # vectors of chance have no say
    assert np.nanmean(both) > 2 * np.nanmean(alone)


def test_without_any_repeat_the_vector_ranks() -> None:
    s, _ = world()
    rows = np.flatnonzero(s.position > 5)[:50]
    past = track_candidates(s, rows, 20, literal=True)
    none = replace(past, relevant=np.zeros_like(past.relevant))
    weight = fit_repeats(np.zeros(past.row.shape, dtype=np.float32), none, np.random.default_rng(0))
    assert weight.tolist() == [0, 0, 1, 0, 0]
