"""Columns of text as codes of the words that occur, whether they come as text or as codes of a larger dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def coded(column: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, NDArray[Any]]:
    """The words that occur, in order of their first row, and the place of each row's [n] int32, -1 where it is null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):  # which may hold words of rows that were left out
        again = array.indices.dictionary_encode()
        words = array.dictionary.take(again.dictionary).cast(pa.string())
    else:
        again = array.cast(pa.string()).dictionary_encode()
        words = again.dictionary
    code = pc.fill_null(again.indices, -1).to_numpy(zero_copy_only=False)
    return words, np.asarray(code, dtype=np.int32)
