"""What an arm is: dashboards, tables and reports tell the same runs apart, wherever their settings come from."""

import itertools
from pathlib import Path

import hydra
import pytest

from aliquot.config.schema import ROOT, name_strategy, strategy_name
from aliquot.experiment.arm import ArmSettings, label_of
from aliquot.experiment.build import Parts, build
from aliquot.stages import Select
from aliquot.store.store import canonical

SMALL = ("pool.limit=300", "budget=20", "until=select")
FL = "strategy=facility_location"
COSINE = ("strategy=facility_location", "strategy/kernel=cosine")
#: Ways to ask for a selection; those in one row are one arm.
ARMS = [
    [
        (FL,),
        (FL, "strategy.kernel.gamma=0.25", "seed=3"),
        (FL, "scorer.position=last"),
        (FL, "scorer.position=[last,mean]", "scorer.layer=[-1,1]", "strategy.features=last@-1"),
    ],
    [(FL, "strategy.features=weighted"), (FL, "scorer.position=weighted")],
    [(FL, "scorer.layer=[-1,1]", "strategy.features=last@1"), (FL, "scorer.layer=1")],
    [("strategy=rds", "target.path=FILES/one.jsonl"), ("strategy=rds", "target.path=FILES/one.jsonl", "seed=2")],
    [("strategy=rds", "target.path=FILES/two.jsonl")],
    [("strategy=facility_location", "strategy.kernel.gamma=2"), ("experiments=wide", "seed=1")],
    [(*COSINE,), (*COSINE, "seed=2")],
    [("strategy=min_margin",), ("strategy=min_margin", "budget=30", "seed=7")],
    [("strategy=min_margin", "strategy.residualize=both")],
    [("strategy=min_margin", "scorer.max_new_tokens=7")],
    [("strategy=random",), ("strategy=random", "scorer.max_new_tokens=7"), ("strategy=random", "seed=4")],
]


@pytest.fixture
def select(tmp_path, monkeypatch):
    """Compose overrides as the command line does, with `experiments/wide.yaml`; return the strategy and its stage."""
    files = tmp_path / "files"
    (files / "experiments").mkdir(parents=True)
    (files / "experiments" / "wide.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /strategy: facility_location\nstrategy: {kernel: {gamma: 2}}\n"
    )

    for name in ("one", "two"):
        (files / f"{name}.jsonl").write_text(f'{{"id": "0", "prompt": "Which prompt is this? Number {name}."}}\n')

    def select(overrides):
        overrides = [override.replace("FILES", str(files)) for override in overrides]
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            path = f"hydra.searchpath=[file://{files}]"
            cfg = hydra.compose("config", overrides=[*SMALL, path, f"store={tmp_path / 'store'}", *overrides])
        experiment = build(Parts.of(cfg, overrides))
        (stage,) = (stage for stage in experiment.stages if isinstance(stage, Select))
        assert experiment.arm == label_of(strategy_name(cfg), stage)
        return strategy_name(cfg), stage

    return select


@pytest.mark.slow
def test_dashboards_group_runs_as_the_report_does_wherever_a_setting_comes_from(select):
    labels, identities = [], []
    for number, asked in enumerate(ARMS):
        for overrides in asked:
            strategy, stage = select(overrides)
            records = [each and record_of(each) for each in (stage, stage.score)]
            labels.append((number, label_of(strategy, stage)))
            identities.append((strategy, ArmSettings.of(strategy, *records).identity))
    for (one, a), (other, b) in itertools.combinations(zip(labels, identities, strict=True), 2):
        assert (one == other) == (a == b), (one, other)
    assert {label for _, label in labels} >= {"facility_location kernel.gamma=2", "min_margin residualize=both"}
    assert len(set(labels)) == len(ARMS)


def record_of(stage):
    """What the record of a finished stage holds about its settings."""
    return {"stage": stage.name, "version": stage.version, "fields": canonical(stage.inputs())}


@pytest.mark.slow
def test_every_choice_of_a_strategy_is_named_as_its_file(compose):
    names = sorted(file.stem for file in Path(ROOT / "conf" / "strategy").glob("*.yaml"))
    assert [strategy_name(compose(f"strategy={name}")) for name in names] == names


def test_a_strategy_without_a_name_has_that_of_its_class(compose):
    named = {}
    for file in (ROOT / "conf" / "strategy").glob("*.yaml"):
        cfg = compose(f"strategy={file.stem}", "~strategy.name")
        named[cfg.strategy._target_.rpartition(".")[2]] = strategy_name(cfg)
    assert {kind: name.replace("_", "") for kind, name in named.items()} == {kind: kind.lower() for kind in named}
    assert (named["KCenter"], named["LogDet"], named["TaskDiversity"]) == ("k_center", "log_det", "task_diversity")


def test_a_choice_that_inherits_is_named_after_its_own_file_and_a_name_that_was_typed_stays(compose):
    cfg = compose("strategy=k_center")
    name_strategy(cfg, "mine")
    assert strategy_name(cfg) == "mine"
    cfg = compose("strategy=k_center", "strategy.name=ours")
    name_strategy(cfg, "k_center")
    assert strategy_name(cfg) == "ours"
    cfg = compose("strategy=k_center", "~strategy.name")
    name_strategy(cfg, "mine")
    assert strategy_name(cfg) == "mine"


def test_a_scorer_that_has_a_name_is_called_by_it(select):
    _, stage = select(("strategy=information_gain", "scorer=token_features"))
    assert label_of("information_gain", stage) == "information_gain scorer=token_features"
    _, stage = select(("strategy=information_gain", "scorer=token_features", "scorer.token_features.max_tokens=9"))
    assert label_of("information_gain", stage) == (
        "information_gain scorer=token_features scorer.token_features.max_tokens=9"
    )
