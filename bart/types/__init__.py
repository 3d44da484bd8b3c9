"""The records that tie the packages together, each checked once when it is made.

Arrays inside are read-only by agreement. Ids are opaque strings on every surface; integer rows of an `ItemTable` are
internal to one batch and never leave the process.
"""

from __future__ import annotations

from bart.types.arrays import Bools, Dates, Floats, Floats32, Ints, Strings
from bart.types.batch import PageBatch, PageScorer
from bart.types.candidates import Candidates, CandidateSource, FeatureSource, ListenerStore, Shelf
from bart.types.context import DEVICES, OTHER_DEVICE, Context, Listener, ListenerTraits, device_code
from bart.types.decision import Decision, DecisionSink
from bart.types.items import ITEM_TYPES, ItemTable, Labels
from bart.types.levels import CardFeatures
from bart.types.members import Members
from bart.types.page import Page
from bart.types.wishes import Wishes

__all__ = [
    "DEVICES",
    "ITEM_TYPES",
    "OTHER_DEVICE",
    "Bools",
    "CandidateSource",
    "Candidates",
    "CardFeatures",
    "Context",
    "Dates",
    "Decision",
    "DecisionSink",
    "FeatureSource",
    "Floats",
    "Floats32",
    "Ints",
    "ItemTable",
    "Labels",
    "Listener",
    "ListenerStore",
    "ListenerTraits",
    "Members",
    "Page",
    "PageBatch",
    "PageScorer",
    "Shelf",
    "Strings",
    "Wishes",
    "device_code",
]
