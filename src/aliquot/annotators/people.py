"""Annotators who need time: the chosen prompts are written for them, and the run goes on when their responses are back.

A batch is a folder that belongs to the user:

    to_annotate.jsonl           what to answer, written by aliquot; runs that ask for more add to it
    to_annotate_second.jsonl    what a second annotator is to answer as well, where `double` asks for that
    returned/                   whatever the annotators give back, in any number of files; only ever read
    returned/second/            what the second annotator gives back
    returned/adjudicated.csv    adjudicate.csv with its column `response` filled in: what counts in the end
    problems.csv                returned rows that cannot be used, written by aliquot
    adjudicate.csv              prompts to which two annotators gave different responses, written by aliquot
    quality.html                how the responses look from outside, written by aliquot
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from aliquot.annotators.bill import Bill
from aliquot.annotators.quality import Quality
from aliquot.annotators.returns import Answer, Problem, Returns, sort_out
from aliquot.annotators.table import write_table
from aliquot.lease import Lease
from aliquot.pool import PoolSpec
from aliquot.pools.files import READERS
from aliquot.sources import locate
from aliquot.store import Pending, write_atomic
from aliquot.types import AnnotatedSet

REQUESTS, RETURNED, PROBLEMS = "to_annotate.jsonl", "returned", "problems.csv"
QUALITY = "quality.html"
REQUESTS_SECOND, SECOND = "to_annotate_second.jsonl", "second"
ADJUDICATE, ADJUDICATED = "adjudicate.csv", "adjudicated.csv"


@dataclass(frozen=True, kw_only=True)
class People:
    """What all annotators have in common who answer in their own time.

    Args:
        folder: of the batch.
        allow_partial: finetune on what is there, though prompts still wait or returned rows cannot be used.
        price: of one response, in whatever currency; reports add it up.
        double: fraction of the prompts that a second annotator is to answer as well.
        disagreement: what happens where two annotators differ: the first one's response counts, or the run waits until
            somebody has decided.
    """

    #: What messages and bills call them.
    name: ClassVar[str]
    resources: ClassVar[None] = None

    folder: str
    allow_partial: bool = False
    price: float = field(default=0.0, metadata={"key": False})
    double: float = 0.0
    disagreement: Literal["first", "wait"] = "first"

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError(f"annotator.price={self.price} is below 0; give what one response costs, or 0")
        if not 0 <= self.double <= 1:
            raise ValueError(f"annotator.double={self.double} is no fraction; give one from 0 to 1")
        if self.disagreement not in ("first", "wait"):
            raise ValueError(f"annotator.disagreement={self.disagreement} is not known; give first or wait")

    def identity(self) -> dict[str, object]:
        """Name the kind of annotator; the responses themselves are named by their digest."""
        return {"annotator": type(self).__name__}

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return the price of the responses, second ones included."""
        return self.price * (1 + self.double) * num_prompts

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError where the folder is a file, or returned files cannot be read."""
        folder = locate(self.folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"annotator.folder={self.folder}: {folder} is a file; name a folder for the batch")
        self.answers(folder)

    def digest(self, ids: Sequence[str], prompts: Sequence[str]) -> str | None:
        """Return the hash of the responses to these prompts, or None where they cannot be used yet."""
        returns = self.read(dict(zip(ids, prompts, strict=True)))
        if self._waits(ids, returns):
            return None
        return digest_of((row_id, returns.responses[row_id]) for row_id in ids if row_id in returns.responses)

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> AnnotatedSet:
        """Return the responses that are back; ask for those that are not.

        Raises:
            Pending: prompts wait, or returned rows cannot be used, and `allow_partial` does not say to go on.
        """
        asked = dict(zip(ids, prompts, strict=True))
        returns = self.read(asked)
        missing = _missing(ids, returns)
        if missing:
            self.ask(asked)
        kept = [row_id for row_id in ids if row_id in returns.responses]
        annotated = AnnotatedSet(kept, [asked[i] for i in kept], [returns.responses[i] for i in kept])
        self._report(returns, annotated, asked)
        if self._waits(ids, returns):
            raise Pending(self._what_to_do(len(asked), len(missing), returns))
        return annotated

    def bill(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Bill:
        """Return what the responses to these prompts cost; a second response to a prompt costs as much as the first."""
        returns = self.read(dict(zip(ids, prompts, strict=True)))
        left_out = _left_out(ids, returns)
        num_given = len(ids) - sum(left_out.values())
        num_paid = num_given + sum(len(answers) - 1 for answers in returns.doubled.values())
        return Bill(self.name, len(ids), num_given, self.price * num_paid, left_out=left_out)

    def doubled(self, ids: Sequence[str], prompts: Sequence[str]) -> list[tuple[Answer, ...]]:
        """Return the answers to those of these prompts that several annotators answered."""
        return list(self.read(dict(zip(ids, prompts, strict=True))).doubled.values())

    def ask(self, asked: Mapping[str, str]) -> None:
        """Add prompts to the batch; those that are in it already stay where they are."""
        folder = locate(self.folder)
        (folder / RETURNED).mkdir(parents=True, exist_ok=True)
        with Lease(folder / ".lease", what=f"batch {folder.name}"):
            requests = {**read_requests(folder), **asked}
            _write_requests(folder / REQUESTS, requests)
            if self.double:
                _write_requests(folder / REQUESTS_SECOND, {i: p for i, p in requests.items() if self.is_doubled(i)})
            self.export(requests, folder)

    def is_doubled(self, row_id: str) -> bool:
        """Tell whether a second annotator is to answer a prompt too: drawn by lot, the same in every budget."""
        lot = int.from_bytes(hashlib.sha256(f"second {row_id}".encode()).digest()[:8], "big")
        return lot < self.double * 2**64

    def read(self, asked: Mapping[str, str]) -> Returns:
        """Read what came back, as far as it concerns these prompts."""
        folder = locate(self.folder)
        known = {**read_requests(folder), **asked}
        returns = sort_out(self.answers(folder), known, _decisions(folder))
        return replace(
            returns,
            problems=tuple(problem for problem in returns.problems if problem.id in asked or problem.id not in known),
            empty=tuple(row for row in returns.empty if row.id in asked),
            doubled={row_id: given for row_id, given in returns.doubled.items() if row_id in asked},
        )

    def export(self, requests: Mapping[str, str], folder: Path) -> None:
        """Write the prompts in whatever further form the annotators' tool reads."""

    def fetch(self) -> None:
        """Bring into the folder what the annotators' tool holds, where it is a server."""

    def answers(self, folder: Path) -> list[Answer | Problem]:
        """Return every returned row, and what cannot be read."""
        rows: list[Answer | Problem] = []
        for file in self.files(folder):
            stat = file.stat()
            rows += _rows(self, file, SECOND if is_second(file, folder) else None, stat.st_size, stat.st_mtime_ns)
        return rows

    def files(self, folder: Path) -> list[Path]:
        """Return the files that hold answers, in the order in which they count."""
        return returned_files(folder)

    def read_file(self, file: Path, by: str | None) -> Iterator[Answer | Problem]:
        """Yield every row of a file, and what cannot be read; `by` wrote a row that does not say who."""
        raise NotImplementedError

    def remedy(self, folder: Path) -> str:
        """Say what is to be done with prompts that wait, up to 'and give the same command again'."""
        return f"Put the responses into {folder / RETURNED}"

    def _waits(self, ids: Sequence[str], returns: Returns) -> bool:
        if self.disagreement == "wait" and returns.disagreements:
            return True
        incomplete = bool(_missing(ids, returns) or returns.problems)
        return incomplete and not (self.allow_partial and any(row_id in returns.responses for row_id in ids))

    def _report(self, returns: Returns, annotated: AnnotatedSet, asked: Mapping[str, str]) -> None:
        """Write down how what came back looks and what is wrong with it, for people to set right."""
        folder = locate(self.folder)
        problems = [(row.place, row.id, row.what) for row in (*returns.problems, *returns.empty)]
        write_table(folder / PROBLEMS, ("place", "id", "problem"), problems)
        open_ones = [
            (row_id, asked[row_id], given[0].response, given[1].response, "")
            for row_id, given in returns.disagreements.items()
        ]
        write_table(folder / ADJUDICATE, ("id", "prompt", "first", "second", "response"), open_ones)
        if len(annotated):
            doubled = list(returns.doubled.values())
            quality = Quality.of(self.name, annotated, _left_out(list(asked), returns), doubled)
            write_atomic(folder / QUALITY, quality.page())

    def _what_to_do(self, num_asked: int, num_missing: int, returns: Returns) -> str:
        folder = locate(self.folder)
        lines: list[str] = []
        if num_missing:
            empty = f" ({len(returns.empty):,} came back empty)" if returns.empty else ""
            lines.append(
                f"{num_missing:,} of {num_asked:,} prompts wait for their responses{empty}: {folder / REQUESTS}"
            )
        if returns.problems:
            first = returns.problems[0]
            lines.append(
                f"{len(returns.problems):,} returned rows cannot be used, the first at {first.place}: {first.what}; "
                f"all are in {folder / PROBLEMS}"
            )
        if self.disagreement == "wait" and returns.disagreements:
            lines.append(
                f"{len(returns.disagreements):,} prompts have two different responses: fill in the column `response` "
                f"of {folder / ADJUDICATE} and save it as {folder / RETURNED / ADJUDICATED}"
            )
        if returns.responses and not self.allow_partial and (num_missing or returns.problems):
            lines.append("annotator.allow_partial=true goes on with what is there")
        lines.append(f"{self.remedy(folder) if num_missing else 'Correct that'} and give the same command again:")
        return "\n".join(lines)


