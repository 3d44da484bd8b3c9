"""Columns of text as codes of the words that occur, whether they come as text or as codes of a larger dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def coded(column: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, NDArray[Any]]:
    """The words that occur, in order of their first row, and the place of each row's [n] int32, -1 where it is null."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if pa.types.is_dictionary(column.type):  # codes wide enough for the words of all chunks together
        whole = (_without_null(part) for part in chunks)
        chunks = [pa.DictionaryArray.from_arrays(part.indices.cast(pa.int32()), part.dictionary) for part in whole]
    array = pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())
    if not pa.types.is_dictionary(array.type):
        again = array.cast(pa.string()).dictionary_encode()
        return again.dictionary, _places(again)
    rows = array.indices.dictionary_encode()  # a dictionary may hold words of rows that were left out
    words = array.dictionary.take(rows.dictionary).cast(pa.string()).dictionary_encode()  # or one twice
    return words.dictionary, np.append(_places(words), np.int32(-1))[_places(rows)]


def _without_null(array: pa.DictionaryArray) -> pa.DictionaryArray:
    """With nulls as rows, not as a word: Arrow joins no dictionaries that hold one."""
    return array.dictionary_decode().dictionary_encode() if array.dictionary.null_count else array


def _places(encoded: pa.DictionaryArray) -> NDArray[Any]:
    return np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int32)
