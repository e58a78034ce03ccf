"""W&B as a mirror: what an offline run holds when read back, that nothing is logged twice, and that its failures fail
nothing."""

import json
import subprocess
from pathlib import Path

import pytest

from aliquot.experiment import run as pipeline
from aliquot.experiment import tracker
from aliquot.experiment.build import Parts, build
from aliquot.experiment.record import RunRecord
from aliquot.experiment.run import build_stage
from aliquot.experiment.tracker import NoTracker, WandB, address_of, describe_selection, logged_in, sync
from aliquot.stages import Evaluate, Finetune
from aliquot.store.store import Store
from mirror import read_back

pytestmark = pytest.mark.filterwarnings("default")
CONFIG = {
    "experiment": {"strategy": "random", "arm": "random", "budget": 40, "pool": "demo", "model": "model"},
    "seed": 0,
}
ROWS = [{"rank": 0, "id": "a", "task": None, "gain": 0.0, "prompt": "one two"}]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """The offline W&B run of a small experiment, and the store it belongs to."""
    import hydra

    from aliquot.config.schema import ROOT

    store = tmp_path_factory.mktemp("store")
    small = ["pool.limit=300", "budget=200", "evaluate.limit=1", f"store={store}", "strategy=random", "seed=3"]
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        pipeline.run(hydra.compose("config", overrides=[*small, "tracker.project=test", "tracker.tags=[mine]"]))
    (directory,) = (store / "runs").iterdir()
    return read_back(directory), directory


@pytest.mark.slow
def test_a_run_is_called_what_it_is(mirrored):
    run, directory = mirrored
    assert run.head["run_id"] == directory.name
    assert run.head["project"] == "test"
    assert run.head["run_group"] == "demo-model"
    assert run.head["display_name"] == "random, 200, seed 3"
    assert set(run.head["tags"]) == {"random", "200", "demo", "model", "mine"}
    about = {"strategy": "random", "arm": "random", "budget": 200, "pool": "demo", "num_prompts": 300, "model": "model"}
    assert run.config["experiment"] == about | {"uses_response": False}
    assert run.config["stages"]["select"]
    assert run.config["seed"] == 3


def test_losses_are_logged_by_the_step_of_finetuning(mirrored):
    run, directory = mirrored
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    losses = [{f"finetune/{k}": v for k, v in line.items()} for line in lines if "step" in line]
    assert len(losses) > 2
    assert [row for row in run.history if "finetune/step" in row] == losses
    assert run.axes["finetune/*"] == "finetune/step"


def test_the_summary_holds_the_results_under_the_names_of_metrics_jsonl(mirrored):
    run, directory = mirrored
    written = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert {name: run.summary[name] for name in written} == written
    gain = written["finetuned/demo_mmlu"] - written["base/demo_mmlu"]
    assert written["gain/demo_mmlu"] == pytest.approx(gain)
    assert written["selection_seconds"] == pytest.approx(written["seconds/select"])  # random needs no scores
    assert written in run.history, "a line over the budget needs both in one row"
    assert run.axes["finetuned/*"] == run.axes["gain/*"] == "budget"


def test_the_selection_is_a_table_and_numbers(mirrored):
    run, directory = mirrored
    rows = [json.loads(line) for line in (directory / "selected.jsonl").read_text().splitlines()]
    assert run.summary["selection._type"] == "table-file"
    (table,) = directory.glob("wandb/offline-run-*/files/media/table/selection*.json")
    assert json.loads(table.read_text())["data"] == [list(row.values()) for row in rows]
    assert run.summary["selection/num_tasks"] == len({row["task"] for row in rows})