def digest_of(responses: Iterable[tuple[str, str]]) -> str:
    """Return the hash of responses, each with its id, in the order of the prompts."""
    return hashlib.sha256(json.dumps(list(responses)).encode()).hexdigest()


def returned_files(folder: Path) -> list[Path]:
    """Return what the annotators gave back, by name, the second annotator's last; hidden files are no part of it."""
    place = folder / RETURNED
    files = (file for file in place.rglob("*") if file.is_file() and file != place / ADJUDICATED)
    seen = (file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts))
    return sorted(seen, key=lambda file: (is_second(file, folder), file))


def is_second(file: Path, folder: Path) -> bool:
    """Tell whether a returned file is of the second annotator."""
    return file.is_relative_to(folder / RETURNED / SECOND)


def read_requests(folder: Path) -> dict[str, str]:
    """Return id -> prompt of all that was asked in a batch."""
    try:
        text = (folder / REQUESTS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in text.split("\n") if line]
    return {row["id"]: row["prompt"] for row in rows}


@functools.lru_cache(maxsize=256)
def _rows(annotator: People, file: Path, by: str | None, size: int, modified_ns: int) -> tuple[Answer | Problem, ...]:
    """Read one file; asked again for the same size and time, answer from memory: a sweep asks once per experiment."""
    return tuple(annotator.read_file(file, by))


