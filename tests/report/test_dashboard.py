"""W&B dashboards: they draw what runs log, W&B's own library reads them back, and each is made once."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys

import pytest
from wandb_server import Server

from aliquot.__main__ import main
from aliquot.config.create import create
from aliquot.config.schema import ROOT
from aliquot.experiment.build import Parts, build
from aliquot.experiment.run import execute
from aliquot.launch.plan import make_plan
from aliquot.launch.sweep import Sweep
from aliquot.report.reading import read_records, read_studies
from aliquot.store.store import Store
from command_line import run_command
from mirror import read_back

# wandb-workspaces uses what pydantic calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
KEY = "0123456789" * 4
TASK = "demo_bbh_count_word"
SMALL = ("pool.limit=100", "budget=20", "evaluate.limit=8", f"evaluate.tasks=[{TASK}]", "scorer.max_new_tokens=1")
GAMMAS = ("0.5", "1")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A store with a sweep of two runs, mirrored offline, and the sweep."""
    import hydra

    store, jobs = Store(tmp_path_factory.mktemp("swept")), []
    for gamma in GAMMAS:
        overrides = ("strategy=facility_location", f"strategy.kernel.gamma={gamma}", *SMALL)
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = hydra.compose("config", overrides=[*overrides, f"store={store.root}"])
        jobs.append((cfg, build(Parts.of(cfg, overrides))))
    experiments = [experiment for _, experiment in jobs]
    plan = make_plan((stage for experiment in experiments for stage in experiment.stages), store)
    sweep = Sweep.of(experiments, plan, "python run.py -m strategy=facility_location strategy.kernel.gamma=0.5,1")
    sweep.save(store)
    for cfg, experiment in jobs:
        execute(experiment, store, cfg, create(cfg, "tracker"), sweep.label())
    return store, sweep


@pytest.fixture
def store(swept, tmp_path):
    """A copy of the sweep's store, as far as it is looked at."""
    ignored = shutil.ignore_patterns("wandb", "*.npy", "*.npz", "*.safetensors", "*.arrow")
    return Store(shutil.copytree(swept[0].root, tmp_path / "store", ignore=ignored))


@pytest.fixture
def board(swept):
    """Make the dashboard of the sweep."""
    from aliquot.report.analysis.compare import find
    from aliquot.report.dashboards.boards import WandbProject, make_board

    store, sweep = swept
    (study,) = read_studies(store.root, [sweep.id])
    findings = find(study)

    def make(number=None, **changes):
        return make_board(sweep, dataclasses.replace(study, **changes), findings, WandbProject("me", "mine"), number)

    return make


def panels_of(spec):
    """All panels of a view and a report, as W&B has them."""
    sections = spec["view"]["spec"]["section"]["panelBankConfig"]["sections"]
    grids = [block["metadata"] for block in spec["report"]["spec"]["blocks"] if block["type"] == "panel-grid"]
    return [
        *(panel for section in sections for panel in section["panels"]),
        *(panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]),
    ]


def run_sets_of(spec):
    """The choices of runs in a view and a report."""
    grids = [block["metadata"] for block in spec["report"]["spec"]["blocks"] if block["type"] == "panel-grid"]
    return [*spec["view"]["spec"]["section"]["runSets"], *(runs for grid in grids for runs in grid["runSets"])]


def has_config(config, path):
    """Tell whether a run's config has what W&B calls a.value.b.c."""
    first, _, rest = path.partition(".value")
    value = config.get(first)
    for name in rest.removeprefix(".").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value is not None


def shown_by(panel, run):
    """Tell whether a run has all that a panel draws."""
    config = panel["config"]
    if panel["viewType"] == "Weave":
        table = config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
        return run.summary[f"{table}._type"] == "table-file"
    if panel["viewType"] == "Scatter Plot":
        axes = [config[name].split(":") for name in ("xAxis", "yAxis", "zAxis") if name in config]
        return all(has_config(run.config, n) if where == "config" else n in run.summary for where, n in axes)
    grouped = "groupBy" not in config or has_config(run.config, config["groupBy"])
    if panel["viewType"] == "Bar Chart":
        return grouped and all(name in run.summary for name in config["metrics"])
    assert panel["viewType"] == "Run History Line Plot"
    return grouped and any({config["xAxis"], *config["metrics"]} <= set(row) for row in run.history)


@pytest.mark.slow
def test_every_panel_draws_what_runs_of_the_pipeline_really_log(swept, board):
    store, sweep = swept
    runs = [read_back(store.root / "runs" / run.id) for run in sweep.runs]
    panels = panels_of(board().spec())
    assert {panel["viewType"] for panel in panels} == {
        "Weave",
        "Scatter Plot",
        "Bar Chart",
        "Run History Line Plot",
    }
    for panel in panels:
        assert all(shown_by(panel, run) for run in runs), panel["config"]
    text = json.dumps(panels)
    for name in (f"finetuned/{TASK}", f"gain/{TASK}", "finetune/loss", "selection_seconds", "kernel.gamma"):
        assert name in text, name


