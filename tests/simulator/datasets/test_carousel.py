"""The carousel: its truth, what policies learn from, and that fast draws are draws from the stated distributions."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import places
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq, minimize
from scipy.special import betaincc, expit, ndtr
from scipy.stats import beta as beta_distribution
from scipy.stats import chisquare

from bart.errors import DataError
from bart.types import Bools, Floats, Ints
from simulator.datasets import carousel as c
from simulator.datasets.carousel import policies as p

DATA = places.DATA / "deezer_carousel"
REAL = pytest.mark.skipif(
    not (DATA / "playlist_features.csv").is_file(),
    reason=f"Deezer's files are not at {os.path.relpath(DATA)}; they may not be passed on with this package",
)


@pytest.fixture(scope="module")
def small() -> c.CarouselEnvironment:
    """Seven cards, four slots, two on screen, three segments; streams are likely, so that cascades are short."""
    rng = np.random.default_rng(3)
    return c.CarouselEnvironment(
        rng.normal(size=(30, 4)), np.arange(30) % 3, rng.normal(size=(7, 4)), rng.normal(-1.0, 0.5, 7), 30, 4, 2
    )


def first_by_hand(environment: c.CarouselEnvironment, who: int, page: list[int], u: Floats) -> int | None:
    """The slot of the first stream, card by card, from the definition."""
    for slot, card in enumerate(page):
        logit = sum(a * b for a, b in zip(environment.theta[card], environment.listener[who], strict=True))
        if u[slot] < 1 / (1 + np.exp(-(logit + environment.bias[card]))):
            return slot
    return None


def test_listeners_respond_as_one_goes_through_their_pages_by_hand(small: c.CarouselEnvironment) -> None:
    rng = np.random.default_rng(0)
    listener, u = rng.integers(0, 30, 400), rng.random((400, 4))
    shown = np.stack([rng.permutation(7)[:4] for _ in range(400)])
    streamed, value = small.respond(listener, shown, u)
    found = [first_by_hand(small, who, page, row) for who, page, row in zip(listener, shown.tolist(), u, strict=True)]
    assert [int(row.argmax()) if row.any() else None for row in streamed] == found
    assert streamed.sum(axis=1).max() == 1
    miss = 1 - np.take_along_axis(small.probability(listener), shown, axis=1)
    np.testing.assert_allclose(value, 1 - miss.prod(axis=1), rtol=1e-12)


def test_the_value_of_random_pages_is_the_mean_over_all_sets_of_cards(small: c.CarouselEnvironment) -> None:
    who = np.arange(5)
    miss = 1 - small.probability(who)
    by_sets = [1 - np.mean([np.prod(row[list(s)]) for s in combinations(range(7), 4)]) for row in miss]
    np.testing.assert_allclose(small.random_value(who), by_sets, rtol=1e-12)


def test_no_page_is_worth_more_than_the_best_one(small: c.CarouselEnvironment) -> None:
    miss = 1 - small.probability(np.arange(30))
    best = [max(1 - np.prod(row[list(s)]) for s in combinations(range(7), 4)) for row in miss]
    np.testing.assert_allclose(small.best_value, best, rtol=1e-12)
    assert (small.segment_value <= small.best_value + 1e-12).all()


def test_the_regret_of_random_pages_is_the_closed_form(small: c.CarouselEnvironment) -> None:
    result = c.run_carousel(small, ["random"], 40, 500, 1, repetitions=2)
    per_page = result.regret["random"] / 500
    expected = (small.best_value - small.random_value(np.arange(30))).mean()
    error = per_page.std(ddof=1) / np.sqrt(per_page.size)
    assert abs(per_page.mean() - expected) < 4 * error
    assert error < 0.05 * expected


def lessons_by_hand(
    segment: Ints, shown: Ints, streamed: Bools, initial: int, cascade: bool, all_cards: bool
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """Displays and streams by (segment, card), listener by listener, as the benchmark's text has it."""
    display: dict[tuple[int, int], int] = {}
    success: dict[tuple[int, int], int] = {}
    for s, cards, streams in zip(segment.tolist(), shown.tolist(), streamed.tolist(), strict=True):
        for place, (card, stream) in enumerate(zip(cards, streams, strict=True), start=1):
            display[s, card] = display.get((s, card), 0) + 1
            success[s, card] = success.get((s, card), 0) + stream
            nothing = not any(streams) and not all_cards
            if cascade and (stream or (nothing and place == initial)):
                break
    return display, success