def _write_requests(file: Path, requests: Mapping[str, str]) -> None:
    """Write prompts for their responses to be filled in; a file that says so already stays as it is."""
    rows = ({"id": row_id, "prompt": prompt, "response": ""} for row_id, prompt in requests.items())
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        write_atomic(file, text)


def _decisions(folder: Path) -> Iterator[Answer | Problem]:
    """Yield what somebody decided where annotators differed."""
    file = folder / RETURNED / ADJUDICATED
    if not file.exists():
        return
    try:
        for record in READERS["csv"](file):
            if not {"id", "response"} <= set(record.columns):
                raise ValueError(f"{record.place}: no columns 'id' and 'response'; keep those of {ADJUDICATE}")
            row_id, response = (record.fields.get(name) for name in ("id", "response"))
            yield Answer(record.place, str(row_id or ""), None if response is None else str(response))
    except ValueError as error:
        yield Problem(str(file), "", str(error))


def _left_out(ids: Sequence[str], returns: Returns) -> dict[str, int]:
    """Count why prompts have no response."""
    without = (row_id for row_id in ids if row_id not in returns.responses)
    return dict(Counter(returns.skipped.get(row_id, "unanswered") for row_id in without))


def _missing(ids: Sequence[str], returns: Returns) -> list[str]:
    return [row_id for row_id in ids if row_id not in returns.responses and row_id not in returns.skipped]
