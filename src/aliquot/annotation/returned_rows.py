"""The rows that annotators gave back, and the problems with them.

A row is used only if it cannot be a mistake: its id was asked for, its prompt (if the row repeats it) is the one
that was asked, it has a response, and its annotator gave no other response. If two annotators answered, the first one's
response counts until somebody decides between them. Returned files are never changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aliquot.pools.files import READERS
from aliquot.pools.record import Record

#: The problem with a row that holds only a prediction or suggestion.
SUGGESTED = "a prediction or suggestion is not a response; submit it as one, and export again"


@dataclass(frozen=True)
class ReturnedRow:
    """One returned row.

    Args:
        place: the file, and the line or row in it, for messages.
        id: of the prompt that it answers.
        response: the text; None or blank if the annotator left it open.
        prompt: the text of the prompt as the row repeats it, or None.
        annotator: the person who wrote it, or None.
        skipped: the reason why the annotator left the prompt out on purpose, or None.
        suggested: whether a model predicted a response and nobody submitted one.
    """

    place: str
    id: str
    response: str | None
    prompt: str | None = None
    annotator: str | None = None
    skipped: str | None = None
    suggested: bool = False


@dataclass(frozen=True)
class Problem:
    """A returned row that is not used, and why."""

    place: str
    id: str
    what: str

    @classmethod
    def of(cls, file: Path, error: ValueError) -> Problem:
        """Return the problem of an unreadable file; the error begins with its name, and possibly a line number."""
        told = re.fullmatch(rf"({re.escape(str(file))}(?::\d+)?):? (.*)", str(error), re.DOTALL)
        return cls(told[1], "", told[2]) if told else cls(str(file), "", str(error))


@dataclass(frozen=True)
class Returns:
    """Everything that came back for the prompts that were asked.

    Args:
        responses: id -> text, from the rows that can be used.
        skipped: id -> reason, for the prompts that an annotator left out on purpose.
        problems: the rows that cannot be used.
        empty: the rows without a response whose prompts have none from elsewhere: these prompts are still waiting.
        doubled: id -> the answers of the annotators, in the order read, for the prompts that several answered.
        decided: ids of prompts for which somebody has decided between the answers.
    """

    responses: Mapping[str, str]
    skipped: Mapping[str, str]
    problems: tuple[Problem, ...]
    empty: tuple[Problem, ...]
    doubled: Mapping[str, tuple[ReturnedRow, ...]]
    decided: frozenset[str]

    @property
    def disagreements(self) -> dict[str, tuple[ReturnedRow, ...]]:
        """Return the answers that differ in more than white space and that nobody has decided between."""
        return {
            row_id: given
            for row_id, given in self.doubled.items()
            if row_id not in self.decided and len({" ".join((answer.response or "").split()) for answer in given}) > 1
        }


def returned_rows(
    kind: str, file: Path, read: Callable[[Record], Iterable[ReturnedRow | Problem]]
) -> Iterator[ReturnedRow | Problem]:
    """Yield what `read` makes of the rows of a file in a table format; each unreadable row becomes a problem."""
    bad: list[ValueError] = []
    try:
        for record in READERS[kind](file, bad=bad):
            if not record.blank:
                yield from read(record)
    except ValueError as error:  # rows before it count
        bad.append(error)
    yield from (Problem.of(file, error) for error in bad)


def told_once(file: Path, rows: Sequence[ReturnedRow | Problem]) -> Sequence[ReturnedRow | Problem]:
    """Return the rows of a file; if it has several and none can be read, return one problem that says so."""
    problems = [row for row in rows if isinstance(row, Problem)]
    if len(problems) < len(rows) or len(rows) < 2:
        return rows
    what = f"none of its {len(rows):,} rows can be read; the first is {problems[0].place}: {problems[0].what}"
    return [Problem(str(file), "", what)]


def sort_out(
    rows: Iterable[ReturnedRow | Problem], asked: Mapping[str, str], decided: Iterable[ReturnedRow | Problem] = ()
) -> Returns:
    """Separate the rows that can be used from those that cannot.

    Args:
        rows: all returned rows, and the problems of unreadable ones.
        asked: id -> prompt, for everything ever asked of these annotators.
        decided: responses that override all others.
    """
    kept: dict[str, list[ReturnedRow]] = {}
    skipped: dict[str, str] = {}
    problems: list[Problem] = []
    blank: list[Problem] = []
    by_prompt: dict[str, str] = {}
    for row_id, prompt in asked.items():
        by_prompt.setdefault(" ".join(prompt.split()), row_id)
    for row in rows:
        if isinstance(row, ReturnedRow) and row.id not in asked:
            # a spreadsheet turns 007 into 7, and 1e5 into 1E+05: the prompt in the same row shows what was meant
            named, meant = row.id.strip(), by_prompt.get(" ".join((row.prompt or "").split()), row.id)
            row = replace(row, id=named if named in asked else meant)
        if problem := _problem(row, asked, by_prompt, kept):
            problems.append(problem)
        elif isinstance(row, Problem):  # reported above
            continue
        elif row.skipped is not None:
            skipped[row.id] = row.skipped
        elif not _is_given(row):
            blank.append(Problem(row.place, row.id, SUGGESTED if row.suggested else "the response is empty"))
        elif all(earlier.annotator != row.annotator for earlier in kept.get(row.id, ())):
            kept.setdefault(row.id, []).append(row)
    final: dict[str, list[ReturnedRow]] = {}
    for row in decided:
        if problem := _problem(row, asked, by_prompt, final):
            problems.append(problem)
        elif isinstance(row, ReturnedRow) and _is_given(row):
            final.setdefault(row.id, [row])
    responses = {row_id: given[0].response or "" for row_id, given in (kept | final).items()}
    return Returns(
        responses=responses,
        skipped={row_id: why for row_id, why in skipped.items() if row_id not in responses},
        problems=tuple(problems),
        empty=tuple(row for row in blank if row.id not in responses and row.id not in skipped),
        doubled={row_id: tuple(given) for row_id, given in kept.items() if len(given) > 1},
        decided=frozenset(final),
    )


def _is_given(answer: ReturnedRow) -> bool:
    return bool(answer.response and answer.response.strip())


def _problem(
    row: ReturnedRow | Problem,
    asked: Mapping[str, str],
    by_prompt: Mapping[str, str],
    kept: Mapping[str, list[ReturnedRow]],
) -> Problem | None:
    """Say why a row cannot be used; None if it can, or if it is merely empty."""
    if isinstance(row, Problem):
        return row
    what = None
    if not row.id:
        what = "the row has no id; write the id of its prompt"
    elif row.id not in asked:
        what = "no prompt of the batch has this id; write the right id, or remove the row"
    elif row.prompt is not None and row.prompt.split() != asked[row.id].split():
        of = by_prompt.get(" ".join(row.prompt.split()))
        what = "the prompt was edited, so the response may answer something else; restore the prompt"
        if of is not None:
            what = f"the prompt in this row has id '{of}'; write that, or put the prompt of this id in the row"
    elif _is_given(row):
        same = (earlier for earlier in kept.get(row.id, ()) if earlier.annotator == row.annotator)
        if (earlier := next(same, None)) and row.response != earlier.response:
            what = f"another response to this prompt is at {earlier.place}; keep only one of them"
    return Problem(row.place, row.id, what) if what else None
