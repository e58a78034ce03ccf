"""The strategy and its configuration; the maximiser itself is tested in test_submodular.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from aliquot.kernels import RBF, Cosine
from aliquot.strategies.base import rank
from aliquot.strategies.facility_location import FacilityLocation
from aliquot.types import Pool, Scores

CONF = Path(__file__).parents[2] / "conf"


def make_pool(x: np.ndarray) -> tuple[Pool, Scores]:
    n = len(x)
    pool = Pool("test", [str(i) for i in range(n)], ["x"] * n)
    return pool, Scores(x.astype(np.float32), np.ones(n, dtype=np.int64))


@pytest.mark.parametrize(
    ("overrides", "kernel"),
    [
        ([], RBF()),
        (["strategy.kernel.gamma=0.1", "strategy.kernel.unit=absolute"], RBF(0.1, "absolute")),
        (["strategy/kernel=cosine"], Cosine()),
    ],
)
def test_the_kernel_is_chosen_on_the_command_line(overrides: list[str], kernel: RBF | Cosine) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=["+strategy=facility_location", *overrides])
    assert instantiate(config.strategy, _convert_="all") == FacilityLocation(kernel)


def test_one_prompt_of_each_cluster_comes_first_the_largest_cluster_before_the_others() -> None:
    rng = np.random.default_rng(0)
    centres = 10 * np.eye(3)
    cluster = np.repeat([0, 1, 2], [10, 40, 20])
    x = centres[cluster] + 0.1 * rng.normal(size=(70, 3))
    selection = rank(FacilityLocation(RBF(0.05)), *make_pool(x), k=3)
    assert cluster[selection.indices].tolist() == [1, 2, 0]
    np.testing.assert_allclose(selection.gains, [40, 20, 10], rtol=0.02)


def test_a_degenerate_width_warns_and_names_the_remedy() -> None:
    x = np.random.default_rng(0).normal(size=(200, 16))
    with pytest.warns(UserWarning, match=r"degenerate kernel.*try another strategy\.kernel\.gamma"):
        rank(FacilityLocation(RBF(1e-3)), *make_pool(x), k=5)


def test_specs_are_cheap_to_import() -> None:
    code = "import sys, aliquot.strategies.facility_location, aliquot.strategies.k_center; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numba", "transformers"} & set(found)
