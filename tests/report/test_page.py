"""The page as text: it holds everything, unrounded where it sorts, and nothing that a user typed becomes markup."""

import base64
import hashlib
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from page_sample import ACCURACY, ORIGIN, make_report, report_of
from synthetic import make_study

from aliquot.report.analysis.study import Arm
from aliquot.report.page.tables import RUNS_SHOWN
from aliquot.report.page.write import Origin, render, write_page
from aliquot.report.tables.columns import tables_of
from aliquot.report.tables.formats import latex, markdown


class Page(HTMLParser):
    """What a page holds, as a browser would find it.

    `tables` is caption -> rows of (text, value to sort by), `elements` are (tag, attributes).
    """

    def __init__(self, html):
        super().__init__()
        self.tables, self.elements, self.text, self.script = {}, [], "", ""
        self._inside, self._rows = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "link", "wbr", "br", "img", "input"):
            self._inside.append(tag)
        if tag == "caption":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(["", attributes.get("data-value")])

    def handle_endtag(self, tag):
        assert self._inside.pop() == tag, f"</{tag}> at {self.getpos()}"
        if tag == "caption":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        if "script" in self._inside:
            self.script += data
            return
        self.text += data
        if "caption" in self._inside:
            self._caption += data
        elif {"td", "th"} & set(self._inside):
            self._rows[-1][-1][0] += data

    def rows(self, caption):
        """Return the rows below the headings of the table whose caption begins so."""
        (name,) = (name for name in self.tables if name.startswith(caption))
        return self.tables[name][1:]

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def report():
    return make_report()


@pytest.fixture(scope="module")
def page(report):
    return Page(render([report], ORIGIN))


def test_every_finding_is_a_row_that_sorts_by_its_exact_numbers(report, page):
    found = {(f.arm.name, f.budget, f.benchmark): f for f in report.findings.findings}
    rows = {(arm, int(budget), name): rest for (arm, _), (_, budget), (name, _), *rest in page.rows("Accuracy after")}
    assert rows.keys() == found.keys()
    for key, (accuracy, difference, verdict, _, seeds) in rows.items():
        f = found[key]
        assert float(accuracy[1]) == f.score.value
        assert accuracy[0].split()[0] == f"{100 * f.score.value:.1f}"
        assert int(seeds[1]) == f.num_replicates
        if f.comparison:
            assert float(difference[1]) == f.comparison.difference.value
            assert (verdict[0] == "unclear") == (f.comparison.p_adjusted >= 0.05)
            assert (verdict[0] == "worse") <= (f.comparison.difference.value < 0)
        else:
            assert difference == ["-", None]


def test_comparisons_savings_areas_and_runs_are_all_there(report, page):
    findings = report.findings
    compared = [f.comparison for f in findings.findings if f.comparison]
    assert sorted(float(row[5][1]) for row in page.rows("Strategy minus random")) == sorted(c.p for c in compared)
    assert len(page.rows("Annotations that random needs")) == sum(f.saved is not None for f in findings.findings)
    assert [float(row[2][1]) for row in page.rows("Area under")] == [c.area.value for c in findings.curves]
    assert {row[0][0] for row in page.rows("Finished runs")} == {record.id for record in report.study.records}
    assert "../runs/random-1000-0/" in page.attributes("href")
    assert ORIGIN.urls["random-1000-0"] in page.attributes("href")
    assert "python run.py strategy=random budget=1000 seed=0" in page.text


def test_the_page_is_one_document_whose_links_lead_somewhere(page):
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    links = page.attributes("href")
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert {i for name in ("aria-labelledby", "aria-describedby") for i in page.attributes(name)} <= set(ids)
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert not page.attributes("src")
    outside = {link for link in links if "://" in link}
    assert outside == set(ORIGIN.urls.values())


def test_only_the_script_of_the_page_may_run_and_nothing_may_be_fetched(page):
    (policy,) = (a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


@pytest.mark.slow
def test_whatever_users_typed_stays_text(report):
    evil = '</script></td><img src=x onerror=alert(1)><script>alert(1)</script>{{ 7 * 7 }}" onfocus="alert(1)'
    study = make_study({name: ACCURACY[name] for name in ("random", "min_margin")}, budgets=(1000, 3000, 10000))
    cells = [replace(c, arm=Arm(evil, evil, {})) if c.arm.name != "random" else c for c in study.cells]
    typed = report_of(replace(study, cells=cells, name=evil, setting={evil: evil}))
    typed = replace(typed, findings=replace(typed.findings, notes=[evil]))
    origin = Origin(evil, [evil], {evil: evil}, evil, evil, {"random-1000-0": f"javascript:{evil}"})
    page = Page(render([typed], origin))
    plain = Page(render([report], ORIGIN))
    assert page.script == plain.script
    assert [tag for tag, _ in page.elements if tag in ("script", "img")] == ["script"]
    assert {name for _, a in page.elements for name in a} <= {name for _, a in plain.elements for name in a}
    assert not [link for link in page.attributes("href") if link.startswith("javascript")]
    assert page.text.count(evil) > 20


def test_the_same_input_gives_the_same_bytes(report, tmp_path):
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, [report], ORIGIN)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "b.html"}


def test_two_studies_share_a_page(report):
    other = replace(report, study=replace(report.study, name="another study"))
    page = Page(render([report, other], ORIGIN))
    assert len(set(page.attributes("id"))) == len(page.attributes("id"))
    assert "another study" in page.text
    assert sum(tag == "h2" for tag, _ in page.elements) == 3


def test_what_a_study_lacks_has_no_heading():
    report = make_report({"random": (0.3,)}, budgets=(1000,), num_seeds=1)
    page = Page(render([replace(report, pictures=())], Origin("today")))
    headings = {a["id"].removeprefix("s1-") for tag, a in page.elements if tag == "h3"}
    assert headings >= {"results", "cost", "setting", "runs"}
    assert not headings & {"accuracy", "differences", "saved", "areas", "ablation", "picks", "commands", "versions"}
    assert "Nothing can be compared with random" in page.text


@pytest.mark.slow
def test_ten_thousand_runs_stay_one_small_page_with_all_findings(report):
    def many(values, copies):
        return [replace(v, arm=replace(v.arm, name=f"{v.arm.name} {i}")) for i in range(copies) for v in values]

    findings = replace(
        report.findings, findings=many(report.findings.findings, 45), curves=many(report.findings.curves, 45)
    )
    records = [replace(report.study.records[0], id=f"run-{i}") for i in range(10_000)]
    html = render([replace(report, findings=findings, study=replace(report.study, records=records))], ORIGIN)
    page = Page(html)
    assert len(page.rows("Accuracy after")) == 45 * 18
    assert [row[0][0] for row in page.rows("Finished runs")] == [f"run-{9_999 - i}" for i in range(RUNS_SHOWN)]
    assert f"The newest {RUNS_SHOWN} of 10,000 runs; runs.csv has them all." in page.text
    assert len(html) < 5e6


def test_a_likelihood_is_explained_and_its_numbers_are_nowhere_called_accuracies():
    report = replace(make_report(benchmarks=("validation_likelihood",)), pictures=())
    text = Page(render([report], ORIGIN)).text
    assert "It is not a share of right answers, and a point of it is not a point of accuracy." in text
    assert text.lower().count("accurac") == 1
    assert "likelihood, %" in text
    assert "points of likelihood at" in text
    tables = [tables_of(report.study, report.findings)]
    assert "accurac" not in (markdown(tables) + latex(tables)).lower()
    assert "likelihood in %" in markdown(tables)
