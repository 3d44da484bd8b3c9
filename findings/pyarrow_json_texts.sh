#!/bin/sh
# pyarrow 26.0.1, pyarrow.json.read_json: text that looks like a date becomes a timestamp, and the zone that it says is lost.
#
# Seen: ids "2024-01-01" and "2024-01-02" come out as timestamps, as soon as no other value of the block speaks against it,
# so that the type of a column depends on its neighbours; "2026-03-01T10:00:00Z" and "2026-03-01T12:00:00+02:00" come out
# as timestamp[s] without a zone; an integer beyond 2^53 beside a fraction is rounded to another integer; and a schema that
# asks for text refuses numbers. For listening events: an hour off in Berlin, listeners that merge, items that join nothing.
# What is done here: recommender/events/importers/records.py reads JSON with numbers and text as they are written.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyarrow==26.0.1
printf '{"id": "2024-01-01", "at": "2026-03-01T10:00:00Z"}\n{"id": "2024-01-02", "at": "2026-03-01T12:00:00+02:00"}\n' > dates.jsonl
printf '{"id": "2024-01-01"}\n{"id": "a title"}\n' > mixed.jsonl
printf '{"id": 9007199254740993}\n{"id": 1.5}\n' > numbers.jsonl
venv/bin/python - <<'PYTHON'
import pyarrow as pa
import pyarrow.json as pj

print("pyarrow", pa.__version__)
dates, mixed, numbers = (pj.read_json(f"{name}.jsonl") for name in ("dates", "mixed", "numbers"))
print("ids alone:", dates["id"].type, "; beside a title:", mixed["id"].type)
print("times:", dates["at"].type, dates["at"].to_pylist())
print("numbers:", numbers["id"].to_pylist())
asked = pj.ParseOptions(explicit_schema=pa.schema([("id", pa.string())]))
try:
    pj.read_json("numbers.jsonl", parse_options=asked)
    refused = ""
except pa.ArrowInvalid as error:
    refused = str(error)
print("asked for text:", refused)
assert dates["id"].type == pa.timestamp("s") and mixed["id"].type == pa.string()
assert dates["at"].type == pa.timestamp("s") and len(set(dates["at"].to_pylist())) == 1
assert numbers["id"].to_pylist()[0] == 9007199254740992.0
assert "changed from string to number" in refused
print("as described")
PYTHON
