"""Annotators who need time: the selected prompts are written to files, and the run continues once responses are back.

A batch is a directory that belongs to the user:

    to_annotate.jsonl           the prompts to answer; runs that ask for more add to it
    to_annotate_second.jsonl    the prompts that a second annotator should also answer, if `double` asks for that
    returned/                   the files that annotators give back, any number of them; aliquot only reads them
    returned/second/            the files that the second annotator gives back
    adjudicate.csv              prompts with different responses from two annotators, for somebody to decide
    problems.csv                returned rows that cannot be used
    quality.html                surface statistics of the responses

Responses may also be typed into the first two files, and decisions are typed into adjudicate.csv: aliquot only adds
rows to these (see `batch`). An id names one prompt for as long as the directory is used.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from aliquot.annotation.annotator import Annotator, digest_of
from aliquot.annotation.bill import Bill, Tariff
from aliquot.annotation.people.batch import (
    ADJUDICATE,
    REQUESTS,
    REQUESTS_SECOND,
    SECOND,
    add_disagreements,
    add_requests,
    read_decisions,
    read_requests,
    typed_in,
)
from aliquot.annotation.quality import Quality
from aliquot.annotation.returned_rows import SUGGESTED, Problem, ReturnedRow, Returns, sort_out, told_once
from aliquot.annotation.task_tables import write_table
from aliquot.pools.conversation import as_text
from aliquot.pools.files import is_litter
from aliquot.pools.spec import PoolSpec
from aliquot.runtime.wording import counted
from aliquot.store.content import locate
from aliquot.store.lease import Lease
from aliquot.store.store import Pending, write_atomic
from aliquot.types import AnnotatedSet

RETURNED, PROBLEMS, QUALITY = "returned", "problems.csv", "quality.html"

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_SHOWN = 60  # characters of a prompt in a message


@dataclass(frozen=True, kw_only=True)
class People(Annotator):
    """The common base of annotators who answer in their own time.

    Args:
        folder: the directory of the batch.
        allow_partial: finetune on the available responses, even if prompts are still waiting or returned rows cannot be
            used.
        price: per response, in any currency; reports sum it.
        double: fraction of the prompts that a second annotator should also answer.
        disagreement: what happens if two annotators differ: either the first one's response counts, or the run waits
            for a decision.
    """

    reads_source: ClassVar[bool] = False
    waits: ClassVar[bool] = True

    folder: str
    allow_partial: bool = False
    price: float = field(default=0.0, metadata={"key": False})
    double: float = 0.0
    disagreement: Literal["first", "wait"] = "first"

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError(f"annotator.price={self.price} is below 0; give what one response costs, or 0")
        if not 0 <= self.double <= 1:
            raise ValueError(f"annotator.double={self.double} is not a fraction; give one from 0 to 1")
        if self.disagreement not in ("first", "wait"):
            raise ValueError(f"annotator.disagreement={self.disagreement} is not known; give first or wait")

    def identity(self) -> dict[str, object]:
        """Name the kind of annotator; the responses themselves are identified by their digest."""
        return {"annotator": type(self).__name__}

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return the price of the responses, including second ones."""
        return self.price * (1 + self.double) * num_prompts

    @property
    def tariff(self) -> Tariff:
        return Tariff(per_response=self.price * (1 + self.double))

    def most(self, ids: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return the price of one response to each prompt, or of two."""
        return [self.price * (1 + self.is_doubled(row_id)) for row_id in ids]

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError if the directory is a file, or if a file that aliquot wrote there is damaged."""
        self.answers(self.place())

    def place(self) -> Path:
        """Return the directory of the batch, which need not exist yet."""
        folder = locate(self.folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"annotator.folder={self.folder}: {folder} is a file; name a folder for the batch")
        return folder

    def digest(self, ids: Sequence[str], prompts: Sequence[str]) -> str | None:
        """Return the hash of the responses to these prompts, or None if they cannot be used yet."""
        returns = self.read(dict(zip(ids, prompts, strict=True)))
        if self._waits(ids, returns):
            return None
        return digest_of((row_id, returns.responses[row_id]) for row_id in ids if row_id in returns.responses)

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> AnnotatedSet:
        """Return the responses that are back, and request those that are not.

        Raises:
            Pending: prompts are waiting or returned rows cannot be used, and `allow_partial` is not set.
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
        if returns.disagreements:
            log.info("%s; the first one counts until then", self._what_to_decide(returns))
        return annotated

    def answered(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Mapping[str, str]:
        """Return the responses that are back, without those on which two annotators differ if a decision is awaited."""
        returns = self.read(dict(zip(ids, prompts, strict=True)))
        undecided = returns.disagreements if self.disagreement == "wait" else {}
        return {row_id: text for row_id, text in returns.responses.items() if row_id not in undecided}

    def bill(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Bill:
        """Return the cost of the responses to these prompts; a second response costs as much as the first."""
        returns = self.read(dict(zip(ids, prompts, strict=True)))
        left_out = _left_out(ids, returns)
        num_given = len(ids) - sum(left_out.values())
        num_paid = num_given + sum(len(answers) - 1 for answers in returns.doubled.values())
        return Bill(self.name, len(ids), num_given, self.price * num_paid, left_out=left_out)

    def doubled(self, ids: Sequence[str], prompts: Sequence[str]) -> list[tuple[ReturnedRow, ...]]:
        """Return the answers to the prompts in this list that several annotators answered."""
        return list(self.read(dict(zip(ids, prompts, strict=True))).doubled.values())

    def ask(self, asked: Mapping[str, str]) -> None:
        """Add prompts to the batch; those already in it stay where they are."""
        asked = _as_texts(asked)
        folder = self.place()
        (folder / RETURNED).mkdir(parents=True, exist_ok=True)
        with Lease(folder / ".lease", what=f"batch {folder.name}"):
            requests = read_requests(folder)
            names = _names(asked, requests, folder / REQUESTS)
            requests |= {row_id: prompt for row_id, prompt in asked.items() if names[row_id] == row_id}
            add_requests(folder / REQUESTS, requests)
            if self.double:
                add_requests(folder / REQUESTS_SECOND, {i: p for i, p in requests.items() if self.is_doubled(i)})
            self.export(requests, folder)

    def is_doubled(self, row_id: str) -> bool:
        """Tell whether a second annotator should also answer a prompt: drawn at random, the same for every budget."""
        lot = int.from_bytes(hashlib.sha256(f"second {row_id}".encode()).digest()[:8], "big")
        return lot < self.double * 2**64

    def read(self, asked: Mapping[str, str]) -> Returns:
        """Read the returned files, as far as they concern these prompts.

        Raises:
            ValueError: one of the ids was asked in this batch with another prompt.
        """
        asked = _as_texts(asked)
        folder = self.place()
        requests = read_requests(folder)
        names = _names(asked, requests, folder / REQUESTS)
        known = {**requests, **asked}
        decided = (row for row in read_decisions(folder) if isinstance(row, Problem) or row.id in known)
        returns = sort_out(self.answers(folder), known, decided)
        concerned = set(names.values())
        return Returns(
            responses=_renamed(returns.responses, names),
            skipped=_renamed(returns.skipped, names),
            problems=tuple(row for row in returns.problems if row.id in concerned or row.id not in requests),
            empty=tuple(row for row in returns.empty if row.id in concerned),
            doubled=_renamed(returns.doubled, names),
            decided=frozenset(row_id for row_id, name in names.items() if {row_id, name} & returns.decided),
        )

    def export(self, requests: Mapping[str, str], folder: Path) -> None:
        """Write the prompts in any other format that the annotators' tool reads."""

    def fetch(self) -> None:
        """Pull the annotators' work into the directory, if their tool is a server."""

    def answers(self, folder: Path) -> list[ReturnedRow | Problem]:
        """Return every returned row, and the problems of unreadable ones."""
        rows: list[ReturnedRow | Problem] = list(typed_in(folder / REQUESTS, None))
        for file in self.files(folder):
            stat = file.stat()
            rows += _rows(self, file, SECOND if is_second(file, folder) else None, stat.st_size, stat.st_mtime_ns)
        return [*rows, *typed_in(folder / REQUESTS_SECOND, SECOND)]

    def files(self, folder: Path) -> list[Path]:
        """Return the files that hold answers, in order of precedence."""
        return returned_files(folder)

    def read_file(self, file: Path, by: str | None) -> Iterator[ReturnedRow | Problem]:
        """Yield every row and unreadable-row problem of a file; rows without an annotator are attributed to `by`."""
        raise NotImplementedError

    def remedy(self, folder: Path) -> str:
        """Say what to do with waiting prompts, up to 'and run the same command again'."""
        return f"Put the responses into {folder / RETURNED}"

    def _waits(self, ids: Sequence[str], returns: Returns) -> bool:
        if self.disagreement == "wait" and returns.disagreements:
            return True
        incomplete = bool(_missing(ids, returns) or returns.problems)
        return incomplete and not (self.allow_partial and any(row_id in returns.responses for row_id in ids))

    def _report(self, returns: Returns, annotated: AnnotatedSet, asked: Mapping[str, str]) -> None:
        """Write the quality page and the list of problems, for people to fix."""
        folder = self.place()
        problems = [(row.place, row.id, row.what) for row in (*returns.problems, *returns.empty)]
        write_table(folder / PROBLEMS, ("place", "id", "problem"), problems)
        if returns.disagreements:
            with Lease(folder / ".lease", what=f"batch {folder.name}"):
                add_disagreements(folder, _to_decide(returns.disagreements, _as_texts(asked)))
        if len(annotated):
            doubled = list(returns.doubled.values())
            quality = Quality.of(self.name, annotated, _left_out(list(asked), returns), doubled)
            write_atomic(folder / QUALITY, quality.page())

    def _what_to_do(self, num_asked: int, num_missing: int, returns: Returns) -> str:
        folder = self.place()
        lines: list[str] = []
        if num_missing:
            wait = "waits for its response" if num_missing == 1 else "wait for their responses"
            empty = _came_empty(returns.empty)
            lines.append(f"{num_missing:,} of {counted(num_asked, 'prompt')} {wait}{empty}: {folder / REQUESTS}")
        if returns.problems:
            first = returns.problems[0]
            lines.append(
                f"{counted(len(returns.problems), 'returned row or file', 'returned rows or files')} cannot be used, "
                f"the first at {first.place}: {first.what}; all are in {folder / PROBLEMS}"
            )
        undecided = self.disagreement == "wait" and bool(returns.disagreements)
        if undecided:
            lines.append(self._what_to_decide(returns))
        elif returns.responses and not self.allow_partial and (num_missing or returns.problems):
            lines.append("annotator.allow_partial=true continues with the responses available")
        lines.append(f"{self.remedy(folder) if num_missing else 'Correct that'} and run the same command again:")
        return "\n".join(lines)

    def _what_to_decide(self, returns: Returns) -> str:
        return (
            f"{counted(len(returns.disagreements), 'prompt has', 'prompts have')} two different responses: fill in the "
            f"column `response` of {self.place() / ADJUDICATE}"
        )


def _as_texts(asked: Mapping[str, str]) -> dict[str, str]:
    """Return prompts in the form shown to people."""
    return {row_id: as_text(prompt) for row_id, prompt in asked.items()}


def returned_files(folder: Path) -> list[Path]:
    """Return the returned files, sorted by name, the second annotator's last; skip hidden files and litter."""
    place = folder / RETURNED
    files = (file for file in place.rglob("*") if file.is_file() and not is_litter(file))
    seen = (file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts))
    return sorted(seen, key=lambda file: (is_second(file, folder), file))