def test_selection_and_adapter_are_artifacts_by_reference_and_nothing_is_copied(mirrored):
    run, directory = mirrored
    artifacts = {artifact["type"]: artifact for artifact in run.artifacts}
    selection, adapter = artifacts["selection"], artifacts["adapter"]
    assert selection["name"] == f"selection-{directory.name}"
    (entry,) = selection["manifest"]["contents"]
    assert entry["ref"] == (directory / "selected.jsonl").as_uri()
    refs = {entry["path"]: entry["ref"] for entry in adapter["manifest"]["contents"]}
    (folder,) = (directory.parents[1] / "finetune").glob("*/adapter")
    assert refs == {file.name: file.as_uri() for file in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(refs)
    kept = [path for path in (directory / "wandb", directory.parents[1] / "wandb") for path in path.rglob("*")]
    assert not [path for path in kept if path.suffix == ".safetensors"]
    assert not [path for path in kept if path.is_file() and path.stat().st_size > 200_000], "a copy of the adapter?"


@pytest.mark.slow
def test_without_artifacts_nothing_refers_to_the_store(run, tmp_path):
    run("tracker=wandb", "strategy=random", "tracker.artifacts=false", "until=finetune")
    (directory,) = (tmp_path / "store" / "runs").iterdir()
    assert {artifact["type"] for artifact in read_back(directory).artifacts} == {"run_table"}


@pytest.mark.slow
def test_a_run_that_was_cut_off_offline_is_mirrored_once_and_whole(run, tmp_path, monkeypatch):
    evaluate = Evaluate.build

    def cut_off(self, store, directory, on_metrics):
        if self.finetune:
            raise KeyboardInterrupt
        evaluate(self, store, directory, on_metrics)

    options = ("tracker=wandb", "strategy=random", "budget=200", "evaluate.tasks=[demo_bbh]")
    with monkeypatch.context() as broken:
        broken.setattr(Evaluate, "build", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(*options)
    (directory,) = (tmp_path / "store" / "runs").iterdir()
    (cut,) = directory.glob("wandb/offline-run-*")
    metrics = next((tmp_path / "store" / "finetune").glob("*/metrics.jsonl"))
    run(*options)
    assert not cut.exists()
    logged = [row["finetune/step"] for row in read_back(directory).history if "finetune/step" in row]
    assert logged == [json.loads(line)["step"] for line in metrics.read_text().splitlines()]


def test_numbers_of_a_selection_are_those_of_its_definition():
    rows = [{"task": task, "prompt": "one two  three"} for task in "aabb"]
    numbers = describe_selection(rows)
    assert numbers == {"selection/mean_words": 3, "selection/num_tasks": 2, "selection/effective_tasks": 2}
    uneven = describe_selection([{"task": task, "prompt": "x"} for task in "aaab"])
    assert uneven["selection/effective_tasks"] == pytest.approx(4 / 3**0.75)
    assert set(describe_selection(ROWS)) == {"selection/mean_words"}


def test_seconds_of_choosing_are_those_of_the_scoring_pass_and_all_parts_of_the_ranking():
    names = ("pool", "score", "select_part", "select_part", "select", "annotate", "evaluate base")
    stages = [(name, "key", float(2**i)) for i, name in enumerate(names)]
    summary = RunRecord("id", "k_center", "demo", 10, 5, 0, (), (), (), stages, "now").summary()
    assert summary["seconds/select_part"] == 4 + 8
    assert summary["seconds/evaluate_base"] == 64
    assert summary["selection_seconds"] == 2 + 4 + 8 + 16


class FakeRun:
    """A W&B run that another process began."""

    offline, url, id = False, "https://example.org", "key"

    def __init__(self, **summary):
        self.summary, self.logged, self.ended = summary, [], []

    def define_metric(self, name, step_metric=None): ...

    def log(self, values):
        self.logged.append(values)

    def log_artifact(self, artifact): ...

    def finish(self, exit_code):
        self.ended.append(exit_code)


@pytest.mark.parametrize("broken", ["init", "define_metric", "log", "log_artifact", "finish"])
def test_whatever_wandb_raises_the_run_goes_on(tmp_path, monkeypatch, caplog, broken):
    import wandb

    def fail(*_, **__):
        raise OSError("no space left")

    fake = FakeRun()
    setattr(fake, broken, fail)
    monkeypatch.setattr(wandb, "init", fail if broken == "init" else lambda **_: fake)
    tracked = WandB().start("key", CONFIG, tmp_path)
    for step in range(1, 4):
        tracked.log({"step": step, "loss": 1.0})
    (tmp_path / "selected.jsonl").touch()
    tracked.selection(ROWS, tmp_path / "selected.jsonl")
    tracked.adapter(tmp_path)
    tracked.results({"budget": 1})
    tracked.finish(failed=False)
    assert caplog.text.count("W&B failed") == 1


def test_what_a_run_has_already_is_not_logged_again(tmp_path, monkeypatch):
    import wandb

    started = []
    fake = FakeRun(**{"finetune/step": 20, "selection": {}, "budget": 40})
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or fake)
    tracked = WandB(artifacts=False).start("key", CONFIG | {"sweep": {"id": "0a1b"}}, tmp_path)
    for step in (10, 20, 30, 30):
        tracked.log({"step": step, "loss": 1.0})
    tracked.selection(ROWS, tmp_path / "selected.jsonl")
    tracked.results({"budget": 40, "seed": 1})
    assert fake.logged == [{"finetune/step": 30, "finetune/loss": 1.0}]
    assert fake.summary["seed"] == 1
    assert started[0]["group"] == "0a1b"
    assert address_of(tmp_path) == FakeRun.url
    assert (started[0]["id"], started[0]["resume"]) == ("key", "allow")


@pytest.mark.slow
@pytest.mark.parametrize("online", [True, False])
def test_a_worker_logs_losses_as_they_come_where_the_run_can_go_on_later(compose, tmp_path, monkeypatch, online):
    import wandb

    runs, at_the_time = [], []
    monkeypatch.setenv("WANDB_MODE", "online" if online else "offline")
    monkeypatch.setattr(wandb, "init", lambda **_: runs.append(FakeRun()) or runs[-1])
    overrides = ("strategy=random", "budget=200", "pool.limit=300", "evaluate.limit=1", f"store={tmp_path}")
    cfg, store = compose(*overrides), Store(tmp_path)
    experiment = build(Parts.of(cfg))

    def train(self, store, directory, on_metrics):
        for step in (1, 2):
            on_metrics({"step": step, "loss": 0.5})
            at_the_time.append(len(runs[-1].logged) if runs else 0)

    monkeypatch.setattr(Finetune, "build", train)
    for upstream in experiment.stages:
        if upstream.name in ("annotate", "finetune"):
            build_stage(upstream, experiment, store, cfg, WandB(), {"id": "0a1b", "command": "python run.py"})
    assert at_the_time == ([1, 2] if online else [0, 0])
    assert [run.ended for run in runs] == ([[0]] if online else [])
    assert not NoTracker().live


@pytest.mark.slow
def test_a_worker_whose_training_fails_says_so(compose, tmp_path, monkeypatch):
    import wandb

    fake = FakeRun()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", lambda **_: fake)
    cfg = compose("strategy=random", "budget=20", "pool.limit=300", f"store={tmp_path}")
    store, experiment = Store(tmp_path), build(Parts.of(cfg))
    stage = next(stage for stage in experiment.stages if isinstance(stage, Finetune))
    directory = store.directory(stage)
    directory.mkdir(parents=True)
    (directory / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')  # cut off as it wrote

    def fail(self, store, directory, on_metrics):
        raise ValueError("the loss is nan")

    monkeypatch.setattr(Finetune, "build", fail)
    with pytest.raises(ValueError, match="the loss is nan"):
        build_stage(stage, experiment, store, cfg, WandB(), {"id": "0a1b", "command": "python run.py"})
    assert fake.logged == [{"finetune/step": 1, "finetune/loss": 0.5}]
    assert fake.ended == [1]


def test_offline_runs_are_uploaded_once(tmp_path, monkeypatch):
    uploads = []

    def upload(command, **_):
        folder = Path(command[-1])
        uploads.append(folder.name)
        if folder.name != "offline-run-b":
            (folder / "run-x.wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0, "", "no network")

    for run, name in (("1", "offline-run-a"), ("2", "offline-run-b")):
        (tmp_path / run / "wandb" / name).mkdir(parents=True)
    monkeypatch.setattr(tracker, "logged_in", lambda: True)
    monkeypatch.setattr(tracker.subprocess, "run", upload)
    assert sync(tmp_path) == (1, 1)
    assert sync(tmp_path) == (0, 1)
    assert uploads == ["offline-run-a", "offline-run-b", "offline-run-b"]


def test_uploading_needs_an_account(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "logged_in", lambda: False)
    with pytest.raises(ValueError, match="wandb login"):
        sync(tmp_path)


def test_logged_in_means_a_key_in_the_environment_or_in_netrc(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    (tmp_path / "netrc").chmod(0o600)
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert logged_in()
