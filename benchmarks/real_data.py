"""The rows of the study on a real model: a pool, and the rows that are set aside from it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aliquot.config.compose import composed
from aliquot.models.spec import Model
from aliquot.pools.near_duplicates import twins_of

Row = Mapping[str, str]

PROMPT_TOKENS, RESPONSE_TOKENS = 128, 64
HELD_OUT, TARGET, TUNING = 6, 2, 2  # rows that are set aside of each task
#: A task with fewer rows stays in the pool and is not measured.
LEAST_ROWS = 24
#: As `evaluate.near` and the target's: prompts that share this much of their runs of five words are alike.
NEAR = 0.9
#: No row of these is in the pool. Each is a source of its own: no other family has rows made from it.
NEW_FAMILIES = (
    "app_reviews",
    "cosmos_qa",
    "dream",
    "kilt_tasks_hotpotqa",
    "quartz",
    "sciq",
    "wiki_bio",
    "wiqa",
)


@dataclass(frozen=True)
class Division:
    """Rows by what they are for; no two have the same id or, but for white space, the same prompt."""

    pool: Sequence[Row]
    held_out: Sequence[Row]
    target: Sequence[Row]
    tuning: Sequence[Row]


def read(path: Path) -> list[Row]:
    """Read rows of compressed JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def token_counter() -> Callable[[Sequence[str]], list[int]]:
    """Return what counts the tokens of texts, as the study's model reads them, without its chat template."""
    settings = composed(("model=smollm_instruct",))["model"]
    named = {name: settings[name] for name in ("path", "revision", "template", "max_tokens")}
    tokenizer = Model(**named).load_tokenizer()
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def usable(rows: Sequence[Row], count: Callable[[Sequence[str]], list[int]]) -> list[Row]:
    """Return the rows that are short enough and have a response; of rows with the same prompt, the first.

    A word is at least one token, so texts of more words than tokens are allowed are not counted.
    """
    limits = {"prompt": PROMPT_TOKENS, "response": RESPONSE_TOKENS}
    rows = [row for row in rows if all(0 < len(row[name].split()) <= most for name, most in limits.items())]
    for name, most in limits.items():
        rows = [row for row, n in zip(rows, count([row[name] for row in rows]), strict=True) if n <= most]
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(normalized(row["prompt"]), row)
    return list(first.values())


def normalized(prompt: str) -> str:
    """Return a prompt with single spaces."""
    return " ".join(prompt.split())


def divide(rows: Sequence[Row], new_families: Sequence[str] = NEW_FAMILIES) -> Division:
    """Set rows aside of every task, and leave those out of the pool that nearly repeat one of them.

    Of a task, the rows in the order of a hash of their ids serve for measuring, as target, and for tuning. Of a new
    task, they serve for measuring only, and the others are not used.
    """
    missing = set(new_families) - {row["family"] for row in rows}
    if missing:
        raise ValueError(f"no rows of {', '.join(sorted(missing))}; give families of the file as new ones")
    of_task: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"real study {row['id']}".encode()).digest()):
        of_task[row["task"]].append(row)
    held_out, target, tuning = list[Row](), list[Row](), list[Row]()
    for task in sorted(task for task, own in of_task.items() if len(own) >= LEAST_ROWS):
        own = of_task[task]
        is_new = own[0]["family"] in new_families
        held_out += [{**row, "part": "new" if is_new else "known"} for row in own[:HELD_OUT]]
        if not is_new:
            target += own[HELD_OUT : HELD_OUT + TARGET]
            tuning += own[HELD_OUT + TARGET : HELD_OUT + TARGET + TUNING]
    aside = {row["id"] for row in [*held_out, *target, *tuning]}
    pool = [row for row in rows if row["id"] not in aside and row["family"] not in new_families]
    target = unlike(target, held_out)
    tuning = unlike(tuning, [*held_out, *target])
    return Division(unlike(pool, [*held_out, *target, *tuning]), held_out, target, tuning)


def unlike(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Return the rows whose prompt is not nearly that of another row, as the stages of a run compare them."""
    twins = twins_of([row["prompt"] for row in rows], [row["prompt"] for row in others], NEAR)
    return [row for at, row in enumerate(rows) if at not in twins]


def write(division: Division, directory: Path) -> None:
    """Write pool.jsonl, held_out.jsonl, target.jsonl (without responses) and tuning.jsonl."""
    directory.mkdir(parents=True, exist_ok=True)
    asked = ("id", "prompt", "task")
    _write(directory / "pool.jsonl", division.pool, (*asked, "response"))
    _write(directory / "held_out.jsonl", division.held_out, (*asked, "response", "part"))
    _write(directory / "target.jsonl", division.target, asked)
    _write(directory / "tuning.jsonl", division.tuning, (*asked, "response"))


def _write(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    lines = (json.dumps({name: row[name] for name in columns}, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def ids(division: Division) -> bytes:
    """Return the compressed table of all ids and what each row is for; the same bytes for the same rows."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("use", "id"))
    for use in ("held_out", "target", "tuning", "pool"):
        table.writerows((use, row["id"]) for row in getattr(division, use))
    return gzip.compress(text.getvalue().encode(), mtime=0)


def publish(division: Division, path: Path) -> bool:
    """Write the table of ids, or compare with the published one; return whether it was there.

    Raises:
        ValueError: other rows are published.
    """
    found = ids(division)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found)
        return False
    ours, theirs = (set(gzip.decompress(table).decode().splitlines()) for table in (found, path.read_bytes()))
    if ours != theirs:
        raise ValueError(
            f"{len(ours - theirs):,} of {len(ours):,} rows have another use than in {path}; give the data and the "
            "model that the published study was made of, or another file in --ids to begin a study of your own"
        )
    return True