@pytest.mark.parametrize(("cascade", "all_cards"), [(True, False), (True, True), (False, False)])
def test_segments_count_what_a_walk_through_every_page_counts(
    small: c.CarouselEnvironment, cascade: bool, all_cards: bool
) -> None:
    rng = np.random.default_rng(5)
    policy = p.ThompsonSegment(small.segment, 7, 1, 9)
    total: list[dict[tuple[int, int], int]] = [{}, {}]
    for _ in range(3):
        listener, u = rng.integers(0, 30, 200), rng.random((200, 4))
        shown = policy.rank(listener, 4, rng)
        streamed, _ = small.respond(listener, shown, u)
        policy.update(listener, shown, streamed, c.seen_cards(streamed, 2, cascade, all_cards))
        for sums, counts in zip(
            total,
            lessons_by_hand(small.segment[listener], shown, streamed, 2, cascade, all_cards),
            strict=True,
        ):
            for key, n in counts.items():
                sums[key] = sums.get(key, 0) + n
    for s in range(3):
        for card in range(7):
            assert policy.display[s, card] == total[0].get((s, card), 0)
            assert policy.success[s, card] == total[1].get((s, card), 0)


def test_the_first_slots_are_shuffled_and_with_the_defect_the_first_listeners() -> None:
    shown = np.arange(600).reshape(50, 12)
    rng = np.random.default_rng(0)
    right = c.shuffled(shown, 3, rng)
    np.testing.assert_array_equal(np.sort(right[:, :3], axis=1), shown[:, :3])
    np.testing.assert_array_equal(right[:, 3:], shown[:, 3:])
    assert (right[:, 0] != shown[:, 0]).mean() > 0.4
    wrong = np.stack([c.shuffled(shown, 3, rng, whole_listeners=True) for _ in range(20)])
    assert (wrong[:, 3:] == shown[3:]).all()
    assert {tuple(rows[:, 0]) for rows in wrong[:, :3]} > {(0, 12, 24), (12, 0, 24)}


def share_best(density: list[tuple[float, float]]) -> Floats:
    """P(each of independent Betas is the largest), by quadrature."""
    laws = [beta_distribution(a, b) for a, b in density]
    out = []
    for i, law in enumerate(laws):
        others = [other for j, other in enumerate(laws) if j != i]
        out.append(quad(lambda x, law=law, o=others: law.pdf(x) * np.prod([q.cdf(x) for q in o]), 0, 1, limit=200)[0])
    return np.array(out)


@pytest.mark.parametrize("least", [0.02, 0.3, 0.6, 0.95])
def test_draws_of_betas_have_the_best_card_as_often_as_they_should_whatever_is_left_out(least: float) -> None:
    from simulator.datasets.carousel.kernels import best_of_beta

    density = [(1.0, 1.0), (1.0, 9.0), (5.0, 20.0), (9.0, 3.0), (12.0, 12.0), (30.0, 10.0)]
    a, b = np.array(density).T[:, None].copy()
    out = np.empty((20_000, 3), dtype=np.int64)
    floor = np.array([least])
    best_of_beta(a, b, floor, betaincc(a, b, least), np.arange(20_000), np.array([0, 20_000]), 11, out)
    assert chisquare(np.bincount(out[:, 0], minlength=6), 20_000 * share_best(density)).pvalue > 1e-3
    rng = np.random.default_rng(1)
    plain = np.argsort(-rng.beta(a, b, size=(20_000, 6)), axis=1)[:, :3]
    for place in (1, 2):
        seen, expected = (np.bincount(x[:, place], minlength=6) for x in (out, plain))
        assert (np.abs(seen - expected) <= 5 * np.sqrt(seen + expected)).all()


def test_tails_of_betas_and_normals_are_drawn_from_their_distributions() -> None:
    from simulator.datasets.carousel.kernels import beta_above, normal_above

    state = np.array([5], dtype=np.uint64)
    share = np.linspace(0.1, 0.9, 9)
    for a, b, least in [(1.0, 1.0, 0.97), (1.0, 99.0, 0.05), (20.0, 300.0, 0.1), (4.0, 6.0, 0.2), (9.0, 1.0, 0.99)]:
        tail = float(betaincc(a, b, least))
        x = np.array([beta_above(a, b, least, tail, state) for _ in range(20_000)])
        assert x.min() > least
        at = beta_distribution(a, b).isf(tail * (1 - share))
        np.testing.assert_allclose((x[:, None] < at).mean(axis=0), share, atol=0.016)  # 4.5 standard errors
    for least in (0.0, 0.4, 2.0):
        z = np.array([normal_above(least, state) for _ in range(20_000)])
        tail = ndtr(-least)
        for q in (0.2, 0.5, 0.8):
            at = brentq(lambda v, tail=tail, q=q: ndtr(-v) - tail * (1 - q), least, least + 8)
            assert abs((z < at).mean() - q) < 0.016


