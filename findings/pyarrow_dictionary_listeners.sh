#!/bin/sh
# pyarrow 26.0.1, dictionary columns: words of a dictionary may repeat, and then one listener is two; narrow codes of two days do not combine.
#
# Listener ids of plays are often dictionary columns: pandas categoricals become them with codes of 8 bits, and ids are
# tidied by changing the few words instead of the many rows (lower case here). Seen: where two words become the same, the
# column passes validate(full=True), compares and joins by words, but unique, value_counts and group_by go by codes, so that one
# listener is counted as two; duckdb 1.4.4 counts the same table by words. A null that stands among the words is null to
# is_null and not to null_count. Two days of 100 listeners each, with codes of 8 bits, do not combine: combine_chunks
# and unify_dictionaries refuse ("requires a larger index type") what concat_tables put together.
# What is done here: recommender/sessions/codes.py widens codes, makes words distinct and takes nulls out of them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyarrow==26.0.1 duckdb==1.4.4
venv/bin/python - <<'PYTHON'
import duckdb
import pyarrow as pa
import pyarrow.compute as pc

print("pyarrow", pa.__version__, "duckdb", duckdb.__version__)
given = pa.array(["Ann", "ann", "bob"]).dictionary_encode()
user = pa.DictionaryArray.from_arrays(given.indices, pc.utf8_lower(given.dictionary))
user.validate(full=True)
plays = pa.table({"user": user, "plays": [1, 1, 1]})
grouped = plays.group_by("user").aggregate([("plays", "sum")]).to_pylist()
equal = plays.filter(pc.equal(plays["user"], "ann")).num_rows
summed = sorted(duckdb.sql("select user, cast(sum(plays) as int) from plays group by user").fetchall())
print("unique:", user.unique().to_pylist(), "; group_by:", grouped)
print("rows equal to 'ann':", equal, "; duckdb:", summed)
assert user.unique().to_pylist() == ["ann", "ann", "bob"] and len(grouped) == 3
assert equal == 2 and summed == [("ann", 2), ("bob", 1)]

unknown = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(["ann", None]))
print("a null among the words: null_count", unknown.null_count, ", is_null", pc.is_null(unknown).to_pylist())
assert unknown.null_count == 0 and pc.is_null(unknown).to_pylist() == [False, True]

days = [
    pa.table({"user": pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), [f"{day}{n}" for n in range(100)])})
    for day in ("a", "b")
]
both = pa.concat_tables(days)
refused = []
for name, combine in (("combine_chunks", both.combine_chunks), ("unify_dictionaries", both.unify_dictionaries)):
    try:
        combine()
    except pa.ArrowInvalid as error:
        refused.append(name)
        print(f"{both.num_rows} rows, {name}:", error)
assert refused == ["combine_chunks", "unify_dictionaries"]
print("as described")
PYTHON
