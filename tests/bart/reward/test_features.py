"""The schema of features: its recipe is Vowpal Wabbit's own, its arrays are what the names say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reward_world as world
import vowpal_wabbit_next as vw

from bart.errors import SchemaMismatch
from bart.reward.feature_hash import cross_index, feature_index, match_index, vector_index
from bart.reward.features import CONTEXT_NAMES, Examples, FeatureSchema, ItemFeatures, build_examples
from bart.types import ItemTable

MASK = (1 << 18) - 1


@pytest.fixture(scope="module")
def items() -> ItemTable:
    return world.item_table(np.random.default_rng(3))


def examples_of(features: ItemFeatures, rows: list[int], **changes: Any) -> Examples:
    n, d = len(rows), features.schema.dimension
    fields: dict[str, Any] = {
        "at_s": np.array([1_700_000_000]),
        "hour": np.array([5]),
        "weekday": np.array([2]),
        "device": np.array([1]),
        "listener": world.unit(np.random.default_rng(1), 1, d),
        "page": np.zeros(n, dtype=np.int64),
        "item": np.array(rows, dtype=np.int64),
        "rule": np.array(["popular"] * n, dtype=object),
        "row": np.zeros(n, dtype=np.int64),
        "column": np.zeros(n, dtype=np.int64),
    }
    return build_examples(features, **{**fields, **changes})


@pytest.mark.parametrize("name", ["hour=3", "because you played", "", "genre=", "été", "17", "a", "ab", "abc", "abcde"])
def test_a_named_feature_has_the_index_that_the_text_parser_gives_it(name: str) -> None:
    workspace = vw.Workspace(["--quiet", "-b", "18"])
    expected = workspace.get_index_for_scalar_feature(name, namespace_name="e")
    assert feature_index("e", name) & MASK == expected


def test_elements_of_a_vector_are_named_by_their_number() -> None:
    assert [int(i) for i in vector_index("u", 12)] == [feature_index("u", str(k)) for k in range(12)]
    assert int(match_index(12)[-1]) == feature_index("m", "cosine")


def test_a_cross_has_the_index_that_the_interaction_of_the_same_groups_reads() -> None:
    for cross in ("ce", "cuv"):
        workspace = vw.Workspace(
            ["--quiet", "-b", "18", "--noconstant", "--loss_function", "logistic", "--interactions", cross]
        )
        parser = vw.TextFormatParser(workspace)
        example = parser.parse_line(" ".join(f"|{letter} name" for letter in cross))
        index = cross_index(*(np.array([feature_index(letter, "name")], dtype=np.uint64) for letter in cross))
        workspace.weights()[int(index[0]) & MASK, 0, 0] = 0.375
        assert workspace.predict_one(example) == 0.375


def test_the_default_schema_stays_below_six_hundred_features() -> None:
    assert FeatureSchema().feature_count == 515
    assert FeatureSchema(full_crosses=True).feature_count == 515 + 40 * 40 + 3 * 40 * 40


def test_the_first_order_has_no_crosses_and_no_match() -> None:
    schema = FeatureSchema(order=1)
    assert schema.crosses == ()
    assert "m" not in schema.namespaces


def test_the_groups_of_a_cross_are_in_the_order_in_which_they_are_hashed() -> None:
    for order in (1, 2, 3):
        for cross in FeatureSchema(order=order, full_crosses=order > 1).crosses:
            assert list(cross) == sorted(cross)


def test_fingerprints_tell_schemas_apart_and_survive_a_round_trip() -> None:
    schemas = [
        FeatureSchema(),
        FeatureSchema(order=2),
        FeatureSchema(full_crosses=True),
        FeatureSchema(dimension=8),
        FeatureSchema(age_edge_d=(1, 7)),
    ]
    assert len({schema.fingerprint for schema in schemas}) == len(schemas)
    for schema in schemas:
        assert FeatureSchema.from_dict(schema.as_dict()) == schema


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"order": 4}, "order is 4; expected 1, 2 or 3"),
        ({"order": 1, "full_crosses": True}, "full_crosses needs order 2 or 3"),
        ({"dimension": 0}, "dimension is 0; expected at least 1"),
        ({"age_edge_d": (7, 1)}, "expected increasing days"),
        ({"version": 2}, "version 2 is unknown"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FeatureSchema(**fields)


def test_a_schema_with_fields_of_a_later_version_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="unknown fields: mood"):
        FeatureSchema.from_dict({**FeatureSchema().as_dict(), "mood": 1})


def test_item_vectors_of_another_dimension_are_refused(items: ItemTable) -> None:
    with pytest.raises(SchemaMismatch, match="dimension 8; the schema expects 40"):
        ItemFeatures(FeatureSchema(), items)


def test_age_is_counted_in_days_since_release(items: ItemTable) -> None:
    schema = FeatureSchema(dimension=8)
    dates = np.array(["2024-01-10", "2024-01-09", "2024-01-03", "2023-01-10", "2030-01-01", "NaT", "1999-01-01"])
    table = replace(items, released_at=np.resize(dates.astype("datetime64[D]"), len(items)))
    features = ItemFeatures(schema, table)
    day = np.full(7, np.datetime64("2024-01-10").astype(np.int64))
    names = [features.category[code] for code in features.age_code(np.arange(7), day)]
    assert names == ["age=new", "age=1", "age=7", "age=365", "age=new", "age=unknown", "age=1825"]


def test_facts_of_an_item_are_its_first_genre_its_type_its_age_and_its_popularity(items: ItemTable) -> None:
    features = ItemFeatures(FeatureSchema(dimension=8), items)
    without = next(k for k in range(len(items)) if not items.genres[k])
    with_genre = next(k for k in range(len(items)) if items.genres[k])
    examples = examples_of(features, [without, with_genre])
    assert examples.fact[0, 0] == feature_index("g", "genre=")
    assert examples.fact[1, 0] == feature_index("g", f"genre={items.genres[with_genre][0]}")
    assert (examples.fact[:, 3] == feature_index("g", "popularity")).all()
    assert examples.popularity.tolist() == items.popularity[[without, with_genre]].astype(np.float32).tolist()


def test_the_same_item_has_the_same_indices_in_a_table_of_another_order(items: ItemTable) -> None:
    reverse = np.arange(len(items))[::-1]
    turned = world.item_table(np.random.default_rng(3))
    turned = replace(
        turned,
        item_id=items.item_id[reverse],
        type=items.type[reverse],
        genres=type(items.genres).of([items.genres[int(k)] for k in reverse]),
        released_at=items.released_at[reverse],
        popularity=items.popularity[reverse],
        vector=items.vector[reverse],
    )
    schema = FeatureSchema(dimension=8)
    rows = list(range(len(items)))
    a = examples_of(ItemFeatures(schema, items), rows)
    b = examples_of(ItemFeatures(schema, turned), [len(items) - 1 - k for k in rows])
    assert (a.fact == b.fact).all()
    assert (a.item_vector == b.item_vector).all()


def test_the_match_is_the_product_of_the_vectors_and_their_cosine(items: ItemTable) -> None:
    features = ItemFeatures(FeatureSchema(dimension=8), items)
    examples = examples_of(features, [3, 4])
    assert np.allclose(examples.match[:, :8], examples.listener[0] * examples.item_vector)
    cosine = items.vector[[3, 4]] @ (examples.listener[0] / np.sqrt(8.0))
    assert np.allclose(examples.match[:, 8], cosine * np.sqrt(8.0), atol=1e-6)


def test_context_is_one_hot_by_hour_weekday_and_device(items: ItemTable) -> None:
    features = ItemFeatures(FeatureSchema(dimension=8), items)
    names = {feature_index("c", name): name for name in CONTEXT_NAMES}
    assert [names[int(i)] for i in examples_of(features, [0]).context[0]] == ["hour=5", "weekday=2", "device=desktop"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hour": np.array([24])}, r"hour\[0\] is 24; expected \[0, 24\)"),
        ({"device": np.array([6])}, r"device\[0\] is 6; expected \[0, 6\)"),
        ({"item": np.array([0, 999])}, r"item\[1\] is 999; expected a row in \[0, 300\)"),
        ({"row": np.array([0, -1])}, r"row\[1\] is -1; expected 0 or more"),
        ({"listener": np.full((1, 8), np.nan, dtype=np.float32)}, r"listener\[0, 0\] is not finite"),
        ({"listener": np.zeros((1, 9), dtype=np.float32)}, r"listener has shape \(1, 9\); expected \[..., 8\]"),
    ],
)
def test_values_outside_their_range_are_refused(items: ItemTable, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        examples_of(ItemFeatures(FeatureSchema(dimension=8), items), [0, 1], **changes)
