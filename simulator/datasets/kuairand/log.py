"""KuaiRand's log of short videos, read as pages.

KuaiRand (Gao et al., CIKM 2022; CC BY-SA 4.0), in a reduction that keeps only videos that were liked or disliked; the
file is read from where the user has it. It has no positions, so pages are made of time: a *sitting* is a run of rated
videos less than half an hour apart and stands for a row, videos for its columns; a *page* is a run of sittings less
than six hours apart. Going on to the next column means that another rated video follows in the sitting, going on to the
next row that another sitting follows. A stream is a long view.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from bart.errors import DataError
from bart.types import Bools, Floats, Ints

ATTRIBUTION = "KuaiRand (Gao et al., CIKM 2022), CC BY-SA 4.0; reduced by alessandrosocc (MIT)"
SITTING_S, PAGE_S = 1_800.0, 6 * 3_600.0
COLUMNS = ("user_id", "video_id", "time_ms", "long_view", "duration_ms")


@dataclass(frozen=True, slots=True, eq=False)
class KuaiRandLog:
    """n rated videos, by user and time, cut into sittings and pages.

    user [n] int in [0, n_users), video [n] int in [0, n_videos); at_s [n] UTC seconds; long_view [n]; duration_s [n], 0
    where unknown. row, column [n]: sitting of the page, place in the sitting. page [n]: number, growing. last_of_row,
    last_of_page [n]. ended [n]: whether the data go on long enough after it to tell that its page ended there.
    user_id, video_id: as in the file.
    """

    user: Ints
    video: Ints
    at_s: Floats
    long_view: Bools
    duration_s: Floats
    row: Ints
    column: Ints
    page: Ints
    last_of_row: Bools
    last_of_page: Bools
    ended: Bools
    user_id: Ints
    video_id: Ints

    def __len__(self) -> int:
        return len(self.user)


def read_kuairand(file: Path) -> KuaiRandLog:
    """The log in a tab-separated file with the columns of `COLUMNS`. Raises DataError where it is something else."""
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file} does not exist; expected KuaiRand's rated videos as tab-separated values")
    try:
        table = csv.read_csv(file, parse_options=csv.ParseOptions(delimiter="\t"))
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} is not tab-separated: {str(error).splitlines()[0]}") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"{file} has no column {missing[0]}; expected {', '.join(COLUMNS)}")
    for name in COLUMNS:
        if not pa.types.is_integer(table[name].type) or table[name].null_count:
            raise DataError(f"{file}: column {name} is not all whole numbers")
    column = {name: table[name].to_numpy() for name in COLUMNS}
    if not np.isin(column["long_view"], (0, 1)).all():
        raise DataError(f"{file}: column long_view has values other than 0 and 1")
    if table.num_rows < 100:
        raise DataError(f"{file} has {table.num_rows} rows; expected at least 100 to fit a world on")
    user_id, user = np.unique(column["user_id"], return_inverse=True)
    video_id, video = np.unique(column["video_id"], return_inverse=True)
    at_s = column["time_ms"] / 1_000
    order = np.lexsort((at_s, user))
    user, video, at_s = user[order].astype(np.int64), video[order].astype(np.int64), at_s[order]
    first = np.diff(user, prepend=-1) != 0
    gap = np.diff(at_s, prepend=at_s[0])
    new_page = first | (gap > PAGE_S)
    new_row = new_page | (gap > SITTING_S)
    page, sitting = np.cumsum(new_page) - 1, np.cumsum(new_row) - 1
    return KuaiRandLog(
        user=user,
        video=video,
        at_s=at_s,
        long_view=column["long_view"][order] == 1,
        duration_s=column["duration_ms"][order] / 1_000,
        row=sitting - sitting[new_page][page],
        column=np.arange(len(user)) - np.flatnonzero(new_row)[sitting],
        page=page,
        last_of_row=np.append(new_row[1:], True),
        last_of_page=np.append(new_page[1:], True),
        ended=at_s < at_s.max() - PAGE_S,
        user_id=user_id,
        video_id=video_id,
    )
