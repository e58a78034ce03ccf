"""Composing the jobs of a sweep: as Hydra composes each of them, but not as often."""

from __future__ import annotations

import itertools

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aliquot.config.schema import ROOT
from hydra_plugins.aliquot.compose import Composer


@pytest.fixture
def loader():
    """Hydra's own loader, which counts the jobs it composes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composed = loader.load_sweep_config
        loader.jobs = []
        loader.load_sweep_config = lambda config, overrides: (
            loader.jobs.append(overrides) or composed(config, overrides)
        )
        yield loader


@pytest.fixture
def whole(loader):
    return loader.load_configuration("config", ["hydra.job.name=test", "hydra.job.num=0"], RunMode.MULTIRUN)


def by_hydra(loader, whole, overrides):
    cfg = loader.load_sweep_config(whole, overrides)
    values = OmegaConf.to_container(cfg, resolve=False)
    hydra = values.pop("hydra")
    assert values["strategy"]["name"] == hydra["runtime"]["choices"]["strategy"]
    return values, hydra["overrides"]["task"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=random", "budget=1k", "seed=3"],
        ["budget=1k", "strategy=facility_location", "strategy/kernel=rbf", "strategy.kernel.gamma=0.1"],
        ["experiments=smoke", "pool.limit=300", "store='a b'", "seed=1", "budget=50%"],
        ["sweeps=gamma", "seed=1"],
        ["strategy=random", "strategy.seed=7", "seed=1"],
        ["evaluate=mmlu_bbh", "evaluate.num_fewshot={mmlu: 5}", "evaluate.tasks=[mmlu]", "seed=2"],
        ["+evaluate.limit=3", "evaluate.limit=4"],
        ["evaluate.limit=3", "~evaluate.limit"],
        ["++evaluate.limit=5", "evaluate.limit=4"],
        ["seed=1", "seed=2"],
        ["tracker=none", "model.max_tokens=${seed}", "seed=64"],
    ],
    ids=" ".join,
)
def test_a_job_is_what_hydra_makes_of_it(loader, whole, overrides):
    expected = by_hydra(loader, whole, overrides)
    composer = Composer(loader, whole)
    composer.compose([*overrides, "seed=9"])  # another job of the same sweep leaves no trace
    cfg = composer.compose(overrides)
    assert (OmegaConf.to_container(cfg, resolve=False), overrides) == expected


@pytest.mark.slow
def test_hydra_composes_once_for_each_choice_of_groups(loader, whole):
    composer = Composer(loader, whole)
    choices = itertools.product(("random", "longest"), range(5), range(5))
    jobs = [composer.compose([f"strategy={s}", f"budget={b}", f"seed={seed}"]) for s, b, seed in choices]
    assert len(loader.jobs) == 2
    assert len({(cfg.strategy.name, cfg.budget, cfg.seed) for cfg in jobs}) == 50


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["strategy=nothing", "seeed=1", "seed=one", "strategy.gammma=1"])
def test_what_hydra_refuses_is_refused_in_its_words(loader, whole, wrong):
    errors = (HydraException, OmegaConfBaseException)
    with pytest.raises(errors) as expected:
        by_hydra(loader, whole, ["budget=1k", wrong])
    with pytest.raises(errors) as found:
        Composer(loader, whole).compose(["budget=1k", wrong])
    assert (type(found.value), str(found.value)) == (type(expected.value), str(expected.value))
