"""What is dropped from a pool: repetitions, near repetitions, benchmark questions, long prompts; and the sample."""

import gzip
import hashlib
import itertools
import json
import random

import pytest

from aliquot.pools.cleaning import Cleaning, PoolReport
from aliquot.pools.contamination import Benchmarks, BenchmarkText, read_questions
from aliquot.pools.near_duplicates import hashes_per_band, near_duplicates
from aliquot.pools.prepare import load_pool, load_prepared, prepare
from aliquot.pools.shingles import Grams, words
from aliquot.pools.spec import JsonlPool


def make(folder, prompts, **options):
    """Prepare a pool of these prompts; return it with its report and the rows dropped."""
    folder.mkdir(exist_ok=True)
    path = folder / "source.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", "prompt": p}) + "\n" for i, p in enumerate(prompts)))
    return prepared(folder, JsonlPool(str(path), **options))


def prepared(folder, spec):
    folder.mkdir(exist_ok=True)
    prepare(spec, folder)
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    return load_prepared(folder, spec.name), PoolReport.read(folder), dropped


def test_the_first_of_repeated_prompts_stays_whatever_their_white_space(tmp_path):
    pool, report, dropped = make(tmp_path, ["Add 1.", "Other.", " Add\n1. ", "add 1.", "Add 1."])
    assert list(pool.ids) == ["r0", "r1", "r3"]
    assert dropped == [{"id": f"r{i}", "reason": "duplicate", "of": "r0"} for i in (2, 4)]
    assert (report.rows, report.prompts, report.dropped) == (5, 3, {"duplicate": 2})
    assert report.line("mine") == "pool 'mine': 3 of 5 rows are left (2 duplicates)"
    assert len(make(tmp_path, ["Add 1.", "Add 1."], clean=Cleaning(exact=False))[0]) == 2


def test_an_id_of_a_dropped_row_names_no_other_prompt(tmp_path):
    rows = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x"}, {"id": "b", "prompt": "y"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"a\.jsonl:3: id 'b' was already used in line 2"):
        load_pool(JsonlPool(str(tmp_path / "a.jsonl")))


def test_long_prompts_are_dropped_and_counted_in_words(tmp_path):
    pool, report, dropped = make(tmp_path, ["one two three", "one two"], clean=Cleaning(max_words=2))
    assert list(pool.ids) == ["r1"]
    assert dropped == [{"id": "r0", "reason": "too_long", "words": 3}]
    assert "1 too long" in report.line("mine")


def test_labels_of_some_rows_are_no_labels_and_that_is_said(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "task": "t"}\n{"prompt": "y"}\n')
    pool, report, _ = prepared(tmp_path, JsonlPool(str(tmp_path / "a.jsonl")))
    assert pool.tasks is None
    assert report.line("mine") == "pool 'mine': 1 of 2 prompts has no task, so task labels do not count"


@pytest.mark.slow
def test_a_sample_is_drawn_by_id_so_order_does_not_matter_and_smaller_ones_nest(tmp_path):
    rows = [{"prompt": f"prompt {i}"} for i in range(200)]

    def drawn(rows, sample, seed=0):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return list(load_pool(JsonlPool(str(tmp_path / "a.jsonl"), sample=sample, sample_seed=seed)).prompts)

    fifty = drawn(rows, 50)
    assert fifty == sorted(fifty, key=lambda prompt: int(prompt.split()[1]))  # the order of the source
    assert drawn(rows[::-1], 50) == fifty[::-1]
    assert set(drawn(rows, 20)) < set(fifty)
    assert set(drawn(rows, 50, seed=1)) != set(fifty)
    assert drawn(rows, 200) == [row["prompt"] for row in rows]
    many = [{"id": str(i), "prompt": f"prompt {i}"} for i in range(20_000)]  # several batches of the prepared file
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    pool, report, _ = prepared(tmp_path, JsonlPool(str(tmp_path / "a.jsonl"), sample=9000))
    lots = [hashlib.blake2b(f"0 {i}".encode(), digest_size=8).digest() for i in range(20_000)]
    assert list(map(int, pool.ids)) == sorted(sorted(range(20_000), key=lots.__getitem__)[:9000])
    assert list(pool.prompts) == [f"prompt {i}" for i in pool.ids]
    assert report.dropped == {"not_sampled": 11_000}


