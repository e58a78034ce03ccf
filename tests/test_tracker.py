"""W&B as a mirror: what an offline run holds when read back, and that its failures fail nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aliquot import tracker
from aliquot.tracker import WandB, _logged_in, sync

pytestmark = pytest.mark.filterwarnings("default")
TAGS = ("random", "40", "demo", "model")


def read_back(directory):
    """Return the records of the only W&B run below a directory, as W&B's own reader sees them."""
    (folder,) = directory.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_an_experiment_is_mirrored_whole_without_a_prompt(run, tmp_path):
    run("tracker=wandb", "strategy=random", "budget=200", "tracker.project=test", "tracker.tags=[mine]")
    (directory,) = (tmp_path / "store" / "runs").iterdir()
    records = read_back(directory)
    head = next(record["run"] for record in records if record["type"] == "run")
    assert head["run_id"] == directory.name
    assert head["project"] == "test"
    assert set(head["tags"]) == {"random", "200", "demo", "model", "mine"}
    assert head["config"]["update"]["stages"]["select"]
    text = json.dumps(records)
    for name in ("loss", "selection", "finetuned/demo_mmlu", "base/demo_bbh"):
        assert name in text, name


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_whatever_wandb_raises_the_run_goes_on(tmp_path, monkeypatch, caplog, broken):
    import wandb

    class Run:
        offline, dir, summary = True, str(tmp_path), {}

        def log(self, values):
            assert broken != "log", "no space left"

        def finish(self, exit_code):
            assert broken != "finish", "no network"

    def init(**settings):
        assert broken != "init", "no account"
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    tracked = WandB().start("key", {}, TAGS, tmp_path)
    for _ in range(3):
        tracked.log({"loss": 1.0})
    tracked.finish({"a": 1})
    assert caplog.text.count("W&B failed") == 1


def test_a_run_that_goes_on_does_not_log_its_steps_again(tmp_path, monkeypatch):
    import wandb

    logged, started = [], []

    class Run:
        offline, url, summary = False, "https://example.org", {"step": 20}

        def log(self, values):
            logged.append(values)

    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or Run())
    tracked = WandB().start("key", {}, TAGS, tmp_path, sweep="0a1b")
    for step in (10, 20, 30):
        tracked.log({"step": step, "loss": 1.0})
    tracked.log({"other": 1})
    assert logged == [{"step": 30, "loss": 1.0}, {"other": 1}]
    assert started[0]["group"] == "0a1b"
    assert (started[0]["id"], started[0]["resume"]) == ("key", "allow")


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
    monkeypatch.setattr(tracker, "_logged_in", lambda: True)
    monkeypatch.setattr(tracker.subprocess, "run", upload)
    assert sync(tmp_path) == (1, 1)
    assert sync(tmp_path) == (0, 1)
    assert uploads == ["offline-run-a", "offline-run-b", "offline-run-b"]


def test_uploading_needs_an_account(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "_logged_in", lambda: False)
    with pytest.raises(ValueError, match="wandb login"):
        sync(tmp_path)


def test_logged_in_means_a_key_in_the_environment_or_in_netrc(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not _logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    (tmp_path / "netrc").chmod(0o600)
    assert _logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not _logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert _logged_in()
