"""Upper references in whole experiments: they say so everywhere, and read only what was there before."""

import json

import pytest

from aliquot.annotation.annotator import Annotator, Oracle
from aliquot.annotation.people.people import People
from aliquot.experiment.build import Parts, build
from aliquot.experiment.run import fetch
from aliquot.pools.spec import JsonlPool
from aliquot.stages import Prepare, ReadResponses
from aliquot.store.store import Store
from fake_endpoint import MODEL
from mirror import read_back

pytestmark = pytest.mark.filterwarnings("default")
UPPER = ("strategy=learnability", "until=select", "budget=5")
TEACHER = ("annotator=teacher", f"annotator.model={MODEL}")
ALL = ("strategy=random", "budget=all", "until=annotate")


def only(paths):
    (path,) = paths
    return path


def done(tmp_path, stage):
    return {path.parent.name for path in tmp_path.glob(f"store/{stage}/*/stage.json")}


def picked(tmp_path):
    """Return the ids that each run selected, in their order, by strategy and budget."""
    found = {}
    for path in tmp_path.glob("store/runs/*/results.json"):
        record = json.loads(path.read_text())
        rows = (path.parent / "selected.jsonl").read_text().splitlines()
        found[record["strategy"], record["budget"]] = [json.loads(row)["id"] for row in rows]
    return found


@pytest.fixture
def pool(tmp_path):
    """A pool of 12 rows with responses; returns the overrides that name it, and a way to write it anew."""
    rows = [{"id": f"r{i}", "prompt": f"What comes after {i} ?", "response": str(i + 1)} for i in range(12)]
    file = tmp_path / "pool.jsonl"

    def write(rows):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return "pool=jsonl", f"pool.path={file}", "pool.limit=null"

    write.rows, write.asked = rows, write(rows)
    return write


@pytest.mark.slow
def test_plan_results_record_and_mirror_say_that_it_read_responses(run, tmp_path, capsys):
    run("strategy=ifd", "pool.limit=60", "budget=20", "tracker=wandb")
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "ifd (reads responses): 20 of the 60 prompts",
        "responses: read all 60 responses of Oracle",
        "select: rank 20 prompts by Ifd (reads responses)",
        "20 of 60 prompts by ifd (reads responses):",
    ):
        assert words in out
    directory = only((tmp_path / "store" / "runs").iterdir())
    record = json.loads((directory / "results.json").read_text())
    assert (record["strategy"], record["arm"], record["uses_response"]) == ("ifd", "ifd (reads responses)", True)
    config = read_back(directory).config
    assert config["strategy"]["uses_response"] is True
    assert config["experiment"]["uses_response"] is True and config["experiment"]["arm"] == "ifd (reads responses)"
    assert not done(tmp_path, "score")


@pytest.mark.slow
def test_a_strategy_that_reads_prompts_only_is_not_marked(run, tmp_path, capsys):
    run("strategy=longest", "until=select", "pool.limit=60", "budget=20")
    assert "reads responses" not in capsys.readouterr().out
    record = json.loads(only((tmp_path / "store" / "runs").glob("*/results.json")).read_text())
    assert record["arm"] == "longest" and record["uses_response"] is False


@pytest.mark.slow
def test_all_upper_references_and_budgets_share_one_pass_and_a_deeper_budget_goes_on(run, tmp_path):
    for name in ("ifd", "wrong_answers", "learnability"):
        run(f"strategy={name}", "until=select", "pool.limit=60", "budget=10")
    run("strategy=ifd", "until=select", "pool.limit=60", "budget=30")
    assert len(done(tmp_path, "responses")) == 1 and len(done(tmp_path, "select")) == 3
    found = picked(tmp_path)
    assert found["ifd", 30][:10] == found["ifd", 10]
    assert len({tuple(ids) for (_, budget), ids in found.items() if budget == 10}) == 3


