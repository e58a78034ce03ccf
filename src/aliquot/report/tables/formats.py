"""The formats of a report's tables: terminal; CSV and Parquet for programs; Markdown and LaTeX for papers."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from aliquot.experiment.record import RunRecord
from aliquot.report.analysis.findings import Estimate, Findings
from aliquot.report.analysis.study import Study
from aliquot.report.tables.columns import LEGEND, MARK, Column, Kind, Row, StudyTables, Texts, known
from aliquot.runtime import terminal
from aliquot.store.store import write_atomic
from aliquot.types import Metric

_NAME_WIDTH = 20  # of a strategy on the terminal; longer names are wrapped
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_|<>[]#~$"})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    | {"\N{MINUS SIGN}": "$-$", "|": r"\textbar{}"}
)


@dataclass(frozen=True)
class Flat:
    """A table for programs.

    Args:
        kinds: column -> the type of its values.
        rows: column -> value; None if there is no value.
    """

    kinds: Mapping[str, Kind]
    rows: Sequence[Mapping[str, str | int | float | None]]

    @classmethod
    def of(
        cls,
        columns: Sequence[Column[Row]],
        studies: Iterable[tuple[Study, Findings]],
        rows: Callable[[Findings], Sequence[Row]],
    ) -> Flat:
        """Flatten a table of all studies; each row also has the score before finetuning."""
        values = [value for column in columns for value in column.values]
        base = {"base": "value", "base_stderr": "stderr", "base_low": "low", "base_high": "high"}
        kinds: dict[str, Kind] = {
            "study": str,
            **{value.name: value.kind for value in values},
            **dict.fromkeys(base, float),
        }

        def before(estimate: Estimate) -> dict[str, float | None]:
            return {name: known(getattr(estimate, attribute)) for name, attribute in base.items()}

        return cls(
            kinds,
            [
                {"study": study.name, **{v.name: v.of(row) for v in values}, **before(findings.base[row.benchmark])}
                for study, findings in studies
                for row in rows(findings)
            ],
        )

    def write_csv(self, path: Path) -> None:
        """Write CSV; a missing value is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.kinds), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(path, text.getvalue())

    def write_parquet(self, path: Path) -> None:
        """Write Parquet; a missing value is null."""
        import pyarrow as pa
        from pyarrow import parquet

        types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        schema = pa.schema([(name, types[kind]) for name, kind in self.kinds.items()])
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            parquet.write_table(pa.Table.from_pylist(self.rows, schema), temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def show(study: StudyTables) -> None:
    """Print the tables of a study; bold marks reliable differences from random."""
    terminal.say(f"\n{study.title}")
    for texts in study.tables:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
        for head, number in zip(texts.heads, texts.numbers, strict=True):
            table.add_column(head, justify="right" if number else "left")
        for number, row in enumerate(texts.rows):
            if number and texts.groups[number] != texts.groups[number - 1]:
                table.add_row()
            folded = [text if right else _folded(text) for text, right in zip(row, texts.numbers, strict=True)]
            table.add_row(*(Text(text, style="bold" if text.endswith(MARK) else "") for text in folded))
        terminal.say(f"\n{texts.title}")
        terminal.print_table(table)
    terminal.say("")
    for note in (LEGEND, *study.notes):
        terminal.say(note)


def _folded(name: str) -> str:
    """Break a long name after spaces and underscores."""
    lines = [""]
    for part in re.findall(r"[^ _]*[ _]?", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > _NAME_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def markdown(studies: Sequence[StudyTables]) -> str:
    """Return the tables in GitHub's Markdown."""
    blocks: list[str] = []
    for study in studies:
        blocks.append(f"## {study.title.translate(_MARKDOWN)}")
        for table in study.tables:
            rule = ["---:" if number else "---" for number in table.numbers]
            rows = [[text.translate(_MARKDOWN) for text in row] for row in (table.heads, *table.rows)]
            lines = [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
            blocks += [f"### {table.title.translate(_MARKDOWN)}", "\n".join(lines)]
        blocks += [f"- {note.translate(_MARKDOWN)}" for note in (LEGEND, *study.notes)]
    return "\n\n".join(blocks) + "\n"


def latex(studies: Sequence[StudyTables]) -> str:
    """Return the tables in small type for a one-column document that loads booktabs and longtable."""
    lines = [r"% \usepackage{booktabs,longtable}", r"\begingroup\scriptsize\setlength{\tabcolsep}{3pt}", ""]
    numbers = itertools.count(1)
    for study in studies:
        for table in study.tables:
            alignment = "".join("r" if number else "l" for number in table.numbers)
            caption = f"{study.title}. {table.title}. {LEGEND}".translate(_LATEX)
            heads = " & ".join(head.translate(_LATEX) for head in table.heads)
            lines += [
                rf"\begin{{longtable}}{{@{{}}{alignment}@{{}}}}",
                rf"\caption{{{caption}}}\label{{tab:aliquot-{next(numbers)}}}\\",
            ]
            for end in ("endfirsthead", "endhead"):  # pages after the first have no caption
                lines += [r"\toprule", rf"{heads} \\", r"\midrule", rf"\{end}"]
            lines += _latex_rows(table)
            lines += [r"\bottomrule", r"\end{longtable}", ""]
        lines += [rf"\noindent {note.translate(_LATEX)}\par" for note in study.notes]
    return "\n".join([*lines, r"\endgroup"]) + "\n"


def _latex_rows(table: Texts) -> Iterator[str]:
    """Yield the lines of the body, with a small space between groups."""
    for number, row in enumerate(table.rows):
        if number and table.groups[number] != table.groups[number - 1]:
            yield r"\addlinespace"
        yield rf"{' & '.join(text.translate(_LATEX) for text in row)} \\"


def runs_csv(runs: Iterable[RunRecord]) -> str:
    """Return one row per run and benchmark: long form, as plotting libraries prefer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("id", "strategy", "pool", "num_prompts", "budget", "seed")
    bill = ("num_annotated", "annotator", "annotation_cost", "uses_response", "limit", "tokens_trained")
    writer.writerow(
        [*head, "benchmark", "base", "finetuned", "stderr", "num_questions", "overrides", "finished", *bill]
    )
    for run in runs:
        base = {metric.name: metric.value for metric in run.base}
        for m in run.finetuned or [Metric("", math.nan, math.nan, 0)]:
            scores = [m.name, base.get(m.name), known(m.value), known(m.stderr), m.num_questions]
            about = [[getattr(run, name) for name in names] for names in (head, bill)]
            writer.writerow([*about[0], *scores, shlex.join(run.overrides), run.finished, *about[1]])
    return text.getvalue()
