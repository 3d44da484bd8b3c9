"""Whatever stands against a verdict, `bart explain` says what would change it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from bart.ope import LoggedChoices, estimate
from bart.ope.report.explain import explained
from bart.ope.verdict.choices import judge
from bart.ope.verdict.order import judge_order
from bart.ope.verdict.pages import (
    ExposureDiagnostics,
    WeightFacts,
    judge_beyond,
    judge_exposure,
    judge_listeners,
    judge_weights,
)


def choices(n: int = 3_000) -> LoggedChoices:
    rng = np.random.default_rng(1)
    action = rng.integers(0, 4, n)
    return LoggedChoices(
        (rng.random(n) < 0.3).astype(float), action, np.full(n, 0.25), np.tile([0.1, 0.2, 0.3, 0.4], (n, 1))
    )


def of_choices() -> Iterator[str]:
    good = choices()
    rows = np.flatnonzero(good.action != 2)
    short = LoggedChoices(good.reward[rows], good.action[rows], good.propensity[rows], good.pmf()[rows])
    high = replace(good, propensity=good.propensity * 1.1)
    falling = replace(good, reward=good.reward * (np.arange(len(good)) < 1_500))
    for log in (short, high, falling):
        yield from estimate("snips", log).warnings
    yield from judge_order(replace(good, reward=np.repeat(good.reward[::2], 2)))[1]
    few = LoggedChoices(good.reward[:40], good.action[:40], good.propensity[:40], good.pmf()[:40])
    for name, more in (("snips", {}), ("ips", {}), ("clipped_ips", {"cap": 1.1})):
        yield from estimate(name, few, "student", **more).warnings
    yield from estimate("ips", replace(good, reward=np.sort(good.reward)), "anytime").warnings
    yield from judge(1_000, 5.0, 5.0, 0.5, 0.01, 0.9)[1]
    yield from judge(1_000, 50.0, 50.0, 0.98, 0.009, 0.1)[1]


def of_pages() -> Iterator[str]:
    sound = ExposureDiagnostics(2_000.0, 4.0, 1.0, 0.01, 1.0, 1.0)
    faults = {"effective_sample_size": 10.0, "balance": 0.5, "log_exposure": 0.8, "scanning_order": 0.5}
    for name, value in faults.items():
        yield from judge_exposure(replace(sound, **{name: value}), 5_000)[1]
    yield from judge_exposure(sound, 300)[1]
    yield from judge_beyond(5.0, 0.8, 0.5, 0.01, 1.0)[1]
    yield from judge_listeners(np.array([90.0, 5.0, 5.0]))[1]
    yield from judge_weights(WeightFacts(1_000, 100.0, 0.5, 0.01, 90.0, 0.9))[1]
    yield from judge_weights(WeightFacts(1_000, 10.0, 1.0, 0.1, 90.0, 0.1))[1]


REASONS = sorted({*of_choices(), *of_pages()})


def test_there_are_reasons_of_every_kind() -> None:
    for kind in (
        "never took",
        "propensities say",
        "not constant",
        "alike",
        "crossed itself",
        "match",
        "capped",
        "cap of",
    ):
        assert any(kind in reason for reason in REASONS), kind


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_against_a_verdict_comes_with_what_would_change_it(reason: str) -> None:
    found = {"value": 1.0, "lower": 0.5, "upper": 1.5, "verdict": "weak", "warnings": [reason]}
    lines = list(explained({"policies": [{"name": "new", "estimates": {"snips": found}}]}))
    assert any(line.strip().startswith("What would change it") for line in lines), reason
