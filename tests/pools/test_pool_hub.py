"""Pools of the hub: the shipped presets, on folders laid out like their datasets, and what cannot be had."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aliquot.config.create import create
from aliquot.config.schema import ROOT
from aliquot.pools.prepare import load_pool
from aliquot.pools.spec import HubPool

COMMIT = "0123456789" * 4
CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {}\n---\n"


def talk(name, i, **columns):
    turns = [("user", f"{name} asks {i}?"), ("assistant", f"{name} says {i}."), ("user", "More?")]
    return {**columns, "messages": [{"role": role, "content": content} for role, content in turns]}


#: One dataset per preset, with the columns its card on the hub names.
ROWS = {
    "flan_v2": [talk(n, i, dataset=n, id=f"{n}_{i}") for n in ("cot", "flan_v2") for i in range(3)],
    "tulu": [talk(n, i, dataset=n, id="same") for n in ("lima", "cot") for i in range(2)],
    "dolly": [
        {"instruction": "Name it.", "context": "", "response": "It.", "category": "open_qa"},
        {"instruction": "Sum up.", "context": "A story.", "response": "Told.", "category": "summarization"},
    ],
    "alpaca": [
        {"instruction": "Name it.", "input": "", "output": "It.", "text": "Below is ..."},
        {"instruction": "Sum up.", "input": "A story.", "output": "Told.", "text": "Below is ..."},
    ],
}
PROMPTS = {
    "flan_v2": [f"flan_v2 asks {i}?" for i in range(3)],
    "tulu": ["lima asks 0?", "lima asks 1?", "cot asks 0?", "cot asks 1?"],
    "dolly": ["Name it.", "Sum up.\n\nA story."],
    "alpaca": ["Name it.", "Sum up.\n\nA story."],
}
TASKS = {
    "flan_v2": None,
    "tulu": ["lima", "lima", "cot", "cot"],
    "dolly": ["open_qa", "summarization"],
    "alpaca": None,
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Keep what `datasets` caches in a folder of the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()


def lay_out(folder, name):
    """Write a dataset as the hub keeps it: parquet in two parts, Dolly's as jsonl; with a card that names the files."""
    folder.mkdir()
    if name == "dolly":
        (folder / "README.md").write_text(CARD.format("databricks-dolly-15k.jsonl"))
        lines = "".join(json.dumps(row) + "\n" for row in ROWS[name])
        (folder / "databricks-dolly-15k.jsonl").write_text(lines)
        return folder
    (folder / "README.md").write_text(CARD.format("data/train-*"))
    (folder / "data").mkdir()
    half = len(ROWS[name]) // 2
    for part, rows in enumerate((ROWS[name][:half], ROWS[name][half:])):
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"train-{part:05}-of-00002.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_every_preset_reads_its_dataset(compose, tmp_path, name):
    spec = create(compose(f"pool={name}", f"pool.path={lay_out(tmp_path / name, name)}"), "pool")
    pool = load_pool(spec)
    assert list(pool.prompts) == PROMPTS[name]
    assert (None if pool.tasks is None else list(pool.tasks)) == TASKS[name]
    assert len(set(pool.ids)) == len(pool)
    first, *_, last = pool.ids
    answers = {"flan_v2": ("flan_v2 says 0.", "flan_v2 says 2."), "tulu": ("lima says 0.", "cot says 1.")}
    assert tuple(spec.read_responses([last, first])[i] for i in (first, last)) == answers.get(name, ("It.", "Told."))
    spec.check_responses()


@pytest.mark.slow
def test_every_preset_names_a_commit_and_its_licence(compose):
    for name in ROWS:
        spec = create(compose(f"pool={name}"), "pool")
        assert spec.content() == f"{spec.path}@{spec.revision}"
        first = (ROOT / "conf" / "pool" / f"{name}.yaml").read_text().splitlines()[0]
        assert any(licence in first for licence in ("ODC-BY", "CC BY")), first


@pytest.mark.slow
def test_a_folder_is_identified_by_its_content(compose, tmp_path):
    one, two = (create(compose("pool=dolly", f"pool.path={lay_out(tmp_path / n, 'dolly')}"), "pool") for n in "ab")
    assert one.identity() == two.identity()
    (tmp_path / "b" / "databricks-dolly-15k.jsonl").write_text('{"instruction": "x"}\n')
    assert one.identity() != two.identity()
    assert HubPool("a/b", COMMIT, split="test").identity() != HubPool("a/b", COMMIT).identity()


@pytest.mark.slow
def test_the_limit_counts_rows_that_are_read(compose, tmp_path):
    path = lay_out(tmp_path / "flan", "flan_v2")
    spec = create(compose("pool=flan_v2", f"pool.path={path}", "pool.limit=2"), "pool")
    assert list(load_pool(spec).ids) == ["flan_v2_0", "flan_v2_1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, r"pool\.split=test.*Unknown split \"test\".*set these to what the dataset has"),
        ({"config": "other"}, r"pool\.config=other: BuilderConfig 'other' not found"),
        ({"where": {"source": ["x"]}}, r"has no column 'source' \(pool\.where\); its columns are instruction"),
        ({"where": {"category": ["x", "y"]}}, r"none of 2 rows has category = x, y; correct pool\.where"),
        ({"prompt": "question"}, r"train:1: no text in column 'question': the columns are instruction, context"),
    ],
)
def test_what_a_dataset_does_not_have_is_named_with_what_it_has(tmp_path, options, message):
    path = lay_out(tmp_path / "dolly", "dolly")
    with pytest.raises(ValueError, match=message):
        load_pool(HubPool(str(path), None, **{"prompt": "instruction", **options}))


def test_a_dataset_with_a_loading_script_is_refused(tmp_path):
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text("raise SystemExit('this must never run')")
    with pytest.raises(ValueError, match="Dataset scripts are no longer supported"):
        load_pool(HubPool(str(tmp_path / "scripted"), None))


def test_without_a_network_the_remedy_is_named():
    with pytest.raises(ValueError, match=r"pool\.path=nobody/nothing at pool\.revision=0123.*Run once with a network"):
        load_pool(HubPool("nobody/nothing", COMMIT))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("Dataset 'a/b' is a gated dataset on the Hub. You must be authenticated", "accept its terms at .*a/b"),
        ("Revision '0' doesn't exist for dataset 'a/b' on the Hub.", "take a commit of .*a/b/commits/main"),
        ("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.", "correct the name; where it is private"),
    ],
)
def test_what_the_hub_refuses_is_told_with_its_remedy(monkeypatch, text, remedy):
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    def refuse(path, config, *, split, revision):
        assert (path, revision) == ("a/b", COMMIT)
        raise DatasetNotFoundError(text)

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=remedy):
        load_pool(HubPool("a/b", COMMIT))


def test_a_branch_is_no_revision_and_a_name_alone_is_none():
    with pytest.raises(ValueError, match=r"pool\.revision=main is not a commit; give the 40 hexadecimal digits"):
        HubPool("a/b", "main")
    with pytest.raises(ValueError, match=r"pool\.path=a/b is not a directory here; correct it, or give pool\.revision"):
        load_pool(HubPool("a/b", None))


def test_offline_the_remedy_is_the_command_that_fetches_that_commit():
    command = rf"hf download --repo-type dataset nobody/nothing --revision {COMMIT} --local-dir copy"
    with pytest.raises(ValueError, match=rf"{command}`\) and set pool\.path=copy"):
        load_pool(HubPool("nobody/nothing", COMMIT))
