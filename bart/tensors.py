"""Arrays by name in one block of bytes, in the safetensors format: no code in it, and other tools read it.

Eight bytes with the length of a JSON header, the header (type, shape and place of each array), then the values.
Source: https://github.com/huggingface/safetensors, "Format". Written are the bytes that its library writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError

# In the order in which the format's library places them: the last first.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
_NAMES = list(_DTYPES)


def to_bytes(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The arrays as safetensors. Raises DataError for a type of number that the format has not."""
    code = {}
    for name, array in arrays.items():
        matching = [key for key, dtype in _DTYPES.items() if dtype == array.dtype]
        if not matching:
            raise DataError(f"array {name!r} is of {array.dtype}; expected one of {', '.join(_NAMES)}")
        code[name] = matching[0]
    order = sorted(arrays, key=lambda name: (-_NAMES.index(code[name]), name))
    header: dict[str, dict[str, Any]] = {}
    start = 0
    for name in order:
        end = start + arrays[name].nbytes
        header[name] = {"dtype": code[name], "shape": list(arrays[name].shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    values = (np.ascontiguousarray(arrays[name], dtype=_DTYPES[code[name]]).tobytes() for name in order)
    return len(text).to_bytes(8, "little") + text + b"".join(values)


def from_bytes(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of such a block, by name, each a copy. Raises DataError for bytes that are not one, or not whole."""
    return {name: array.copy() for name, array in _arrays(data).items()}


def mapped(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a file, by name, read where they lie: processes share them, and none may write to them.

    For files that never change. Raises DataError as `from_bytes`, OSError where the file cannot be read.
    """
    if not file.stat().st_size:
        raise DataError("not arrays in the safetensors format: the file is empty")
    return _arrays(np.memmap(file, np.uint8, "r").data)


def _arrays(data: bytes | memoryview) -> dict[str, np.ndarray[Any, Any]]:
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError("it ends before its header does")
        header = json.loads(bytes(data[8 : 8 + length]))
        header.pop("__metadata__", None)
        return {name: _array(one, memoryview(data)[8 + length :]) for name, one in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not arrays in the safetensors format: {error}") from None


def _array(told: Mapping[str, Any], values: memoryview) -> np.ndarray[Any, Any]:
    dtype, shape = _DTYPES[told["dtype"]], told["shape"]
    start, end = told["data_offsets"]
    if not 0 <= start <= end <= len(values) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - start} bytes at {start} of {len(values)}; expected those of shape {tuple(shape)}")
    return np.frombuffer(values[start:end], dtype).reshape(shape)