@pytest.mark.slow
def test_runs_are_chosen_by_what_they_have(swept, board):
    store, sweep = swept
    ids = {run.id: read_back(store.root / "runs" / run.id) for run in sweep.runs}
    chosen = []
    for runs in run_sets_of(board().spec()):
        of_ids, *others = runs["filters"]["filters"]
        assert (of_ids["key"], of_ids["op"]) == ({"section": "run", "name": "name"}, "IN")
        chosen.append(set(of_ids["value"]))
        for other in others:
            assert other["key"]["section"] == "summary"
            assert {run.summary[other["key"]["name"]] for run in ids.values()} == {other["value"]}
    assert chosen == [set(ids)] * 7


def test_of_several_studies_each_shows_its_own_runs(swept, board):
    records = read_records(swept[0].root)[:1]
    spec = board(2, records=records).spec()
    (runs,) = spec["view"]["spec"]["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == [record.id for record in records]
    assert spec["view"]["displayName"] == f"aliquot {swept[1].id} (2)"


def test_the_library_of_wandb_reads_back_what_it_wrote(board):
    import wandb_workspaces.reports.v2.internal as report_models
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces.internal import View

    from aliquot.report.dashboards.boards import Board

    spec = json.loads(json.dumps(board().spec()))

    view = Workspace._from_model(View.model_validate(spec["view"]))
    report = Report._from_model(report_models.ReportViewspec.model_validate(spec["report"]))
    back = Board(view, report).spec()
    for panel in panels_of(spec) + panels_of(back):
        if panel["viewType"] == "Weave":
            del panel["layout"]  # the library does not read it back, nor the width of a report
    assert back == spec | {"report": {**spec["report"], "spec": {**spec["report"]["spec"], "width": "readable"}}}


def test_the_report_has_the_tables_and_the_answer(board):
    blocks = board().spec()["report"]["spec"]["blocks"]
    (tables,) = [block["content"] for block in blocks if block["type"] == "markdown-block"]
    assert "minus random" in tables
    assert "kernel.gamma=0.5" in tables
    assert any(TASK in block["children"][0]["text"] for block in blocks if block["type"] == "paragraph")


def dashboard(store, sweep, **environment):
    """Give the command as a user does; returns what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = {**kept, "NETRC": str(store.root / "none"), "WANDB_BASE_URL": "http://127.0.0.1:9", **environment}
    words = ("-m", "aliquot", "dashboard", sweep.id[:4], "--store", store.root)
    return run_command(*words, cwd=ROOT, environment=environment)


@pytest.mark.slow
def test_without_an_account_it_says_what_it_would_create_and_writes_that(swept, store):
    sweep = swept[1]
    said = dashboard(store, sweep)
    assert said.returncode == 0, said.stderr
    assert f"Would create in the W&B project aliquot: the view 'aliquot {sweep.id}' with 12 panels" in said.stdout
    assert "not logged in" in said.stdout
    written = json.loads((store.root / "sweeps" / sweep.id / "dashboard.json").read_text())
    assert written["links"] == {}
    (board,) = written["boards"].values()
    assert len(panels_of(board)) > 12


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_refusal_and_makes_the_same_dashboard_anew(swept, store):
    sweep, path = swept[1], store.root / "sweeps" / swept[1].id / "dashboard.json"
    with Server() as server:
        account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        server.refuses = ("UpsertView2",)
        refused = dashboard(store, sweep, **account)
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"error: creating the view 'aliquot {sweep.id}' in the W&B project me/aliquot failed (")
        assert "permission denied" in line
        assert "run the same command again" in line
        (report,) = server.views
        assert refused.stdout.split()[0] == "report", "it says what was created"

        server.refuses = ()
        whole = dashboard(store, sweep, **account)
        assert (whole.returncode, whole.stderr) == (0, "")
        (links,) = json.loads(path.read_text())["links"].values()
        assert whole.stdout.split()[:4] == ["report", links["report"], "view", links["view"]]
        assert refused.stdout.split() == ["report", links["report"]]
        assert links["view"].startswith(f"{server.url}/me/aliquot?nw=")
        assert [view["type"] for view in server.views.values()] == ["runs", "project-view"]

        server.views[report] = None  # deleted in the browser
        again = dashboard(store, sweep, **account)
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout.split()[3] == links["view"]
        assert [view["type"] for view in server.views.values() if view] == ["project-view", "runs"]
    assert KEY not in path.read_text() + again.stdout + refused.stderr


def test_without_the_library_one_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("aliquot.__main__.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["aliquot", "dashboard", "--store", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"needs the package wandb-workspaces, .* pip install 'aliquot\[dashboards\]'"):
        main()


def test_a_sweep_without_results_or_mirror_is_refused_with_a_remedy(swept, store):
    from aliquot.report.dashboards.command import create_dashboards

    sweep = swept[1]
    config = store.root / "runs" / sweep.runs[0].id / "config.yaml"
    config.write_text(
        config.read_text().partition("tracker:")[0] + "tracker: {_target_: aliquot.experiment.tracker.NoTracker}\n"
    )
    with pytest.raises(ValueError, match=r"tracker=none.*python -m aliquot report"):
        create_dashboards(store.root, sweep.id)
    for path in (store.root / "runs").glob("*/results.json"):
        path.unlink()
    with pytest.raises(ValueError, match=r"of the 2 runs .* none is finished .* aliquot status"):
        create_dashboards(store.root, sweep.id)
