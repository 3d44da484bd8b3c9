"""Pages: enumerated worlds with and without overlap, pins, short pages, and replay to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import chisquare

from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy, PlackettLuce, Ranking, RankingPolicy, Uniform
from bart.types import Bools, Candidates, Floats, Ints, Page, Shelf


@dataclass(frozen=True)
class Plain:
    """A ranking policy of somebody else: the same pmf, without what the compiled path knows."""

    inner: RankingPolicy

    def pmf(self, score: Floats, available: Bools, position: int | None = None) -> Floats:
        return self.inner.pmf(score, available, position)

    def rank(self, score: Floats, k: int, rng: np.random.Generator) -> Ranking:
        return self.inner.rank(score, k, rng)

    def propensity(self, score: Floats, order: Ints) -> Floats:
        return self.inner.propensity(score, order)

    def marginal(self, score: Floats, k: int) -> Floats:
        return self.inner.marginal(score, k)


POLICIES = {
    "epsilon_greedy": PagePolicy(EpsilonGreedy(0.3), EpsilonGreedy(0.2)),
    "by position": PagePolicy(EpsilonGreedy([0.1, 0.6, 1.0]), EpsilonGreedy([0.5, 0.0, 0.9])),
    "greedy": PagePolicy(EpsilonGreedy(0), EpsilonGreedy(0)),
    "uniform": PagePolicy(Uniform(), Uniform()),
    "mixed": PagePolicy(Uniform(), EpsilonGreedy(0.4)),
    "plackett_luce": PagePolicy(PlackettLuce(0.5), PlackettLuce(0.3)),
    "plackett_luce cards": PagePolicy(EpsilonGreedy(0.3), PlackettLuce(0.3)),
    "somebody else's": PagePolicy(Plain(EpsilonGreedy(0.3)), Plain(EpsilonGreedy(0.2))),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
COMPILED = ["epsilon_greedy", "by position", "greedy", "uniform", "mixed"]


def world(shelf: list[int], item: list[int] | None = None, n_shelves: int | None = None) -> Candidates:
    n_shelves = max([*shelf, -1]) + 1 if n_shelves is None else n_shelves
    return Candidates(
        np.array(range(len(shelf)) if item is None else item, dtype=np.int64),
        np.array(shelf, dtype=np.int64),
        tuple(Shelf(f"rule {s}", f"title {s}") for s in range(n_shelves)),
    )


THREE_BY_THREE = world([0, 1, 2, 2, 1, 0, 1, 0, 2])
SCORE = np.array([0.5, 0.9, 0.2, 0.2, 0.1, 0.5, 0.9, 0.3, 0.7])
OVERLAPPING = world([0, 0, 1, 1, 2, 2, 2], item=[7, 3, 7, 4, 3, 4, 5])
OVERLAPPING_SCORE = np.array([0.9, 0.3, 0.9, 0.6, 0.3, 0.6, 0.1])


def page_of(shelf: tuple[int, ...], rows: list[tuple[int, ...]], columns: int) -> Page:
    card = np.full((len(shelf), columns), -1)
    for r, row in enumerate(rows):
        card[r, : len(row)] = row
    nothing = np.full(card.shape, np.nan)
    return Page(np.array(shelf, dtype=np.int64), card, nothing[:, 0].copy(), nothing, card < -1)


def every_page(candidates: Candidates, rows: int, columns: int) -> Iterator[Page]:
    """All pages that can be, from the definition: a shelf with a card left, then its cards while there are any."""

    def extend(
        taken: frozenset[int], shelf: tuple[int, ...], cards: list[tuple[int, ...]]
    ) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
        free = [c for c in range(len(candidates)) if int(candidates.item[c]) not in taken and candidates.shelf[c] >= 0]
        shelves = sorted({int(candidates.shelf[c]) for c in free} - set(shelf))
        if len(shelf) == rows or not shelves:
            yield shelf, cards
            return
        for s in shelves:
            mine = [c for c in free if candidates.shelf[c] == s]
            for order in permutations(mine, min(columns, len(mine))):
                gone = taken | {int(candidates.item[c]) for c in order}
                if len(gone) == len(taken) + len(order):
                    yield from extend(gone, (*shelf, s), [*cards, order])

    for shelf, cards in extend(frozenset(candidates.item[candidates.shelf < 0].tolist()), (), []):
        yield page_of(shelf, cards, columns)


def probability(policy: PagePolicy, candidates: Candidates, score: Floats, page: Page, raw: Floats | None) -> float:
    shelf, card = policy.propensity(candidates, score, page, raw_score=raw)
    return float(np.prod(shelf) * np.prod(card[page.shown]))


@every_policy
@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 2), (1, 3), (5, 1)])
def test_pages_of_three_shelves_are_a_distribution_with_the_stated_marginals(
    policy: PagePolicy, rows: int, columns: int
) -> None:
    if columns == 3 and rows == 3 and not isinstance(policy.card_policy, (EpsilonGreedy, Uniform)):
        columns = 2
    if isinstance(policy.shelf_policy, EpsilonGreedy) and isinstance(policy.shelf_policy.epsilon, tuple):
        rows = min(rows, 3)
    raw = SCORE[::-1].copy()
    shelf, card = policy.marginal(THREE_BY_THREE, SCORE, rows, columns, raw_score=raw)
    found_shelf, found_card = np.zeros_like(shelf), np.zeros((len(SCORE), rows, columns))
    total = 0.0
    for page in every_page(THREE_BY_THREE, rows, columns):
        p = probability(policy, THREE_BY_THREE, SCORE, page, raw)
        total += p
        for r, s in enumerate(page.shelf):
            found_shelf[s, r] += p
            for c, position in enumerate(page.card[r]):
                found_card[position, r, c] += p
    assert total == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(shelf, found_shelf, rtol=0, atol=1e-12)
    slots = shelf[THREE_BY_THREE.shelf][:, :, None] * card[:, None, :]
    np.testing.assert_allclose(slots, found_card, rtol=0, atol=1e-12)


def test_page_propensities_are_those_of_the_rankings_of_shelves_and_of_cards() -> None:
    policy = POLICIES["epsilon_greedy"]
    best = np.array([0.5, 0.9, 0.7])
    for page in every_page(THREE_BY_THREE, 3, 3):
        shelf, card = policy.propensity(THREE_BY_THREE, SCORE, page)
        np.testing.assert_array_equal(shelf, policy.shelf_policy.propensity(best, page.shelf))
        for r, s in enumerate(page.shelf):
            member = np.flatnonzero(THREE_BY_THREE.shelf == s)
            order = np.searchsorted(member, page.card[r])
            np.testing.assert_array_equal(card[r], policy.card_policy.propensity(SCORE[member], order))


@every_policy
@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (3, 1), (2, 2)])
def test_overlapping_shelves_keep_a_distribution_over_pages(policy: PagePolicy, rows: int, columns: int) -> None:
    total = sum(
        probability(policy, OVERLAPPING, OVERLAPPING_SCORE, page, None)
        for page in every_page(OVERLAPPING, rows, columns)
    )
    assert total == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="candidates overlap"):
        policy.marginal(OVERLAPPING, OVERLAPPING_SCORE, rows, columns)


def test_a_taken_card_leaves_its_other_shelves_and_their_values_fall() -> None:
    # Greedy: shelves 0 and 1 are both worth 0.9 by item 7; once shelf 0 shows it, shelf 1 is worth 0.6, as is shelf 2.
    page = page_of((0, 1), [(0, 1), (3,)], 2)
    shelf, card = POLICIES["greedy"].propensity(OVERLAPPING, OVERLAPPING_SCORE, page)
    np.testing.assert_array_equal(shelf, [1 / 2, 1 / 2])
    np.testing.assert_array_equal(card, [[1, 1], [1, np.nan]])
    page = page_of((0, 1), [(0, 1), (2,)], 2)
    with pytest.raises(ValueError, match=r"card\[1, 0\] is 2; expected a candidate of shelf 1 that was not taken"):
        POLICIES["greedy"].propensity(OVERLAPPING, OVERLAPPING_SCORE, page)


@every_policy
@pytest.mark.parametrize("case", ["apart", "overlapping", "pinned", "raw"])
def test_a_decided_page_is_recomputed_to_the_last_bit(policy: PagePolicy, case: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(40):
        n = int(rng.integers(1, 25))
        shelf = rng.integers(0, 5, size=n)
        item = rng.integers(0, 15, size=n) if case == "overlapping" else np.arange(n)
        pins: list[tuple[int, int, int]] = []
        if case == "pinned":
            shelf[0] = -1
            pins = [(int(rng.integers(0, 3)), int(rng.integers(0, 3)), 0)]
        candidates = world(shelf.tolist(), item.tolist(), n_shelves=5)
        score = np.round(rng.normal(size=n), 1)
        raw = np.round(rng.normal(size=n), 1) if case == "raw" else None
        page = policy.decide(candidates, score, 3, 3, np.random.default_rng(seed), raw_score=raw, pins=pins)
        again = policy.decide(candidates, score, 3, 3, np.random.default_rng(seed), raw_score=raw, pins=pins)
        np.testing.assert_array_equal(again.card, page.card)
        shelf_propensity, card_propensity = policy.propensity(candidates, score, page, raw_score=raw)
        np.testing.assert_array_equal(shelf_propensity, page.shelf_propensity)
        np.testing.assert_array_equal(card_propensity, page.card_propensity)
        assert page.propensity > 0
        shown = candidates.item[page.card[page.shown & ~page.pinned]]
        assert len(set(shown.tolist())) == len(shown)


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("overlapping", [False, True])
def test_the_compiled_walk_and_the_walk_by_pmf_give_the_same_pages(name: str, overlapping: bool) -> None:
    fast = POLICIES[name]
    plain = PagePolicy(Plain(fast.shelf_policy), Plain(fast.card_policy))
    rng = np.random.default_rng(1)
    for seed in range(60):
        n = int(rng.integers(3, 30))
        shelf = rng.integers(-1, 4, size=n)
        shelf[:2] = -1
        item = rng.integers(0, 20, size=n) if overlapping else np.arange(n)
        candidates = world(shelf.tolist(), item.tolist(), n_shelves=4)
        score, raw = np.round(rng.normal(size=n), 1), np.round(rng.normal(size=n), 1)
        pins = [(0, 1, 0), (int(rng.integers(1, 3)), 2, 1)] if seed % 2 else []
        one, two = (
            policy.decide(candidates, score, 3, 3, np.random.default_rng(seed), raw_score=raw, pins=pins)
            for policy in (fast, plain)
        )
        for field in ("shelf", "card", "shelf_propensity", "card_propensity", "pinned"):
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
        recomputed = plain.propensity(candidates, score, one, raw_score=raw)
        np.testing.assert_array_equal(recomputed[0], one.shelf_propensity)
        np.testing.assert_array_equal(recomputed[1], one.card_propensity)


@every_policy
@pytest.mark.parametrize("overlapping", [False, True])
def test_drawn_pages_match_their_probabilities(policy: PagePolicy, overlapping: bool) -> None:
    candidates, score = (OVERLAPPING, OVERLAPPING_SCORE) if overlapping else (THREE_BY_THREE, SCORE)
    pages = list(every_page(candidates, 2, 1))
    place = {(*page.shelf.tolist(), *page.card.ravel().tolist()): i for i, page in enumerate(pages)}
    expected = np.array([probability(policy, candidates, score, page, None) for page in pages])
    rng = np.random.default_rng(2)
    n_draws = 1500
    drawn = np.zeros(len(pages))
    for _ in range(n_draws):
        page = policy.decide(candidates, score, 2, 1, rng)
        drawn[place[(*page.shelf.tolist(), *page.card.ravel().tolist())]] += 1
    possible = expected > 0
    assert drawn[~possible].sum() == 0
    often = possible & (expected * n_draws >= 5)
    observed = np.append(drawn[often], drawn[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * n_draws
    kept = wanted > 0
    if kept.sum() > 1:
        assert chisquare(observed[kept], wanted[kept] * observed.sum() / wanted.sum()).pvalue > 1e-3


def test_the_mean_of_one_over_the_probability_of_the_page_is_the_number_of_pages() -> None:
    rng = np.random.default_rng(3)
    for candidates, score in ((THREE_BY_THREE, SCORE), (OVERLAPPING, OVERLAPPING_SCORE)):
        n_pages = len(list(every_page(candidates, 2, 2)))
        policy = PagePolicy(EpsilonGreedy(0.7), EpsilonGreedy(0.7))
        weight = np.array([1 / policy.decide(candidates, score, 2, 2, rng).propensity for _ in range(4000)])
        assert abs(weight.mean() - n_pages) <= 4 * weight.std() / np.sqrt(len(weight))


@every_policy
def test_too_few_cards_or_shelves_give_a_shorter_page(policy: PagePolicy) -> None:
    rng = np.random.default_rng(4)
    nothing = policy.decide(world([]), np.empty(0), 3, 3, rng)
    assert nothing.card.shape == (0, 3)
    assert nothing.propensity == 1
    assert policy.decide(world([-1]), np.zeros(1), 3, 3, rng).card.shape == (0, 3)
    short = policy.decide(world([0, 0, 3], n_shelves=6), np.array([0.1, 0.2, 0.3]), 3, 3, rng)
    assert sorted(short.shelf.tolist()) == [0, 3]
    assert sorted((short.card >= 0).sum(axis=1).tolist()) == [1, 2]
    assert np.isnan(short.card_propensity[~short.shown]).all()
    shelf, card = policy.marginal(world([0, 0, 3], n_shelves=6), np.array([0.1, 0.2, 0.3]), 3, 3)
    np.testing.assert_allclose(shelf.sum(axis=0), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(shelf.sum(axis=1), [1, 0, 0, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(card.sum(axis=0), [2, 1, 0], atol=1e-12)
    assert policy.marginal(world([]), np.empty(0), 2, 3)[1].shape == (0, 3)


@every_policy
def test_a_pinned_card_has_propensity_one_and_takes_no_part_in_the_draw(policy: PagePolicy) -> None:
    candidates = world([0, 0, 0, 1, 1, -1, -1])
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.8])
    page = policy.decide(candidates, score, 2, 3, np.random.default_rng(5), pins=[(0, 1, 5), (1, 2, 6)])
    assert page.card[0, 1] == 5
    assert page.pinned[0, 1]
    assert page.card_propensity[0, 1] == 1
    assert page.pinned.sum() == 2
    assert not np.isin(page.card[~page.pinned], [5, 6]).any()
    without = policy.decide(candidates, score, 2, 3, np.random.default_rng(5))
    np.testing.assert_array_equal(page.shelf_propensity[0], without.shelf_propensity[0])
    assert page.card[0, 0] == without.card[0, 0]


def test_a_pin_beyond_the_end_of_its_row_closes_up_and_one_in_a_missing_row_is_left_out() -> None:
    candidates = world([0, 0, -1, -1, -1])
    for policy in (POLICIES["uniform"], POLICIES["somebody else's"]):
        page = policy.decide(
            candidates, np.zeros(5), 3, 6, np.random.default_rng(0), pins=[(0, 3, 2), (0, 5, 3), (1, 0, 4)]
        )
        assert page.card.shape == (1, 6)
        assert page.card[0, 2:].tolist() == [2, 3, -1, -1]
        assert page.pinned[0].tolist() == [False, False, True, True, False, False]
        assert page.propensity == pytest.approx(1 / 2)  # both cards of the shelf, in either order
        assert (
            policy.decide(candidates, np.zeros(5), 1, 2, np.random.default_rng(0), pins=[(0, 3, 2)]).pinned.sum() == 0
        )


def test_an_item_that_is_held_out_is_not_drawn_from_other_shelves() -> None:
    candidates = world([0, 0, 1, -1], item=[4, 5, 4, 4])
    for policy in (POLICIES["uniform"], POLICIES["plackett_luce"]):
        page = policy.decide(candidates, np.zeros(4), 3, 3, np.random.default_rng(0))
        assert page.shelf.tolist() == [0]
        assert page.card.tolist() == [[1, -1, -1]]
        assert page.propensity == 1


def test_shelves_are_worth_their_best_raw_score_and_cards_are_drawn_by_the_final_one() -> None:
    candidates = world([0, 0, 1, 1])
    raw, score = np.array([0.9, 0.1, 0.5, 0.4]), np.array([0.0, 0.1, 7.0, 8.0])
    page = POLICIES["greedy"].decide(candidates, score, 2, 2, np.random.default_rng(0), raw_score=raw)
    assert page.shelf.tolist() == [0, 1]
    assert page.card.tolist() == [[1, 0], [3, 2]]


def test_variates_have_fixed_places() -> None:
    policy = PagePolicy(Uniform(), Uniform())
    u = np.random.default_rng(6).random((2, 3))
    page = policy.decide(THREE_BY_THREE, SCORE, 2, 2, np.random.default_rng(6))
    assert page.shelf[0] == int(u[0, 0] * 3)
    member = np.flatnonzero(THREE_BY_THREE.shelf == page.shelf[0]).tolist()
    assert page.card[0, 0] == member.pop(int(u[0, 1] * 3))
    assert page.card[0, 1] == member[int(u[0, 2] * 2)]
    left = [s for s in range(3) if s != page.shelf[0]]
    assert page.shelf[1] == left[int(u[1, 0] * 2)]


def test_any_two_policies_with_exploration_have_the_same_support() -> None:
    one, two = POLICIES["epsilon_greedy"], PagePolicy(EpsilonGreedy(0.01), EpsilonGreedy(0.9))
    for page, score in product(every_page(THREE_BY_THREE, 2, 1), (SCORE, -SCORE)):
        assert probability(one, THREE_BY_THREE, score, page, None) > 0
        assert probability(two, THREE_BY_THREE, score, page, None) > 0


@every_policy
def test_what_could_not_have_been_shown_is_refused_by_place(policy: PagePolicy) -> None:
    good = page_of((0, 1), [(0, 5), (1, 4)], 2)
    policy.propensity(THREE_BY_THREE, SCORE, good)
    for shelf, cards, where in (
        ((0, 0), [(0, 5), (7,)], r"shelf\[1\] is 0; expected a shelf that has cards left and stands in no row above"),
        ((0, 3), [(0, 5), (1,)], r"shelf\[1\] is 3"),
        ((0, 1), [(0, 0), (1,)], r"card\[0, 1\] is 0; expected a candidate of shelf 0 that was not taken before"),
        ((0, 1), [(0, 5), (1, 2)], r"card\[1, 1\] is 2; expected a candidate of shelf 1"),
        ((0, 1), [(0, 9), (1, 4)], r"card\[0, 1\] is 9"),
    ):
        with pytest.raises(ValueError, match=where):
            policy.propensity(THREE_BY_THREE, SCORE, page_of(shelf, cards, 2))
    with pytest.raises(ValueError, match=r"card\[0, 0\] is 0; expected a pinned candidate"):
        policy.propensity(THREE_BY_THREE, SCORE, replace(good, pinned=np.ones((2, 2), dtype=np.bool_)))


@every_policy
def test_bad_input_is_refused_by_name(policy: PagePolicy) -> None:
    rng = np.random.default_rng(0)
    bad = SCORE.copy()
    bad[4] = np.nan
    with pytest.raises(ValueError, match=r"score\[4\] is nan; expected a finite number"):
        policy.decide(THREE_BY_THREE, bad, 2, 2, rng)
    with pytest.raises(ValueError, match=r"raw_score\[4\] is nan; expected a finite number"):
        policy.decide(THREE_BY_THREE, SCORE, 2, 2, rng, raw_score=bad)
    with pytest.raises(ValueError, match=r"score has shape \(3,\); expected \(9,\)"):
        policy.decide(THREE_BY_THREE, SCORE[:3], 2, 2, rng)
    with pytest.raises(ValueError, match="rows is 0; expected an integer >= 1"):
        policy.decide(THREE_BY_THREE, SCORE, 0, 2, rng)
    with pytest.raises(ValueError, match="columns is 0; expected an integer >= 1"):
        policy.marginal(THREE_BY_THREE, SCORE, 2, 0)
    pinned = world([0, -1, -1])
    for pins, where in (
        ([(0, 0, 0)], r"pins\[0\] names candidate 0; expected one of shelf -1"),
        ([(0, 0, 3)], r"pins\[0\] names candidate 3"),
        ([(0, 0, 1), (0, 1, 1)], r"pins\[1\] names candidate 1; .* in no other pin"),
        ([(0, 0, 1), (0, 0, 2)], r"pins\[1\] is at \(0, 0\), as an earlier pin"),
        ([(0, -1, 1)], r"pins\[0\] is at \(0, -1\)"),
    ):
        with pytest.raises(ValueError, match=where):
            policy.decide(pinned, np.zeros(3), 2, 2, rng, pins=pins)


@pytest.mark.parametrize("name", ["epsilon_greedy", "plackett_luce"])
@pytest.mark.parametrize(
    ("shelf", "card", "message"),
    [
        ([0, 1], [[-1, 0], [2, 3]], r"card\[0, 0\] is -1; expected a card, since shelf 0 has some left"),
        ([0, 1], [[0, 1], [2, -1]], r"card\[1, 1\] is -1; expected a card, since shelf 1 has some left"),
        ([-1, 1], [[-1, -1], [2, 3]], r"shelf\[1\] is 1; expected -1, below a row without a shelf"),
        ([0, -1], [[0, 1], [2, 3]], r"card\[1, 0\] is 2; expected -1, after the end of its row or in a row without"),
        ([2, 0], [[4, -1, 5], [0, 1, -1]], r"card\[0, 2\] is 5; expected -1, after the end"),
        ([0.0, 1.0], [[0, 1], [2, 3]], "shelf has shape .* expected integers"),
    ],
)
def test_a_page_that_cannot_be_drawn_is_refused(
    name: str, shelf: list[int], card: list[list[int]], message: str
) -> None:
    candidates, cards = world([0, 0, 1, 1, 2, -1]), np.array(card)
    blank = np.full(cards.shape, np.nan)
    page = Page(np.array(shelf), cards, blank[:, 0], blank, cards == 5)
    with pytest.raises(ValueError, match=message):
        POLICIES[name].propensity(candidates, np.arange(6.0), page)


@pytest.mark.parametrize("of", ["shelf", "card"])
def test_a_policy_of_somebody_else_may_not_draw_with_what_is_no_probability(of: str) -> None:
    class Twice(Plain):
        def pmf(self, score: Floats, available: Bools, position: int | None = None) -> Floats:
            return 2.0 * self.inner.pmf(score, available, position)

    greedy = EpsilonGreedy(0.0)
    policy = PagePolicy(Twice(greedy), greedy) if of == "shelf" else PagePolicy(greedy, Twice(greedy))
    with pytest.raises(ValueError, match=rf"{of}_propensity holds 2.0; expected numbers in \[0, 1\]"):
        policy.decide(world([0, 0, 1]), np.arange(3.0), 2, 2, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["epsilon_greedy", "plackett_luce"])
def test_rows_without_a_shelf_may_close_a_page(name: str) -> None:
    page = page_of((1, -1), [(2, 3)], 2)
    shelf, card = POLICIES[name].propensity(world([0, 0, 1, 1]), np.arange(4.0), page)
    assert np.isnan(shelf).tolist() == [False, True]
    assert np.isnan(card).tolist() == [[False, False], [True, True]]