def test_hashes_of_runs_agree_exactly_where_the_words_do():
    rng = random.Random(0)
    texts = [[rng.choice("abc") for _ in range(rng.randrange(12))] for _ in range(300)]
    hashes, counts = Grams(3)(texts)
    runs = [tuple(text[i : i + 3]) for text in texts for i in range(max(0, len(text) - 2))]
    assert counts.tolist() == [max(0, len(text) - 2) for text in texts]
    assert len(set(zip(runs, hashes.tolist(), strict=True))) == len(set(runs)) == len(set(hashes.tolist()))


def brute_force(prompts, threshold):
    """Compare every prompt with every kept one, by sets of runs of five words."""

    def runs(text):
        found = words(text) or [text]
        found += [""] * (5 - len(found))
        return {tuple(found[i : i + 5]) for i in range(len(found) - 4)}

    kept, dropped = {}, {}
    for row, prompt in enumerate(prompts):
        own = runs(prompt)
        alike = ((r, other) for r, other in kept.items() if threshold <= len(own) / len(other) <= 1 / threshold)
        first = next((r for r, other in alike if len(own & other) >= threshold * len(own | other)), None)
        if first is None:
            kept[row] = own
        else:
            dropped[row] = first
    return dropped


def variants(num):
    """Make prompts that differ from an earlier one in some of their words."""
    rng = random.Random(0)
    base = [[f"w{rng.randrange(500)}" for _ in range(rng.randrange(1, 60))] for _ in range(num // 4)]
    for i in range(num):
        text = list(base[i % len(base)])
        for _ in range(rng.randrange(4)):
            text[rng.randrange(len(text))] = f"new{rng.randrange(500)}"
        yield " ".join(text)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_near_duplicates_are_those_of_brute_force(threshold):
    prompts = [*variants(600), "???", "!!!", "", "short", "Short!"]
    found = near_duplicates(prompts, threshold)
    assert found == brute_force(prompts, threshold)
    assert 20 < len(found) < 600
    assert found[604] == 603 and 601 not in found  # without words, the text itself counts


def test_bands_propose_pairs_at_the_threshold_almost_surely():
    for threshold in (0.3, 0.5, 0.8, 0.95):
        size = hashes_per_band(threshold)
        assert (1 - threshold**size) ** (128 // size) <= 1e-3


@pytest.mark.slow
def test_real_prompts_are_kept_once_whatever_their_order(tmp_path, real_data):
    source = real_data / "pools" / "flan_style.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    different = {" ".join(json.loads(line)["prompt"].split()) for line in lines}
    pool, report, _ = prepared(tmp_path / "all", JsonlPool(str(source)))
    assert len(pool) == len(different) == report.prompts
    assert {" ".join(prompt.split()) for prompt in pool.prompts} == different
    (tmp_path / "a.jsonl").write_text("".join(lines[:20_000]))
    (tmp_path / "b.jsonl").write_text("".join(lines[19_999::-1]))
    one, two = (load_pool(JsonlPool(str(tmp_path / name), id=None)) for name in ("a.jsonl", "b.jsonl"))
    assert set(one.ids) == set(two.ids) and len(one) == len(two) < 20_000


@pytest.mark.slow
def test_near_duplicates_of_real_prompts_are_those_of_brute_force(real_data):
    with gzip.open(real_data / "pools" / "flan_style.jsonl.gz", "rt", encoding="utf-8") as file:
        prompts = list({json.loads(line)["prompt"]: 0 for line in itertools.islice(file, 2000)})
    found = near_duplicates(prompts, 0.8)
    assert found == brute_force(prompts, 0.8)
    assert found


def test_near_duplicates_are_dropped_and_reported(tmp_path):
    text = " ".join(f"w{i}" for i in range(60))
    pool, report, dropped = make(tmp_path, [text, "Other.", f"{text} more"], clean=Cleaning(near=0.8))
    assert list(pool.ids) == ["r0", "r1"]
    assert dropped == [{"id": "r2", "reason": "near_duplicate", "of": "r0"}]
    assert report.dropped == {"near_duplicate": 1}


QUESTION = "If three trains leave the old station at noon, how many of them will arrive before dark?"


def test_a_run_of_words_shared_with_a_question_is_found_and_shown(tmp_path):
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "q.jsonl").write_text(json.dumps({"n": 1, "choices": ["a", QUESTION]}) + "\n")
    taken = f"Solve: {QUESTION.upper().replace(',', ' -')} Thanks."
    short = " ".join(QUESTION.split()[:12])
    clean = Cleaning(decontaminate=[str(tmp_path / "exam")])
    pool, report, dropped = make(tmp_path / "pool", ["Other.", taken, short], clean=clean)
    assert list(pool.ids) == ["r0", "r2"]
    assert report.dropped == {"contaminated": 1}
    assert dropped[0]["question"] == f"{tmp_path / 'exam' / 'q.jsonl'}:1"
    assert dropped[0]["shared"] == "if three trains leave the old station at noon how many of them"
    with pytest.raises(ValueError, match=r"holds no text of 50 words or more; .* lower pool\.clean\.overlap"):
        make(tmp_path / "pool", ["Other."], clean=Cleaning(decontaminate=clean.decontaminate, overlap=50))
    stricter = Cleaning(decontaminate=clean.decontaminate, overlap=12)
    assert len(make(tmp_path / "pool", ["Other.", taken, short], clean=stricter)[0]) == 1


def test_all_texts_of_a_benchmark_are_read_in_every_format(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.json").write_text(json.dumps({"examples": [{"input": "in json", "target": 3}]}))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"q": "in jsonl"}\n'))
    (tmp_path / "c.txt").write_text("in txt")
    (tmp_path / "d.csv").write_text("q\nin csv\n")
    pq.write_table(pa.table({"q": ["in parquet"]}), tmp_path / "e.parquet")
    (tmp_path / "f.yaml").write_text("no data")
    assert [q.text for q in read_questions([str(tmp_path)])] == [
        "in json",
        "in jsonl",
        "in txt",
        "in csv",
        "in parquet",
    ]
    with pytest.raises(ValueError, match=r"f\.yaml names no benchmark"):
        list(read_questions([str(tmp_path / "f.yaml")]))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        list(read_questions([str(tmp_path)]))


def test_prompts_are_searched_as_by_comparing_every_run_of_words():
    rng = random.Random(0)
    texts = [" ".join(rng.choice("abcd") for _ in range(rng.randrange(30))) for _ in range(400)]
    questions, prompts = texts[:40], texts[40:]
    hits = Benchmarks((BenchmarkText("exam", text) for text in questions), 6).find(prompts)
    for prompt, hit in zip(prompts, hits, strict=True):
        runs = [" ".join(prompt.split()[i : i + 6]) for i in range(len(prompt.split()) - 5)]
        shared = next((run for run in runs if any(f" {run} " in f" {q} " for q in questions)), None)
        assert (hit.shared if hit else None) == shared
        assert hit is None or f" {shared} " in f" {hit.question.text} "


@pytest.mark.slow
def test_real_prompts_repeat_no_benchmark_and_planted_questions_are_found(tmp_path, real_data):
    exams = [str(real_data / "mmlu"), str(real_data / "bbh")]
    asked = [q.text for q in read_questions(exams) if len(words(q.text)) > 20]
    planted = [f"Please answer. {text}" for text in asked[:: len(asked) // 50]]
    with gzip.open(real_data / "pools" / "flan_style.jsonl.gz", "rt", encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in itertools.islice(file, 20_000)]
    clean = Cleaning(decontaminate=exams)
    _, report, dropped = make(tmp_path, [*prompts, *planted], clean=clean)
    assert report.dropped["contaminated"] == len(set(planted)) >= 50
    assert {int(row["id"][1:]) for row in dropped if row["reason"] == "contaminated"} <= set(range(20_000, 20_100))


def test_what_cleaning_reads_belongs_to_its_identity_and_where_it_lies_does_not(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same")
    a, b = (Cleaning(decontaminate=[str(tmp_path / name)]) for name in ("a.txt", "b.txt"))
    assert a.identity() == b.identity() != Cleaning().identity()
    (tmp_path / "b.txt").write_text("another")
    assert a.identity() != b.identity()
    assert Cleaning(overlap=8).identity() == Cleaning().identity()  # without benchmarks it says nothing


@pytest.mark.parametrize("paths", ["a.txt", [None]])
def test_benchmarks_are_a_list_of_paths(paths):
    with pytest.raises(ValueError, match=r"pool\.clean\.decontaminate=.* must be a list of paths"):
        Cleaning(decontaminate=paths)


@pytest.mark.parametrize(("field", "value"), [("near", 0.1), ("near", 1.5), ("max_words", 0), ("overlap", 0)])
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"pool\.clean\.{field}={value} is"):
        Cleaning(**{field: value})