def test_linear_draws_have_the_best_card_as_often_as_drawing_every_weight() -> None:
    rng = np.random.default_rng(2)
    x = np.tile(np.append(rng.normal(size=3), 1.0), (30_000, 1))
    policy = p.LinearThompson(x, 6, bias=-1.0)
    policy.mean += rng.normal(scale=0.8, size=(6, 4))
    policy.precision += rng.gamma(1.0, size=(6, 4))
    out = policy.rank(np.arange(30_000), 3, rng)
    weight = policy.mean + rng.normal(size=(30_000, 6, 4)) / np.sqrt(policy.precision)
    plain = np.argsort(-(weight @ x[0]), axis=1)
    for place in range(3):
        seen, expected = (np.bincount(a[:, place], minlength=6) for a in (out, plain))
        assert (np.abs(seen - expected) <= 5 * np.sqrt(seen + expected)).all()


def test_tied_cards_come_in_random_order_and_better_ones_first(small: c.CarouselEnvironment) -> None:
    policy = p.EpsilonGreedySegment(small.segment, 7, epsilon=0.0)
    policy.display += 10
    policy.success += np.array([9, 5, 5, 5, 1, 1, 1])  # of every segment
    out = policy.rank(np.arange(30).repeat(400), 3, np.random.default_rng(0))
    assert (out[:, 0] == 0).all()
    pair = out[:, 1] * 10 + out[:, 2]
    values, count = np.unique(pair, return_counts=True)
    assert values.tolist() == [12, 13, 21, 23, 31, 32]
    assert chisquare(count).pvalue > 1e-3


def test_the_upper_bound_solves_its_equation() -> None:
    policy = p.KlUcb(np.zeros(4, dtype=np.int64), 3)
    policy.display[:] = [[100, 40, 0]]
    policy.success[:] = [[20, 0, 0]]
    from simulator.datasets.carousel.kernels import kl_bounds

    bound = np.empty((1, 3))
    kl_bounds(policy.success, policy.display, np.log([140.0]), bound)

    def excess(q: float) -> float:
        return 100 * (0.2 * np.log(0.2 / q) + 0.8 * np.log(0.8 / (1 - q))) - np.log(140)

    assert bound[0, 0] == pytest.approx(brentq(excess, 0.2, 0.999), abs=2e-6)
    assert bound[0, 1] == pytest.approx(1 - 140 ** (-1 / 40), abs=2e-6)
    assert bound[0, 2] == 1.0


def test_the_posterior_mode_is_what_a_general_optimiser_finds() -> None:
    rng = np.random.default_rng(4)
    x, mean, precision = 4 * rng.normal(size=(60, 5)), rng.normal(size=5), rng.gamma(2.0, size=5)
    success = rng.random(60) < expit(x @ rng.normal(size=5) - 1)

    def loss(w: Floats) -> float:
        margin = np.where(success, x @ w, -(x @ w))
        return float(np.logaddexp(0, -margin).sum() + precision @ (w - mean) ** 2 / 2)

    found = p.posterior_mode(x, success, mean, precision)
    np.testing.assert_allclose(found, minimize(loss, mean, options={"gtol": 1e-8}).x, atol=1e-5)


@pytest.fixture(scope="module")
def middle() -> c.CarouselEnvironment:
    return c.synthetic_carousel(np.random.default_rng(0), 2_000, n_cards=60, dimension=16, n_segments=4)


@pytest.mark.parametrize("name", list(p.POLICIES))
def test_every_policy_shows_distinct_cards_and_runs_alike_from_the_same_seed(
    middle: c.CarouselEnvironment, name: str
) -> None:
    policy = p.POLICIES[name](middle)
    out = policy.rank(np.arange(50), 12, np.random.default_rng(0))
    assert all(len(set(row)) == 12 for row in out.tolist())
    assert out.min() >= 0
    assert out.max() < 60
    first, second = (c.run_carousel(middle, [name], 3, 300, 7, repetitions=2) for _ in range(2))
    np.testing.assert_array_equal(first.regret[name], second.regret[name])
    np.testing.assert_array_equal(first.streams[name], second.streams[name])


