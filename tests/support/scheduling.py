"""Which tests run together in one process of pytest-xdist, and what starts first.

A file stays together: it shares its fixtures. All files on SLURM stay together, because they share one cluster. They
start first: they wait for their jobs while other processes compute. `--dist loadgroup` would do as much, but it splits
the groups of xdist 3.8 under pytest 9.2.
"""

from __future__ import annotations

from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

_SLURM = "tests/launch/slurm/"
_SLOW = 20  # a slow test takes as long as so many others


def group_of(nodeid: str) -> str:
    """Return the group that a test runs in."""
    return _SLURM if nodeid.startswith(_SLURM) else nodeid.partition("::")[0]


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with the groups that take long first; within a group nothing moves."""
    weights: Counter[str] = Counter()
    for item in items:
        weights[group_of(item.nodeid)] += _SLOW if item.get_closest_marker("slow") else 1
    return sorted(items, key=lambda item: (group_of(item.nodeid) != _SLURM, -weights[group_of(item.nodeid)]))


class InOrder(LoadScopeScheduling):
    """Give each process one group after the other, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
