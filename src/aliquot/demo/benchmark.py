"""The two benchmarks in lm-eval's own format: `demo_mmlu` (four choices) and `demo_bbh` (short answers).

They have 57 subjects and 27 tasks, each with the same number of questions. They ask what the pool does not:
`demo_mmlu` the held-out facts, `demo_bbh` instances whose content hashes to the held-out part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from aliquot.demo.families import BY_NAME
from aliquot.demo.families.facts import fact_key
from aliquot.demo.words import held_out, seeded
from aliquot.demo.world import ATTRIBUTES, fact_slots, facts, subjects

SKILLS_ASKED = 40  # questions per task of demo_bbh; demo_mmlu asks the 30 held-out facts of each subject
BBH = (
    "list_last", "list_second", "list_reverse", "list_remove", "list_position", "list_repeated", "list_swap_ends",
    "sort_words", "sort_numbers", "largest", "count_word", "lookup_price", "lookup_buyer", "lookup_highest",
    "logic_tallest", "logic_kinds", "logic_liars", "day_after", "clock_hours", "unit_stated", "class_threshold",
    "class_member", "glossary_word", "glossary_pair", "add_two_digit", "sequence_step", "track_object",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A question with four answer texts; `gold` is the position of the right one."""

    task: str
    key: str
    question: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Short:
    """A question with one short right answer."""

    task: str
    key: str
    question: str
    answer: str


def choices() -> Iterator[Choice]:
    """Yield the questions of demo_mmlu: each held-out fact once, distractors from the same closed set of values."""
    for fact in facts():
        if not fact.held_out:
            continue
        rng = seeded("mmlu", fact.entity, fact.attribute)
        attribute = ATTRIBUTES[fact.attribute]
        wrong = rng.sample([value for value in attribute.values if value != fact.value], 3)
        options = [fact.value, *wrong]
        rng.shuffle(options)
        question = rng.choice(attribute.questions()).format_map(fact_slots(fact))
        yield Choice(f"demo_mmlu_{fact.subject}", fact_key(fact), question, tuple(options), options.index(fact.value))


def shorts() -> Iterator[Short]:
    """Yield the questions of demo_bbh, all with different content, using the phrasings in turn."""
    for name in BBH:
        task, rng = BY_NAME[name], seeded("bbh", name)
        seen: set[str] = set()
        while len(seen) < SKILLS_ASKED:
            item = task.draw(rng)
            if item.key not in seen and held_out(item.key):
                question = task.ask(item, len(seen) % len(task.prompts))
                seen.add(item.key)
                yield Short(f"demo_bbh_{name}", item.key, question, item.response)


LOADER = '''"""Read the questions of one task: lm-eval calls this instead of asking a hub."""

from __future__ import annotations

import json
from pathlib import Path

import datasets


def load(file: str, task: str, **_: object) -> dict[str, datasets.Dataset]:
    """Return the one split of a task as lm-eval wants it."""
    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["task"] == task]
    return {"test": datasets.Dataset.from_list(rows)}
'''
SHARED = """custom_dataset: !function load.load
test_split: test
doc_to_text: "{{question}}\\nAnswer:"
target_delimiter: " "
num_fewshot: 0
metadata:
  version: 1.0
"""
TEMPLATES = {
    "demo_mmlu": SHARED
    + """output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
""",
    "demo_bbh": SHARED
    + """output_type: generate_until
doc_to_target: answer
generation_kwargs:
  until: ["\\n"]
  do_sample: false
  max_gen_toks: 10
filter_list:
  - name: none
    filter:
      - function: remove_whitespace
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
""",
}


def _group(group: str, tasks: list[str]) -> str:
    metric = "acc" if group == "demo_mmlu" else "exact_match"
    lines = "".join(f"  - {task}\n" for task in tasks)
    aggregate = f"aggregate_metric_list:\n  - metric: {metric}\n    weight_by_size: true\n"
    return f"group: {group}\ntask:\n{lines}{aggregate}metadata:\n  version: 1.0\n"


def benchmark_files() -> dict[str, str]:
    """Return the name and text of every file of the tasks directory."""
    names = {"demo_mmlu": [f"demo_mmlu_{subject.noun}" for subject in subjects()],
             "demo_bbh": [f"demo_bbh_{name}" for name in BBH]}  # fmt: skip
    files = {"load.py": LOADER}
    for group, rows in (("demo_mmlu", list(choices())), ("demo_bbh", list(shorts()))):
        files[f"{group}.jsonl"] = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
        files[f"{group}.yaml"] = _group(group, names[group])
        files[f"_{group}_template.yaml"] = TEMPLATES[group]
        for task in names[group]:
            files[f"{task}.yaml"] = (
                f"task: {task}\ninclude: _{group}_template.yaml\n"
                f"dataset_kwargs:\n  file: {group}.jsonl\n  task: {task}\n"
            )
    return files


def write_benchmark(folder: Path) -> None:
    """Write the tasks directory, and remove any files that no longer belong there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = benchmark_files()
    for path in folder.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