def test_learning_policies_miss_fewer_streams_than_random_pages(middle: c.CarouselEnvironment) -> None:
    learning = ["etc-seg-exploit", "epsilon-greedy-explore", "kl-ucb-seg", "ts-seg-pessimistic", "ts-lin-pessimistic"]
    result = c.run_carousel(middle, ["random", *learning], 25, 1_000, 3)
    random = result.regret["random"][:, -5:].mean()
    for name in learning:
        assert result.regret[name][:, -5:].mean() < 0.75 * random, name
    mean, lower, upper = result.cumulative("random")
    assert (lower < mean).all()
    assert (mean < upper).all()
    less, _, most = result.difference("ts-seg-pessimistic", "random")
    assert less[-1] < most[-1] < 0


def test_new_listeners_have_the_norms_and_nearness_of_those_given() -> None:
    rng = np.random.default_rng(0)
    given = 10 * np.eye(3, 20) + rng.normal(size=(3, 20))
    listener, segment = c.synthesise(given, np.zeros(3, np.int64), 20_003, 5, rng)
    np.testing.assert_array_equal(listener[:3], given)
    norm = np.linalg.norm(given, axis=1)
    new = np.linalg.norm(listener[3:], axis=1)
    assert new.mean() == pytest.approx(norm.mean(), abs=5 * norm.std() / np.sqrt(20_000))
    unit = listener[3:] / new[:, None]
    for s in range(5):
        one = unit[segment[3:] == s]
        assert np.mean(one[:500] @ one[500:1000].T) == pytest.approx(0.73, abs=0.03)


def write_files(folder: Path, listeners: int = 4) -> None:
    rng = np.random.default_rng(0)
    names = ",".join(f"dim_{i}" for i in range(5))
    rows = "\n".join(f"{i % 2}," + ",".join(map(str, rng.normal(size=5))) for i in range(listeners))
    (folder / "user_features_small.csv").write_text(f"segment,{names}\n{rows}\n")
    rows = "\n".join(",".join(map(str, rng.normal(size=6))) for _ in range(15))
    (folder / "playlist_features.csv").write_text(f"{names},5\n{rows}\n")


def test_files_are_read_and_filled_up(tmp_path: Path) -> None:
    write_files(tmp_path)
    found = c.load_carousel(tmp_path, np.random.default_rng(0), n_listeners=100, n_segments=3)
    assert (found.given, found.listener.shape, found.theta.shape) == (4, (100, 5), (15, 5))
    assert set(found.segment.tolist()) == {0, 1, 2}
    only = c.load_carousel(tmp_path, np.random.default_rng(0), n_listeners=0)
    np.testing.assert_array_equal(only.listener, found.listener[:4])


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"playlist_features.csv does not exist; expected"):
        c.load_carousel(tmp_path, np.random.default_rng(0))
    write_files(tmp_path)
    file = tmp_path / "user_features_small.csv"
    good = file.read_text()
    file.write_text("\n".join(line.rpartition(",")[0] for line in good.splitlines()))
    with pytest.raises(DataError, match="listeners of 4 and playlists of 6 columns"):
        c.load_carousel(tmp_path, np.random.default_rng(0))
    file.write_text(good.replace("segment", "cluster"))
    with pytest.raises(DataError, match="has no column segment"):
        c.load_carousel(tmp_path, np.random.default_rng(0))
    file.write_text(good + "0,a,1,2,3,4\n")
    with pytest.raises(DataError, match="column dim_0 is not all numbers"):
        c.load_carousel(tmp_path, np.random.default_rng(0))


def test_unknown_policies_and_empty_runs_are_refused(small: c.CarouselEnvironment) -> None:
    with pytest.raises(ValueError, match="policy is 'greedy'; expected one of random, etc-seg-explore"):
        c.run_carousel(small, ["greedy"], 1, 1, 0)
    with pytest.raises(ValueError, match="rounds is 0; expected at least 1"):
        c.run_carousel(small, ["random"], 0, 1, 0)


@REAL
def test_the_published_files_have_862_playlists_and_streams_as_rare_as_published() -> None:
    found = c.load_carousel(DATA, np.random.default_rng(0), n_listeners=2_000)
    assert (found.given, found.theta.shape, found.listener.shape) == (9, (862, 96), (2_000, 96))
    p_given, p_new = (found.probability(who).mean() for who in (np.arange(9), np.arange(9, 2_000)))
    assert 0.004 < p_new < 1.3 * p_given < 0.013
    norm = np.linalg.norm(found.listener, axis=1)
    assert norm[9:].mean() == pytest.approx(norm[:9].mean(), rel=0.02)
