"""The configuration: budgets, types, and what may be instantiated."""

import dataclasses

import pytest
from omegaconf import OmegaConf

from aliquot.config.create import _target, create
from aliquot.config.schema import GROUPS, ROOT, parse_budget
from aliquot.selection.strategies import random

FOLDERS = (ROOT / "experiments", ROOT / "sweeps")
NAMES = [p.relative_to(ROOT).with_suffix("").as_posix() for folder in FOLDERS for p in folder.rglob("*.yaml")]


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("45k", 45_000),
        ("1.5K", 1500),
        ("1234", 1234),
        ("50%", 49_500),
        ("0.1%", 99),
        ("all", 99_000),
        (" ALL ", 99_000),
    ],
)
def test_a_budget_is_a_number_a_share_or_all(text, budget):
    assert parse_budget(text, 99_000, "demo") == budget


@pytest.mark.parametrize("text", ["many", "", "1.5", "45kk", "nan", "inf", "1_000", "%", "k", "1e3"])
def test_an_unparsable_budget_says_what_may_be_written(text):
    with pytest.raises(ValueError, match="write 45k, 1234, 50% or all"):
        parse_budget(text, 100, "demo")


@pytest.mark.parametrize("text", ["0", "-5", "-1k", "0%", "0.1%"])
def test_a_budget_below_one_is_refused(text):
    with pytest.raises(ValueError, match="give 1 or more"):
        parse_budget(text, 100, "demo")


def test_a_budget_beyond_the_pool_names_both_numbers():
    with pytest.raises(ValueError, match="budget 90000 exceeds the 45000 prompts of pool 'mine'"):
        parse_budget("90k", 45_000, "mine")


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_every_group_composes_and_is_instantiated(compose, group):
    choices = [path.stem for path in (ROOT / "conf" / group).glob("*.yaml")]
    assert choices
    for choice in choices:
        missing = sorted(OmegaConf.missing_keys(compose(f"{group}={choice}")[group]))
        overrides = [f"{group}={choice}", *(f"{name}=somewhere" for name in missing)]
        assert create(compose(*overrides), group) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_and_sweep_composes_into_stages(compose, name, request, tmp_path, monkeypatch):
    from aliquot.experiment.build import Parts, build
    from aliquot.types import Pool

    numbers = list(map(str, range(100_000)))  # stands in for pools of the hub, which have as many prompts
    pool = Pool("stand-in", numbers, numbers, numbers)
    monkeypatch.setattr("aliquot.stages.Prepare.settled", lambda prepare, _: prepare)
    monkeypatch.setattr("aliquot.store.store.Store.get", lambda *_: pool)
    monkeypatch.setattr("aliquot.experiment.build.Parts.overlap", lambda *_: None)  # held-out rows are not read

    for file in ("held_out", "target", "tuning", "pool", "pool_merged", "pool_split"):  # of allocation and real
        (tmp_path / f"{file}.jsonl").write_text('{"id": "0", "prompt": "a", "response": "b", "task": "t"}\n')
    if name.startswith("experiments/real/"):  # upper references look up the responses
        rows = (f'{{"id": "{i}", "prompt": "{i}", "response": "b", "task": "{i}"}}\n' for i in numbers)
        (tmp_path / "pool.jsonl").write_text("".join(rows))
    for study in ("ALLOCATION_STUDY", "REAL_STUDY"):
        monkeypatch.setenv(study, str(tmp_path))

    text = (ROOT / f"{name}.yaml").read_text()
    if "\nrounds:" in text and "rounds" not in compose():
        pytest.skip("`rounds` is not a setting yet")
    if "ALIQUOT_DATA" in text:
        request.getfixturevalue("real_data")  # skips where there is none
    choice = name.replace("/", "=", 1)
    assert build(Parts.of(compose(choice, f"store={tmp_path}"))).stages
    assert f"python run.py {choice}" in text


def test_every_yaml_opens_with_a_line_for_the_help():
    for path in [
        *(ROOT / "conf").rglob("*.yaml"),
        *(ROOT / "experiments").rglob("*.yaml"),
        *(ROOT / "sweeps").rglob("*.yaml"),
    ]:
        assert path.read_text().startswith("# "), path


@pytest.mark.slow
def test_targets_outside_aliquot_are_refused(compose):
    cfg = compose("strategy._target_=os.system")
    with pytest.raises(ValueError, match=r"only aliquot\.\* is instantiated"):
        create(cfg, "strategy")
    with pytest.raises(ValueError, match=r"strategy\.kernel\._target_=os\.system"):
        create(compose("strategy.kernel._target_=os.system"), "strategy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy.kernel.gamma=wide", "gamma"),
        ("strategy.kernel.gamma=-1", "gamma"),
        ("scorer.max_new_tokens=2.5", "scorer.max_new_tokens=2.5 is float; it must be int"),
        ("scorer.max_new_tokens=-1", "max_new_tokens"),
        ("scorer.position=middle", "position"),
        ("finetune.rank=null", "finetune.rank"),
        ("model.dtype=float8", "model.dtype=float8 is unknown"),
        ("pool=jsonl", "pool needs pool.path"),
        ("strategy.kernel=cosine", r"has settings of its own: write strategy/kernel=cosine or strategy/kernel=rbf$"),
        ("model.quantization=nf4", r"write model/quantization=nf4 or model/quantization=none$"),
        ("scorer.token_features=true", r"write scorer=token_features$"),
        ("pool.clean=false", r"write pool/clean=default, pool.clean.exact=\.\.\., "),
    ],
)
def test_wrong_fields_are_named(compose, override, message):
    with pytest.raises(ValueError, match=message):
        create(compose(override), override.partition("=")[0].split(".")[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("aliquot.strategies.random.Random", "aliquot.selection.strategies.random.Random"),
        ("aliquot.annotators.file.FileAnnotator", "aliquot.annotation.people.files.FileAnnotator"),
        ("aliquot.model.Model", "aliquot.models.spec.Model"),
    ],
)
def test_a_class_that_has_moved_is_named_where_it_is_now(old, new):
    with pytest.raises(ValueError, match=rf"strategy._target_={old} has moved: write _target_: {new}$"):
        _target(old, "strategy")


def test_a_strategy_with_a_field_called_name_is_refused(monkeypatch):
    named = dataclasses.make_dataclass("Named", [("name", str, "x")], frozen=True)
    monkeypatch.setattr(random, "Named", named, raising=False)
    monkeypatch.setattr(named, "__module__", random.__name__)
    node = OmegaConf.create({"strategy": {"_target_": f"{random.__name__}.Named", "name": "mine"}})
    with pytest.raises(ValueError, match=r"random\.Named has a field 'name', .* strategy\.name"):
        create(node, "strategy")
