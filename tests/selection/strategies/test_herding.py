"""The preset of MaxHerding, against its definition: the most mean largest kernel value, one pick at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from aliquot.config.create import create
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection

CONF = Path(__file__).parents[3] / "conf"


def naive(x: np.ndarray, k: int, start: list[int]) -> list[int]:
    """Kernel exp(-d^2) of unit-norm features; of gains equal up to rounding, the lower row's."""
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    kernel = np.exp(-np.square(unit[:, None] - unit).sum(axis=2))
    chosen = list(start)
    while len(chosen) < k:
        cover = kernel[chosen].max(axis=0, initial=0)
        gains = np.maximum(kernel - cover, 0).mean(axis=1)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains >= gains.max() - 1e-9)))
    return chosen


@pytest.mark.parametrize("start", [[], [5, 20, 3]])
def test_equals_the_definition_on_the_weighted_view(start: list[int]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        strategy = create(compose(overrides=["+strategy=herding"]), "strategy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)).astype(np.float32) * rng.gamma(1.0, size=(90, 1)).astype(np.float32)
    pool = Pool("test", [str(i) for i in range(90)], ["x"] * 90)
    scores = Scores(np.zeros_like(x), np.ones(90, dtype=np.int64), views={"weighted": x})
    selection = rank(strategy, pool, scores, 40, Selection(np.array(start, dtype=np.int64), np.zeros(len(start))))
    assert selection.indices.tolist() == naive(x, 40, start)
