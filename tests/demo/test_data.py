"""The shipped pool and benchmarks: byte for byte what the code generates, and apart from one another."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from aliquot.demo import MODEL, POOL, TASKS
from aliquot.demo.benchmark import benchmark_files
from aliquot.demo.build import build
from aliquot.demo.corpus import documents
from aliquot.demo.pool import pool_rows
from aliquot.demo.words import held_out
from aliquot.demo.world import facts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@cache
def shipped() -> list[dict[str, str]]:
    with gzip.open(POOL, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def questions(group: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (TASKS / f"{group}.jsonl").read_text(encoding="utf-8").splitlines()]


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


@pytest.mark.slow
def test_shipped_files_are_the_generated_ones(tmp_path: Path) -> None:
    build(tmp_path)
    digests = {path.relative_to(tmp_path): hashlib.sha256(path.read_bytes()).hexdigest()
               for path in tmp_path.rglob("*") if path.is_file()}  # fmt: skip
    assert len(digests) == 2 + len(benchmark_files())
    for name, digest in digests.items():
        assert hashlib.sha256((POOL.parent / name).read_bytes()).hexdigest() == digest, name
    assert {path.name for path in TASKS.iterdir() if path.is_file()} == set(benchmark_files())


@pytest.mark.slow
def test_pool_shape() -> None:
    rows = shipped()
    assert len(rows) == 99_000
    assert all(set(row) == {"id", "prompt", "response", "task", "family"} for row in rows)
    assert len({row["id"] for row in rows}) == len({row["prompt"] for row in rows}) == 99_000
    assert all(row["prompt"].strip() and row["response"].strip() for row in rows)
    assert POOL.stat().st_size <= 4_000_000


def test_tasks_are_heavy_tailed() -> None:
    sizes = sorted(Counter(row["task"] for row in shipped()).values(), reverse=True)
    assert len(sizes) >= 200 and len({row["family"] for row in shipped()}) >= 12
    assert sizes[0] >= 2_000 and sum(size < 100 for size in sizes) >= 100


@pytest.mark.slow
def test_near_duplicates_are_a_few_per_cent() -> None:
    """Stripped of case, marks and courtesies, between 1 and 60 per cent of the prompts are not alone."""
    bare = Counter(re.sub(r"^(so|please help|hello) | (please|thanks|thank you)$", "", plain(row["prompt"]))
                   for row in shipped())  # fmt: skip
    twins = sum(count - 1 for count in bare.values()) / 99_000
    assert 0.01 < twins < 0.6


def test_benchmark_is_uniform_and_large() -> None:
    mmlu, bbh = questions("demo_mmlu"), questions("demo_bbh")
    assert len(mmlu) + len(bbh) >= 2_000
    for rows, tasks in ((mmlu, 57), (bbh, 27)):
        counts = Counter(row["task"] for row in rows)
        assert len(counts) == tasks and len(set(counts.values())) == 1
    for row in mmlu:
        options = row["choices"]
        assert isinstance(options, list) and len(set(options)) == 4


def test_gold_answers_are_the_facts() -> None:
    values = {f"fact {fact.entity} {fact.attribute}": fact for fact in facts()}
    for row in questions("demo_mmlu"):
        fact = values[str(row["key"])]
        assert fact.held_out and row["choices"][row["gold"]] == fact.value  # type: ignore[index]
        assert fact.entity in str(row["question"])


def test_gold_places_are_even() -> None:
    places = Counter(row["gold"] for row in questions("demo_mmlu"))
    assert all(0.2 < count / 1710 < 0.3 for count in places.values())


@pytest.mark.slow
def test_benchmark_is_apart_from_the_pool() -> None:
    """By content (fact or instance, whatever the words) and by the normalized text of the prompt."""
    keys, texts = {row.key for row in pool_rows()}, {plain(row.prompt) for row in pool_rows()}
    hidden = {(fact.entity, fact.attribute) for fact in facts() if fact.held_out}
    asked = {tuple(key.split()[1:3]) for key in keys if key.startswith("fact ")}
    assert not hidden & asked
    for group in ("demo_mmlu", "demo_bbh"):
        assert not keys & {str(row["key"]) for row in questions(group)}
        assert not texts & {plain(str(row["question"])) for row in questions(group)}
    assert not any(held_out(key) for key in keys)


def test_held_out_facts_are_never_asked_in_other_tasks() -> None:
    """No pool prompt that names an entity has the value and the words of a fact held out about it (choice family)."""
    hidden = {(fact.entity, fact.attribute) for fact in facts() if fact.held_out}
    for row in pool_rows():
        if row.family == "choice" and row.key.startswith("fact "):
            _, entity, attribute, *_ = row.key.split()
            assert (entity, attribute) not in hidden


@pytest.mark.slow
def test_corpus_is_plain_text() -> None:
    texts = {str(row["question"]) for group in ("demo_mmlu", "demo_bbh") for row in questions(group)}
    text = "\n".join(islice(documents(1), 20_000))
    assert "Answer:" not in text
    assert not [question for question in texts if question in text]


@pytest.mark.slow
def test_prompts_are_short() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    prompts = [row["prompt"] + "\nAnswer:" for row in shipped()]
    lengths = sorted(len(ids) for ids in tokenizer(prompts)["input_ids"])
    assert lengths[len(lengths) // 2] <= 40 and lengths[int(0.99 * len(lengths))] <= 128
    answers = tokenizer([" " + row["response"] for row in shipped()])["input_ids"]
    assert max(map(len, answers)) <= 10