@pytest.mark.slow
def test_other_responses_to_the_same_prompts_are_read_again_and_other_columns_are_not(run, pool, tmp_path):
    run(*UPPER, *pool.asked)
    pool([row | {"response": row["response"] * 2} for row in pool.rows])
    run(*UPPER, *pool.asked)
    assert len(done(tmp_path, "pool")) == 2 and len(done(tmp_path, "responses")) == 2
    assert len(done(tmp_path, "select")) == 2


@pytest.mark.slow
def test_a_row_without_a_response_is_named_before_anything_is_read(run, pool, tmp_path):
    rows = [row | ({"response": None} if row["id"] == "r7" else {}) for row in pool.rows]
    with pytest.raises(
        ValueError, match=r"pool\.jsonl:8: .*'response': it is null; a strategy that reads responses needs"
    ):
        run(*UPPER, *pool(rows))
    with pytest.raises(ValueError, match=r"pool\.jsonl:1: .*; a strategy that reads responses needs one in every row"):
        run(*UPPER, *pool([{name: row[name] for name in ("id", "prompt")} for row in rows]))
    with pytest.raises(ValueError, match=r"pool\.jsonl:8: .*until=select"):
        run(*ALL, *pool(rows), "tracker=none")  # the oracle has advice of its own
    assert not done(tmp_path, "responses") and not done(tmp_path, "trial")


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["file", "label_studio", "argilla"])
def test_people_must_have_answered_every_prompt(run, pool, tmp_path, tool, capsys):
    folder = tmp_path / "batch"
    people = (f"annotator={tool}", f"annotator.folder={folder}", *pool.asked)
    with pytest.raises(ValueError, match=r"needs all 12 of pool .*, and people.* 0 of use \(none to id 'r0'\)"):
        run(*UPPER, *people)
    assert not folder.exists()  # nobody is asked
    run(*ALL, *people)
    returned = folder / "to_annotate.jsonl"
    rows = [json.loads(line) for line in returned.read_text().splitlines()]

    def answer(rows):
        returned.write_text("".join(json.dumps(row | {"response": f"{row['id']} !"}) + "\n" for row in rows))

    answer([row for row in rows if row["id"] != "r4"])
    for partial in ("false", "true"):
        with pytest.raises(ValueError, match=r"11 of use \(none to id 'r4'\); nothing is bought .*budget=all"):
            run(*UPPER, *people, f"annotator.allow_partial={partial}")
    assert not done(tmp_path, "responses")
    answer(rows)
    capsys.readouterr()
    run(*UPPER, *people)
    assert "responses: read all 12 responses of people" in capsys.readouterr().out
    assert len(picked(tmp_path)["learnability", 5]) == 5
    run(*UPPER, *people, "annotator.price=3")
    assert len(done(tmp_path, "responses")) == 1
    answer([row | {"id": row["id"]} for row in rows[:-1]])
    with pytest.raises(ValueError, match="11 of use"):
        run(*UPPER, *people)


@pytest.mark.slow
def test_a_teacher_must_have_answered_every_prompt_and_is_asked_for_nothing(serve, run, pool, tmp_path):
    pytest.importorskip("openai", reason="the client of teachers is not installed")
    server = serve()
    with pytest.raises(ValueError, match=rf"needs all 12 of pool .*, and {MODEL} has given 0 of use"):
        run(*UPPER, *TEACHER, *pool.asked)
    run("strategy=random", "budget=9", "until=annotate", *TEACHER, *pool.asked)
    with pytest.raises(ValueError, match=rf"{MODEL} has given 9 of use .*; nothing is bought for it"):
        run(*UPPER, *TEACHER, *pool.asked)
    assert server.answered.total() == 9
    run(*ALL, *TEACHER, *pool.asked)
    run(*UPPER, *TEACHER, *pool.asked)
    assert server.answered.total() == 12
    assert len(done(tmp_path, "responses")) == 1


