"""The key that seals: at least 32 bytes, in a file outside the run.

Who can write the run must not be able to read it, or else the chain proves nothing against them.
"""

from __future__ import annotations

from pathlib import Path

from bart.errors import LogError

LEAST_BYTES = 32
MOST_BYTES = 65_536


def read_key(file: str | Path, run: Path | None = None) -> bytes:
    """The bytes of a key file, without white space at its ends. run: a directory that must not hold it.

    Raises LogError for a file that is missing, too short, or stands where the log does.
    """
    file = Path(file)
    try:
        with file.open("rb") as stream:
            key = stream.read(MOST_BYTES + 1).strip()
    except OSError as error:
        raise LogError(f"the proof key {file} cannot be read: {error.strerror or error}") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        size = f"{len(key)} bytes" if len(key) <= MOST_BYTES else f"more than {MOST_BYTES} bytes"
        raise LogError(f"the proof key {file} has {size}; expected {LEAST_BYTES} to {MOST_BYTES}")
    if run is not None and file.resolve().is_relative_to(run.resolve()):
        raise LogError(f"the proof key {file} stands in {run}, beside what it proves; expected a file outside")
    return key
