"""MMLU and BIG-Bench Hard from local copies, for lm-eval's own task files.

lm-eval loads both from the Hugging Face hub. A copy on disk is checked here row by row, and laid out like the hub's: a
directory with one jsonl per subject and split, and a README.md that lists them. A group file then passes this directory
to the official tasks as their `dataset_path`, so prompts, worked examples, filters and versions stay lm-eval's.
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aliquot.store.content import content_hash, locate

Row = dict[str, Any]
#: subject -> split -> rows
Rows = dict[str, dict[str, list[Row]]]

#: The prefix for lm-eval's groups and tasks with our data: local_mmlu is mmlu.
LOCAL = "local_"
_LETTERS = "ABCD"
_MMLU_ROWS = {"dev": 285, "test": 14_042}
_MMLU_DEV_ROWS = 5  # worked examples per subject
_BBH_ROWS = 250
_BBH_EXAMPLES = 3  # per task, in lm-eval's task files
_BBH_FEWER = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}


@dataclass(frozen=True)
class Suite:
    """A benchmark that lm-eval has tasks for, and that can be stored on disk.

    Args:
        name: prefix of its task names, and its directory in `evaluate.data`.
        hub: the data set that lm-eval loads.
        tasks: the directory of lm-eval's task files.
        subjects: pattern below `tasks` that matches one file per subject.
        num_examples: number of worked examples per subject.
        read: reads and checks a local copy, given its directory and the subjects.
    """

    name: str
    hub: str
    tasks: str
    subjects: str
    num_examples: int
    read: Callable[[Path, list[str]], Rows]

    def folder(self) -> Path:
        """Return the directory of lm-eval's task files."""
        return locate(f"pkg://lm_eval/tasks/{self.tasks}")

    def rows(self, data: Path) -> Rows:
        """Read the copy in the directory `data`.

        Raises:
            ValueError: a file is missing, short or malformed.
        """
        copy = data / self.name
        if not copy.is_dir():
            raise ValueError(f"evaluate.data={data} has no folder {self.name}; put the files of {self.name} there")
        return _read(self, copy, content_hash(copy))

    def content(self, data: Path) -> str:
        """Return a hash of the rows, regardless of the files they come in."""
        self.rows(data)  # reports problems with the copy
        return _digest(self, data / self.name, content_hash(data / self.name))


@functools.lru_cache(maxsize=2)
def _digest(suite: Suite, copy: Path, content: str) -> str:
    """Hash the rows once; cached, because every evaluation key of a sweep needs it."""
    return hashlib.sha256(json.dumps(_read(suite, copy, content), sort_keys=True).encode()).hexdigest()


@functools.lru_cache(maxsize=2)
def _read(suite: Suite, copy: Path, content: str) -> Rows:
    """Read the copy; cached for as long as its `content` is the same."""
    subjects = sorted(file.stem.removeprefix(f"{suite.name}_") for file in suite.folder().glob(suite.subjects))
    return suite.read(copy, subjects)


def suite_of(task: str) -> Suite | None:
    """Return the suite that a task, group or tag of lm-eval belongs to."""
    return next((suite for suite in SUITES if task == suite.name or task.startswith(f"{suite.name}_")), None)


def write_suites(data: Path, tasks: Sequence[str], directory: Path) -> Path:
    """Lay out the copies in `data` below `directory`; return the directory of the files that define `local_<task>`."""
    groups = directory / "groups"
    groups.mkdir()
    for suite in SUITES:
        names = [task for task in tasks if suite_of(task) is suite]
        if names:
            _write_copy(suite.rows(data), directory / suite.name)
        # Everything in a group file besides its own fields is inherited by every task.
        handed = {
            "dataset_path": str(directory / suite.name),
            "dataset_kwargs": {"cache_dir": str(directory / "cache")},
        }
        for name in names:
            (groups / f"{name}.yaml").write_text(json.dumps({"group": LOCAL + name, "task": [name], **handed}))
    return groups


