"""Surface quality of responses, on a page of its own: lengths, omissions, repetitions, agreement.

The page cannot show whether a response is right. It often shows whether somebody was in a hurry.
"""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aliquot.annotation.returned_rows import ReturnedRow
from aliquot.runtime.wording import counted
from aliquot.types import AnnotatedSet

_SHOWN = 20  # repeated responses on the page
_START = 200  # characters of each
_PARTS = {"shortest": 0, "5 % below": 5, "median": 50, "5 % above": 95, "longest": 100}
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Repeated:
    """One response that several prompts got, ignoring white space."""

    response: str
    ids: Sequence[str]


@dataclass(frozen=True)
class Agreement:
    """How similar two annotators' responses to the same prompts are.

    Args:
        num_prompts: number of prompts that two annotators answered.
        exact: fraction of responses that are equal, ignoring white space.
        f1: mean overlap of words, see `token_f1`.
    """

    num_prompts: int
    exact: float
    f1: float


@dataclass(frozen=True)
class Quality:
    """The content of the page.

    Args:
        by: the annotator.
        num_responses: number of responses.
        words: length of prompts and of responses, in words: name -> part of the distribution -> words.
        left_out: reason for a missing response -> number of prompts.
        repeated: responses that several prompts got, the most frequent first.
        agreement: between annotators, or None if no prompt was answered twice.
    """

    by: str
    num_responses: int
    words: Mapping[str, Mapping[str, float]]
    left_out: Mapping[str, int]
    repeated: Sequence[Repeated]
    agreement: Agreement | None

    @classmethod
    def of(
        cls,
        by: str,
        annotated: AnnotatedSet,
        left_out: Mapping[str, int],
        doubled: Sequence[Sequence[ReturnedRow]] = (),
    ) -> Quality:
        """Measure responses.

        Args:
            by: the annotator.
            annotated: the responses with their prompts.
            left_out: reason for a missing response -> number of prompts.
            doubled: the answers to each prompt that several annotators answered.
        """
        same = defaultdict[str, list[str]](list)
        for row_id, response in zip(annotated.ids, annotated.responses, strict=True):
            same[" ".join(response.split())].append(row_id)
        repeated = [Repeated(response, ids) for response, ids in same.items() if len(ids) > 1]
        return cls(
            by=by,
            num_responses=len(annotated),
            words={"prompts": _spread(annotated.prompts), "responses": _spread(annotated.responses)},
            left_out=left_out,
            repeated=sorted(repeated, key=lambda one: -len(one.ids)),
            agreement=_agreement(doubled),
        )

    def page(self) -> str:
        """Return the HTML of the page, which is self-contained."""
        from jinja2 import Environment, StrictUndefined

        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(_PAGE).render(
            q=self, shown=self.repeated[:_SHOWN], start=_START, parts=_PARTS, counted=counted
        )


def token_f1(one: str, other: str) -> float:
    """Return the F1 of the words that two texts share, as for SQuAD: case, punctuation and articles are ignored.

    Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.
    """
    words = [_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split() for text in (one, other)]
    if not all(words):
        return float(words[0] == words[1])
    shared = (Counter(words[0]) & Counter(words[1])).total()
    return 2 * shared / (len(words[0]) + len(words[1]))


def _agreement(doubled: Sequence[Sequence[ReturnedRow]]) -> Agreement | None:
    pairs = [(given[0].response or "", given[1].response or "") for given in doubled]
    if not pairs:
        return None
    exact = [one.split() == other.split() for one, other in pairs]
    return Agreement(len(pairs), float(np.mean(exact)), float(np.mean([token_f1(*pair) for pair in pairs])))


def _spread(texts: Sequence[str]) -> Mapping[str, float]:
    words = [len(text.split()) for text in texts]
    return {name: float(np.percentile(words, part)) for name, part in _PARTS.items()} if words else {}


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Responses from {{ q.by }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; }
body { font: 100%/1.6 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 2rem 1rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8888; }
th:first-child, td:first-child, td.text { text-align: left; }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; }
</style></head><body>
<h1>{{ counted(q.num_responses, "response") }} from {{ q.by }}</h1>
{% if q.num_responses %}
<h2>Length, in words</h2>
<table><tr><th></th>{% for part in parts %}<th>{{ part }}</th>{% endfor %}</tr>
{% for name, spread in q.words.items() %}
<tr><td>{{ name }}</td>{% for part in parts %}<td>{{ "{:,.0f}".format(spread[part]) }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endif %}
<h2>Left out</h2>
{% if q.left_out %}
<table><tr><th>why</th><th>prompts</th></tr>
{% for why, number in q.left_out.items() %}
<tr><td>{{ why }}</td><td>{{ "{:,}".format(number) }}</td></tr>
{% endfor %}</table>
{% else %}<p>Every prompt has a response.</p>{% endif %}

<h2>The same response to several prompts</h2>
{% if shown %}
<p>{{ counted(q.repeated | length, "response") }} came more than once
{%- if q.repeated | length > shown | length %}; the {{ shown | length }} most frequent{% endif %}:</p>
<table><tr><th>response</th><th>prompts</th><th>such as id</th></tr>
{% for one in shown %}
<tr><td class="text">{{ one.response[:start] }}</td><td>{{ "{:,}".format(one.ids | length) }}</td>
<td>{{ one.ids[0] }}, {{ one.ids[1] }}</td></tr>
{% endfor %}</table>
{% else %}<p>None.</p>{% endif %}

<h2>Agreement</h2>
{% if q.agreement %}
<p>{{ counted(q.agreement.num_prompts, "prompt was", "prompts were") }} answered by two annotators:
{{ "{:.0%}".format(q.agreement.exact) }} of the responses are the same, white space aside; the mean F1 of their words is
{{ "{:.2f}".format(q.agreement.f1) }} (as for SQuAD: case, punctuation and articles aside).</p>
{% else %}<p>No prompt was answered by two annotators.</p>{% endif %}
</body></html>
"""
