"""What the CoSeRNN paper reports, to stand beside what is measured here (Hansen et al., RecSys 2020, Tables 2 to 4)."""

from __future__ import annotations

from collections.abc import Mapping

PAPER_METRICS = (
    "cosine", "mrr@20", "rank@20", "mrr@50", "rank@50", "map@25", "recall@10@25", "map@100", "recall@10@100",
)  # fmt: skip
_TABLE_2 = {
    "Last, any cxt": (0.6527, 0.1721, 10.0767, 0.1133, 21.9245, 0.3585, 0.4394, 0.1300, 0.1372),
    "Last, same cxt": (0.5990, 0.2094, 9.3128, 0.1009, 23.5288, 0.3398, 0.4223, 0.1154, 0.1156),
    "Avg, any cxt": (0.6797, 0.1835, 10.0882, 0.1034, 23.7337, 0.3485, 0.4250, 0.1225, 0.1291),
    "Avg, same cxt": (0.6609, 0.2087, 9.3365, 0.1031, 23.4767, 0.3476, 0.4313, 0.1199, 0.1239),
    "Popularity": (0.4278, 0.2012, 9.5670, 0.0967, 24.0233, 0.3457, 0.4338, 0.1165, 0.1190),
    "RRN": (0.6918, 0.1970, 9.6689, 0.1286, 21.2980, 0.3794, 0.4678, 0.1425, 0.1594),
    "LatentCross": (0.6921, 0.1967, 9.6669, 0.1286, 21.2610, 0.3794, 0.4678, 0.1422, 0.1592),
    "JODIE": (0.6970, 0.2079, 9.3438, 0.1303, 21.2258, 0.3836, 0.4734, 0.1450, 0.1638),
    "CoSeRNN": (0.7115, 0.2319, 8.6642, 0.1507, 19.5288, 0.4011, 0.4981, 0.1574, 0.1816),
    "Oracle half": (0.7077, 0.4723, 5.2294, 0.3711, 11.3131, 0.7732, 0.8052, 0.5824, 0.6163),
    "Oracle full": (1.0000, 0.9985, 1.0067, 0.9988, 1.0068, 0.8323, 0.8861, 0.6220, 0.6951),
}
PAPER_TABLE_2: Mapping[str, Mapping[str, float]] = {
    name: dict(zip(PAPER_METRICS, values, strict=True)) for name, values in _TABLE_2.items()
}
PAPER_TABLE_3: Mapping[str, Mapping[str, float]] = {
    name: dict(zip(("cosine", "map@100", "recall@10@100"), values, strict=True))
    for name, values in {
        "Last sess. embeddings": (0.7062, 0.1518, 0.1731),
        "+ curr. context": (0.7091, 0.1527, 0.1748),
        "+ # tracks in last": (0.7103, 0.1569, 0.1807),
        "+ time since last": (0.7109, 0.1569, 0.1808),
        "+ last stream source": (0.7115, 0.1574, 0.1816),
        "+ curr. stream source": (0.7313, 0.1777, 0.2100),
    }.items()
}
PAPER_TABLE_4: Mapping[str, Mapping[str, float]] = {
    name: dict(zip(("cosine", "map@100", "recall@10@100"), values, strict=True))
    for name, values in {
        "All": (0.6966, 0.1442, 0.1623),
        "Plays": (0.7103, 0.1567, 0.1801),
        "Plays + skips": (0.7115, 0.1574, 0.1816),
        "Plays + skips + all": (0.7114, 0.1569, 0.1809),
    }.items()
}
