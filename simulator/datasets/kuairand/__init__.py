"""KuaiRand: a log of short videos as pages, what is fitted to it, and the world that follows."""

from __future__ import annotations

from simulator.datasets.kuairand.log import ATTRIBUTION, KuaiRandLog, read_kuairand
from simulator.datasets.kuairand.world import KuaiRandWorld, kuairand_world

__all__ = ["ATTRIBUTION", "KuaiRandLog", "KuaiRandWorld", "kuairand_world", "read_kuairand"]
