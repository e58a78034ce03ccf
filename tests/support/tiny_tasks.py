"""Tasks of a few made-up questions for lm-eval, and lm-eval's own command line to compare with."""

import json
import random
import subprocess
import sys

from tiny_model import WORDS

LOADER = """
import json
from pathlib import Path
import datasets

def load(file, **_):
    lines = (Path(__file__).parent / file).read_text().splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
"""

TASK = """
task: {name}
custom_dataset: !function load.load
dataset_kwargs:
  file: {name}.jsonl
test_split: test
doc_to_text: "{{{{question}}}} Answer :"
target_delimiter: " "
metadata:
  version: 3.0
"""

CHOICE = """
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""

EXACT = """
output_type: generate_until
doc_to_target: answer
generation_kwargs:
  until: ["."]
  do_sample: false
  max_gen_toks: 4
filter_list:
  - name: none
    filter:
      - function: remove_whitespace
      - function: take_first
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""

#: Runs lm-eval's command line once for each list of arguments, without the 15 s it takes to read its catalogue.
COMMAND_LINE = """
import json, sys
from lm_eval.__main__ import cli_evaluate
from lm_eval.tasks import TaskManager

original, folders = TaskManager.__init__, []

def of_folders(self, *args, **kwargs):
    original(self, *args, **kwargs | {"include_defaults": False, "include_path": folders})

TaskManager.__init__ = of_folders
for folders[:], arguments in json.loads(sys.argv[1]):
    sys.argv = ["lm_eval", "run", *arguments]
    cli_evaluate()
"""


def save_tiny_tasks(path, answer):
    """Write two multiple-choice tasks in a group, of different sizes, and one of exact answers.

    Every other right answer is what `answer(question)` says, so that right and wrong both occur.
    """
    draw = random.Random(0)
    (path / "load.py").write_text(LOADER)
    for name, num_questions in (("pick_a", 21), ("pick_b", 9)):
        rows = [
            {
                "question": _words(draw, 2, 12),
                "choices": [_words(draw, 1, 3) for _ in range(4)],
                "gold": draw.randrange(4),
            }
            for _ in range(num_questions)
        ]
        write_task(path, name, CHOICE, rows)
    (path / "pick.yaml").write_text("group: pick\ntask: [pick_a, pick_b]\n")
    questions = [_words(draw, 2, 12) for _ in range(15)]
    write_task(
        path, "say", EXACT, [{"question": q, "answer": answer(q) if i % 2 else "no"} for i, q in enumerate(questions)]
    )
    return path


def _words(draw, least, most):
    return " ".join(draw.choices(WORDS[:16], k=draw.randint(least, most)))


def write_task(path, name, kind, rows):
    (path / f"{name}.yaml").write_text(TASK.format(name=name) + kind)
    (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_task(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def start_command_lines(runs, directory):
    """Start lm-eval's command line; `runs` are (name, task folders, model arguments, tasks, more arguments)."""
    calls = []
    for name, folders, model, tasks, more in runs:
        arguments = ["--model", "hf", "--model_args", model, "--device", "cpu", "--log_samples"]
        arguments += ["--tasks", ",".join(tasks), "--output_path", str(directory / name), *more]
        calls.append([[str(folder) for folder in folders], arguments])
    command = [sys.executable, "-c", COMMAND_LINE, json.dumps(calls)]
    with (directory / "log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)


def read_samples(directory):
    """Return task -> samples of the first filter in the order of the file, as the command line wrote them."""
    samples = {}
    for file in directory.glob("*/samples_*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        first = [row for row in rows if row["filter"] == rows[0]["filter"]]
        samples[file.name[len("samples_") : file.name.rindex("_20")]] = sorted(first, key=lambda row: row["doc_id"])
    assert samples, (directory.parent / "log").read_text()[-2000:]
    return samples


def record_answers(monkeypatch):
    """Record what lm-eval asks our model and what it answers: task -> question -> [(arguments, answer)]."""
    from aliquot.evaluation.harness.model import HarnessModel

    seen = {}

    def recorded(method):
        def call(self, requests, disable_tqdm=True):
            answers = method(self, requests, disable_tqdm)
            for request, answer in zip(requests, answers, strict=True):
                seen.setdefault(request.task_name, {}).setdefault(request.doc_id, []).append((request.args, answer))
            return answers

        return call

    for name in ("loglikelihood", "generate_until"):
        monkeypatch.setattr(HarnessModel, name, recorded(getattr(HarnessModel, name)))
    return seen