def _write_copy(rows: Rows, copy: Path) -> None:
    configs: list[Row] = []
    for subject, splits in rows.items():
        (copy / subject).mkdir(parents=True)
        for split, questions in splits.items():
            lines = (json.dumps(question, ensure_ascii=False) + "\n" for question in questions)
            (copy / subject / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        files = [{"split": split, "path": f"{subject}/{split}.jsonl"} for split in splits]
        configs.append({"config_name": subject, "data_files": files})
    (copy / "README.md").write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")  # JSON is YAML


def _read_mmlu(copy: Path, subjects: list[str]) -> Rows:
    rows: Rows = {subject: {split: [] for split in _MMLU_ROWS} for subject in subjects}
    for split, expected in _MMLU_ROWS.items():
        file, found = copy / split, 0
        for where, row in _mmlu_rows(copy, split):
            _check_mmlu(row, where, rows)
            rows[row["subject"]][split].append({key: row[key] for key in ("question", "subject", "choices", "answer")})
            file, found = Path(where.rpartition(":")[0]), found + 1
        for subject, splits in rows.items():
            if not splits[split] or (split == "dev" and len(splits[split]) != _MMLU_DEV_ROWS):
                raise ValueError(f"{file} has {len(splits[split])} {split} questions on {subject}; copy it again")
        if found != expected:
            raise ValueError(f"{file} has {found:,} questions where MMLU has {expected:,}; copy it again")
    return rows


def _mmlu_rows(copy: Path, split: str) -> Iterator[tuple[str, Row]]:
    """Yield file:line and row, from jsonl, jsonl.gz or a directory of upstream's csv files."""
    for file in (copy / f"{split}.jsonl", copy / f"{split}.jsonl.gz"):
        if file.is_file():
            with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as f:
                for number, line in enumerate(f, start=1):
                    yield f"{file}:{number}", _json_row(line, f"{file}:{number}")
            return
    files = sorted((copy / split).glob(f"*_{split}.csv"))
    if not files:
        raise ValueError(
            f"{copy} has no {split}.jsonl, {split}.jsonl.gz or {split}/*_{split}.csv; put its {split} questions there"
        )
    for file in files:
        subject = file.stem.removesuffix(f"_{split}")
        with file.open(encoding="utf-8", newline="") as f:
            reader = csv.reader(f)
            for cells in reader:
                answer = _LETTERS.find(cells[-1]) if cells and cells[-1] else -1
                row: Row = {"subject": subject, "question": "".join(cells[:1]), "choices": cells[1:-1]}
                yield f"{file}:{reader.line_num}", row | {"answer": answer}


def _json_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON ({error}); copy the file again") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {type(row).__name__} where an object must be; copy the file again")
    return cast(Row, row)


def _check_mmlu(row: Row, where: str, rows: Rows) -> None:
    choices = row.get("choices")
    texts: list[object] = [row.get("question"), *(cast(list[object], choices) if isinstance(choices, list) else [])]
    if row.get("subject") not in rows:
        raise ValueError(f"{where}: subject {row.get('subject')!r} is none of MMLU's {len(rows)}; copy the file again")
    if len(texts) != 5 or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: a question and 4 choices, all text, must be there; copy the file again")
    if type(row.get("answer")) is not int or not 0 <= row["answer"] < 4:
        raise ValueError(f"{where}: answer {row.get('answer')!r} is none of the 4 choices; copy the file again")


def _read_bbh(copy: Path, subjects: list[str]) -> Rows:
    folder = copy / "bbh" if (copy / "bbh").is_dir() else copy  # the layout of upstream's repository
    return {subject: {"test": _bbh_rows(folder / f"{subject}.json")} for subject in subjects}


def _bbh_rows(file: Path) -> list[Row]:
    if not file.is_file():
        raise ValueError(f"{file} is missing; copy the file {file.name} of BIG-Bench Hard there")
    examples = _json_row(file.read_text(encoding="utf-8"), str(file)).get("examples")
    rows = cast(list[Row], examples) if isinstance(examples, list) else []
    for number, row in enumerate(rows, start=1):
        if not all(isinstance(row.get(key), str) for key in ("input", "target")):
            raise ValueError(f"{file}: example {number} lacks a text 'input' or 'target'; copy the file again")
    expected = _BBH_FEWER.get(file.stem, _BBH_ROWS)
    if len(rows) != expected:
        raise ValueError(f"{file} has {len(rows)} examples where BIG-Bench Hard has {expected}; copy it again")
    return [{key: row[key] for key in ("input", "target")} for row in rows]


SUITES = (
    Suite("mmlu", "cais/mmlu", "mmlu/default", "mmlu_*.yaml", _MMLU_DEV_ROWS, _read_mmlu),
    Suite("bbh", "SaylorTwift/bbh", "bbh", "fewshot/[a-z]*.yaml", _BBH_EXAMPLES, _read_bbh),
)
