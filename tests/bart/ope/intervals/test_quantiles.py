"""Quantiles and tails are those of scipy.stats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bart.ope.intervals.quantiles import (
    beta_quantile,
    chi_square_tail,
    normal_quantile,
    student_quantile,
    student_tail,
)

share = st.floats(0.001, 0.999)
size = st.floats(0.5, 1e5)


@given(p=share, x=st.floats(0.01, 20), freedom=st.floats(1, 1e5), a=size, b=size)
def test_each_agrees_with_scipy_stats(p: float, x: float, freedom: float, a: float, b: float) -> None:
    ours = [
        normal_quantile(p),
        student_quantile(p, freedom),
        student_tail(x, freedom),
        beta_quantile(p, a, b),
        chi_square_tail(x, freedom),
    ]
    theirs = [
        stats.norm.ppf(p),
        stats.t.ppf(p, freedom),
        stats.t.sf(x, freedom),
        stats.beta.ppf(p, a, b),
        stats.chi2.sf(x, freedom),
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("law", [normal_quantile, lambda p: student_quantile(p, 5.0)])
def test_symmetric_laws_have_opposite_quantiles(law: Callable[[float], Any]) -> None:
    assert law(0.9) == pytest.approx(-law(0.1))
