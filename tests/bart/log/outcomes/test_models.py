"""Whether a log is adaptive: what the ids of the models in its records say."""

from __future__ import annotations

from bart.log.outcomes.models import ServedModels


def served(*keys: tuple[str, str, str]) -> ServedModels:
    out = ServedModels()
    for key in keys:
        out.add(*key, 10)
    return out


def test_a_log_is_adaptive_where_one_model_followed_another_in_an_arm() -> None:
    assert served(("", "b", "m1"), ("", "b", "m2")).adaptive is True
    assert served(("", "b1", "m"), ("", "b2", "m")).adaptive is True  # other vectors
    assert served(("", "b", "m1")).adaptive is False
    assert served(("one", "b", "m1"), ("two", "b", "m2")).adaptive is False
    assert served(("one", "b", "m1"), ("two", "b", "m2"), ("two", "b", "m3")).adaptive is True


def test_records_that_name_no_model_leave_it_open() -> None:
    assert ServedModels().adaptive is None
    assert served(("", "b", "")).adaptive is None
    assert served(("", "b", ""), ("", "b", "m1")).adaptive is None
    assert served(("", "b", ""), ("", "b", "m1"), ("", "b", "m2")).adaptive is True
    assert "10 pages name no model" in served(("", "b", "")).line()


def test_the_line_counts_models_and_says_how_they_came() -> None:
    found = served(("", "b", "m1"), ("", "b", "m2"), ("", "b", "m3"))
    line = found.line({"online learning": 2, "bart retrain": 0})
    assert line.startswith(
        "An adaptive log: 3 models served its 30 pages, one after the other (in the run: 2 by online"
    )
    assert "retrain" not in line
    assert served(("", "b", "m1")).line() == "Not an adaptive log: one model served its 10 pages."
