"""Arrays in the safetensors format: the bytes of its library, both ways, and refusal of what is not whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors.numpy import load, save

from bart.errors import DataError
from bart.tensors import from_bytes, mapped, to_bytes

DTYPES = ["bool", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "f8", "i8", "u8"]
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays_of.arrays(np.dtype(dtype), arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0))
)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(
        (one[k].dtype, one[k].shape, one[k].tobytes()) == (other[k].dtype, other[k].shape, other[k].tobytes())
        for k in one
    )


@given(st.dictionaries(names, arrays, max_size=5))
def test_arrays_come_back_and_either_side_reads_what_the_other_wrote(given_: dict[str, np.ndarray]) -> None:
    written = to_bytes(given_)
    assert same(from_bytes(written), given_)
    assert same(load(written), given_)
    assert same(from_bytes(save(given_)), given_)


def test_the_bytes_are_those_of_the_library() -> None:
    weights = {
        "value": np.ones(3, np.float32),
        "index": np.arange(3),
        "bias": np.zeros((2, 1), np.float32),
        "flag": np.ones(5, bool),
        "wide": np.ones(2),
        "half": np.ones(1, np.float16),
        "small": np.arange(4, dtype=np.int32),
    }
    assert to_bytes(weights) == save(weights)


def test_an_array_in_another_order_of_memory_is_the_same_array() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert to_bytes({"a": np.asfortranarray(array)}) == to_bytes({"a": array})


@pytest.mark.parametrize(
    "altered",
    [
        lambda data: data[:0],
        lambda data: data[:6],
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data.replace(b'"F64"', b'"F61"'),
        lambda data: data.replace(b"[2,3]", b"[2,4]"),
        lambda data: data.replace(b"[0,48]", b"[8,56]"),
        lambda data: (2).to_bytes(8, "little") + b"[]" + data,
    ],
)
def test_what_is_not_whole_is_refused(altered) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="not arrays in the safetensors format"):
        from_bytes(altered(to_bytes({"a": np.ones((2, 3))})))


def test_a_type_that_the_format_has_not_is_named() -> None:
    with pytest.raises(DataError, match="array 'a' is of complex128"):
        to_bytes({"a": np.ones(1, complex)})


def test_arrays_are_read_where_they_lie_in_a_file(tmp_path: Path) -> None:
    arrays = {"a": np.arange(12).reshape(3, 4), "b": np.array([True]), "c": np.empty((0, 2), np.float32)}
    (tmp_path / "arrays").write_bytes(to_bytes(arrays))
    found = mapped(tmp_path / "arrays")
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }
    assert not found["a"].flags.writeable
    assert found["a"].flags.aligned


@pytest.mark.parametrize("cut", [0, 5, 60, -1])
def test_a_file_that_is_not_whole_is_refused(cut: int, tmp_path: Path) -> None:
    (tmp_path / "arrays").write_bytes(to_bytes({"a": np.arange(12)})[:cut])
    with pytest.raises(DataError, match="not arrays in the safetensors format"):
        mapped(tmp_path / "arrays")