def is_second(file: Path, folder: Path) -> bool:
    """Tell whether a returned file is from the second annotator."""
    return file.is_relative_to(folder / RETURNED / SECOND)


@functools.lru_cache(maxsize=256)
def _rows(
    annotator: People, file: Path, by: str | None, size: int, modified_ns: int
) -> tuple[ReturnedRow | Problem, ...]:
    """Read one file; cached while its size and time stay the same, since a sweep reads it once per experiment."""
    rows: list[ReturnedRow | Problem] = []
    try:
        for row in annotator.read_file(file, by):
            rows.append(row)  # rows before an error count
    except ValueError as error:  # other files can still be read
        rows.append(Problem.of(file, error))
    return tuple(told_once(file, rows))


def _names(asked: Mapping[str, str], requests: Mapping[str, str], file: Path) -> dict[str, str]:
    """Return id -> the id by which the batch knows the prompt, which may have been added under another id."""
    there = {prompt: row_id for row_id, prompt in requests.items()}
    for row_id, prompt in asked.items():
        if row_id in requests and requests[row_id].split() != prompt.split():
            raise ValueError(
                f"{file}: id '{row_id}' was asked as {_begin(requests[row_id])}, and is now {_begin(prompt)}: "
                "its response would not answer it; give a changed prompt an id of its own, another pool another "
                "annotator.folder"
            )
    return {row_id: row_id if row_id in requests else there.get(prompt, row_id) for row_id, prompt in asked.items()}