@pytest.mark.slow
def test_a_local_teacher_must_have_answered_every_prompt(run, pool, tmp_path):
    model = {"path": "pkg://aliquot.demo/model", "template": "'{prompt} {response}'", "max_tokens": 64}
    teacher = ["annotator=local_teacher", "annotator.max_tokens=4", "annotator.keep_cut=true", *pool.asked]
    teacher += [f"annotator.model.{name}={value}" for name, value in model.items()]
    with pytest.raises(ValueError, match=r"needs all 12 of pool .*, and model has given 0 of use"):
        run(*UPPER, *teacher)
    run(*ALL, *teacher)
    run(*UPPER, *teacher)
    assert len(done(tmp_path, "responses")) == 1


def test_an_annotator_that_says_nothing_has_answered_nothing(pool, tmp_path):
    class Silent(Annotator):
        name = "Silent"

    assert Silent().answered(JsonlPool(path="x"), ["a"], ["b"], tmp_path) == {}
    pool(pool.rows)
    source = JsonlPool(path=str(tmp_path / "pool.jsonl"))
    assert Oracle().answered(source, ["r3", "r0"], ["", ""], tmp_path) == {"r3": "4", "r0": "1"}


@pytest.mark.parametrize(
    ("strategy", "until", "times"), [("ifd", "select", 1), ("random", "select", 0), ("ifd", "score", 0)]
)
def test_responses_are_fetched_from_servers_before_an_upper_reference_chooses(
    compose, tmp_path, monkeypatch, strategy, until, times
):
    fetched = []
    monkeypatch.setattr(People, "fetch", lambda self: fetched.append(self))
    fetch([compose("annotator=file", f"annotator.folder={tmp_path}", f"strategy={strategy}", f"until={until}")])
    assert len(fetched) == times


@pytest.mark.slow
def test_responses_that_change_between_the_plan_and_the_pass_stop_the_run(pool, tmp_path, compose):
    folder = tmp_path / "batch"
    (folder / "returned").mkdir(parents=True)

    def answer(text):
        rows = (json.dumps({"id": row["id"], "response": text}) + "\n" for row in pool.rows)
        (folder / "returned" / "a.jsonl").write_text("".join(rows))

    answer("before")
    store = f"store={tmp_path / 'store'}"
    parts = Parts.of(compose(*pool.asked, *UPPER, "annotator=file", f"annotator.folder={folder}", store))
    (stage,) = (stage for stage in build(parts).stages if isinstance(stage, ReadResponses))
    answer("afterwards")
    with pytest.raises(ValueError, match=r"people \(files\) changed as the run started"):
        parts.store.ensure(stage)


@pytest.mark.slow
def test_a_budget_beyond_the_pool_is_refused_before_anything_is_read(run, pool, tmp_path):
    with pytest.raises(ValueError, match="budget 13 exceeds the 12 prompts"):
        run("strategy=ifd", "until=select", *pool.asked, "budget=13")
    assert not done(tmp_path, "responses")


@pytest.mark.slow
def test_an_upper_reference_that_denies_to_read_responses_or_leaves_it_out_is_refused(run):
    with pytest.raises(ValueError, match="uses_response=false: Ifd reads the response of every prompt"):
        run("strategy=ifd", "strategy.uses_response=false")
    with pytest.raises(ValueError, match=r"strategy\.uses_response has no value, and Ifd needs one"):
        run("strategy=ifd", "~strategy.uses_response")


def test_until_score_needs_no_response(compose, pool, tmp_path):
    rows = [{name: row[name] for name in ("id", "prompt")} for row in pool.rows]
    asked = (*pool(rows), "strategy=ifd", "until=score", "budget=5", f"store={tmp_path / 'store'}")
    assert build(Parts.of(compose(*asked))).stages[-1].name == "score"


def test_the_key_does_not_depend_on_how_the_pass_is_run(pool, tmp_path, compose):
    store = Store(tmp_path / "store")
    parts = Parts.of(compose(*pool.asked, *UPPER, f"store={store.root}"))
    pool(pool.rows)
    prepare = Prepare(parts.pool).settled(store)
    one = ReadResponses(parts.model, prepare, Oracle(), parts.trainer, 4096, 12)
    other = ReadResponses(parts.model, prepare, Oracle(), parts.trainer, 128, 13)
    assert one.key == other.key
