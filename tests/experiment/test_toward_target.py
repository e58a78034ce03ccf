"""Choosing toward a target, from the command line: one more pass of the same stage, and nothing else changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from omegaconf import open_dict

import aliquot.stages
from aliquot.config.schema import ROOT
from aliquot.pools.target import TargetFile
from aliquot.scoring.normalization import Normalization
from aliquot.scoring.run import load_scores
from aliquot.selection.strategy import rank
from command_line import run_command

SELECT = ("until=select", "tracker=none")


@pytest.fixture
def target(tmp_path):
    file = tmp_path / "prompts of ours.jsonl"
    rows = [{"id": str(i), "prompt": f"Which color is number {i}?", "task": "find_colour"} for i in range(5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def stages(store, name):
    return sorted(file.parent for file in (store / name).glob("*/stage.json"))


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["rds", "targeted_facility_location", "allocation"])
def test_the_target_goes_through_a_pass_of_its_own(run, tmp_path, target, choice):
    more = ["strategy.toward=target", "strategy.groups=clusters"] if choice == "allocation" else []
    run(f"strategy={choice}", *more, f"target.path='{target}'", *SELECT)
    store = tmp_path / "store"
    assert [len(load_scores(folder)) for folder in stages(store, "score")].count(5) == 1
    assert len(stages(store, "target")) == len(stages(store, "select")) == 1
    run("strategy=random", f"target.path='{target}'", *SELECT)  # reads no target
    record = [json.loads((folder / "stage.json").read_text()) for folder in stages(store, "select")]
    assert sorted("target" in one["fields"] for one in record) == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("normalize", ["centered", "whitened_unit"])
def test_its_features_are_normalized_by_what_is_fitted_on_the_pool(run, tmp_path, target, normalize, monkeypatch):
    seen = []
    monkeypatch.setattr(aliquot.stages, "rank", lambda *args: seen.append(args) or rank(*args))
    run("strategy=rds", f"target.path='{target}'", f"scorer.normalize={normalize}", *SELECT)
    run("strategy=k_center", f"target.path='{target}'", *SELECT)
    passes = [load_scores(folder) for folder in stages(tmp_path / "store", "score")]
    raw_pool = next(s for s in passes if len(s) > 5 and not np.allclose(s.views["weighted"].mean(axis=0), 0, atol=1e-4))
    raw_target = next(s for s in passes if len(s) == 5)
    wanted = Normalization.fit(raw_pool.views["weighted"], normalize).apply(raw_target.views["weighted"])
    (_, _, scores, *_), _ = seen
    np.testing.assert_allclose(scores.target.scores.views["weighted"], wanted, rtol=1e-3, atol=1e-4)


def test_a_strategy_that_needs_a_target_says_so_before_the_pool_is_read(run, tmp_path):
    with pytest.raises(ValueError, match=r"none were given; name a file.*target=prompts.jsonl"):
        run("strategy=rds", *SELECT)
    assert not (tmp_path / "store" / "pool").exists()


@pytest.mark.slow
def test_a_file_is_typed_as_the_target_itself(target, tmp_path):
    words = ("strategy=rds", f"target='{target}'", "pool.limit=50", "budget=5", *SELECT, f"store={tmp_path / 'store'}")
    done = run_command("run.py", *words, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "read 5 target prompts" in done.stdout
    done = run_command("run.py", *words, "scorer.position=last", cwd=ROOT)
    assert "strategy.features=weighted: the pass keeps the features last" in done.stderr


def test_a_file_of_settings_may_name_the_target_as_a_plain_string(compose, tmp_path, target):
    from aliquot.experiment.build import Parts

    cfg = compose("strategy=rds", f"store={tmp_path / 'store'}")
    with open_dict(cfg):
        cfg.target = str(target)
    assert Parts.of(cfg).target == TargetFile(path=str(target))
    with open_dict(cfg):
        cfg.target = None
    with pytest.raises(ValueError, match=r"target=prompts\.jsonl"):
        Parts.of(cfg)


@pytest.mark.slow
def test_a_target_that_is_not_read_is_mentioned_once(run, target, capsys):
    run("strategy=longest", f"target.path='{target}'", *SELECT)
    run("strategy=longest", f"target.path='{target}'", *SELECT)
    assert capsys.readouterr().out.count("longest does not choose toward it") == 1