def _begin(prompt: str) -> str:
    line = " ".join(prompt.split())
    return f"'{line}'" if len(line) <= _SHOWN else f"'{line[:_SHOWN]}...'"


def _renamed(found: Mapping[str, _T], names: Mapping[str, str]) -> dict[str, _T]:
    """Return the value found under the id itself, or else under the other id of its prompt."""
    keys = {row_id: row_id if row_id in found else name for row_id, name in names.items()}
    return {row_id: found[key] for row_id, key in keys.items() if key in found}


def _to_decide(
    disagreements: Mapping[str, Sequence[ReturnedRow]], asked: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return id -> the decision in adjudicate.csv on a prompt, under the id by which the annotators know it."""
    return {
        first.id: {"prompt": asked[row_id], "first": first.response or "", "second": second.response or ""}
        for row_id, (first, second, *_) in disagreements.items()
    }


def _left_out(ids: Sequence[str], returns: Returns) -> dict[str, int]:
    """Count the reasons for missing responses."""
    without = (row_id for row_id in ids if row_id not in returns.responses)
    return dict(Counter(returns.skipped.get(row_id, "unanswered") for row_id in without))


def _came_empty(empty: Sequence[Problem]) -> str:
    num_suggested = sum(row.what == SUGGESTED for row in empty)
    counts = {
        "came back empty": len(empty) - num_suggested,
        "with only a prediction, which does not count": num_suggested,
    }
    told = ", ".join(f"{count:,} {how}" for how, count in counts.items() if count)
    return f" ({told})" if told else ""


def _missing(ids: Sequence[str], returns: Returns) -> list[str]:
    return [row_id for row_id in ids if row_id not in returns.responses and row_id not in returns.skipped]
