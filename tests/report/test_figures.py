"""Figures say what the findings say, in every point; and can be read where they are shown."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from synthetic import make_study

from aliquot.report.analysis.findings import Comparison, Curve, Estimate, Finding, Findings, Saved
from aliquot.report.analysis.study import Arm, Study
from aliquot.report.analysis.verdict import times
from aliquot.report.figures.ablation import find_ablations
from aliquot.report.figures.drawing import COLORS, INK, NEUTRAL, apart
from aliquot.report.figures.study import draw, draw_into
from aliquot.report.selections.picks import Picks

SVG = "{http://www.w3.org/2000/svg}"
RANDOM = (0.40, 0.47, 0.54, 0.60)
FEW = {"random": RANDOM, "facility_location": (0.42, 0.52, 0.57, 0.62), "min_margin": (0.38, 0.44, 0.52, 0.58)}
MANY = {"random": RANDOM} | {f"strategy_{i}": tuple(x + (i - 6) / 100 for x in RANDOM) for i in range(13)}
BUDGETS = (1000, 3000, 10000, 30000)


def findings_of(study: Study) -> Findings:
    """Judge a study by normal intervals of its means, so that figures are tested apart from the statistics."""

    def estimate(value: float) -> Estimate:
        return Estimate(value, 0.01, value - 0.02, value + 0.02)

    random = {cell.budget: cell for cell in study.cells if cell.arm.strategy == "random"}
    found = []
    for benchmark in study.benchmarks:
        for cell in study.cells:
            comparison, saved, value = None, None, float(cell.correct[benchmark].mean())
            if cell.arm.strategy != "random" and cell.budget in random:
                difference = value - float(random[cell.budget].correct[benchmark].mean())
                p = 0.01 if abs(difference) > 0.02 else 0.5
                comparison = Comparison(estimate(difference), p, p, 3)
                ends = (BUDGETS[0] / cell.budget, BUDGETS[-1] / cell.budget)
                ratio = 2.0 ** (40 * difference)
                side = "below" if ratio < ends[0] else "above" if ratio > ends[1] else None
                low, high = ratio / 1.5, ratio * 1.5
                saved = Saved(
                    None if side else ratio,
                    low if low > ends[0] else None,
                    high if high < ends[1] else None,
                    side,
                    ends,
                )
            found.append(
                Finding(
                    benchmark,
                    cell.arm,
                    cell.budget,
                    len(cell.replicates),
                    cell.correct[benchmark].shape[1],
                    estimate(value),
                    comparison,
                    saved,
                    cell.selection_seconds,
                    cell.runs,
                )
            )
    differences: dict[tuple[str, str], list[float]] = {}
    for f in found:
        if f.comparison:
            differences.setdefault((f.benchmark, f.arm.name), []).append(f.comparison.difference.value)
    arms = {cell.arm.name: cell.arm for cell in study.cells}
    curves = []
    for (benchmark, name), values in differences.items():
        p = 0.01 if abs(np.mean(values)) > 0.02 else 0.5
        comparison = Comparison(estimate(float(np.mean(values))), p, p, 3)
        curves.append(Curve(benchmark, arms[name], tuple(BUDGETS), estimate(0.5), comparison))
    return Findings({name: estimate(float(study.base[name].mean())) for name in study.benchmarks}, found, curves, ())


def drawn(study, picks=None):
    """Name -> drawing, of a study."""
    return {drawing.name: drawing for drawing in draw(study, findings_of(study), picks)}


def points(drawing):
    """Title, x and y (downwards) of every point of a drawing."""
    found = []
    for element in ElementTree.fromstring(drawing.svg()).iter():
        title = element.find(f"{SVG}title")
        if title is not None:
            found.append((title.text, float(element.get("x", "nan")), float(element.get("y", "nan"))))
    return found


@pytest.fixture(scope="module")
def few():
    return make_study(FEW)


@pytest.fixture(scope="module")
def few_drawn(few):
    return drawn(few)


@pytest.fixture(scope="module")
def many_drawn():
    return drawn(make_study(MANY, benchmarks=("demo_mmlu",)))


@pytest.mark.slow
def test_every_finding_is_one_point_that_says_its_number(few, few_drawn):
    for benchmark in few.benchmarks:
        titles = [title for title, _, _ in points(few_drawn[f"accuracy-{benchmark}"])]
        found = [f for f in findings_of(few).findings if f.benchmark == benchmark]
        assert len(titles) == len(found) == 12
        lines = [
            line for axes in few_drawn[f"accuracy-{benchmark}"].figure.axes for line in axes.lines if line.get_gid()
        ]
        heights = sorted(y for line in lines for y in line.get_ydata())
        assert heights == pytest.approx(sorted(100 * f.score.value for f in found))
        for f in found:
            beginning = f"{f.arm.name}, {f.budget:,} prompts: {100 * f.score.value:.1f} %"
            assert sum(title.startswith(beginning) for title in titles) == 1, beginning


def test_points_stand_where_their_titles_say(few_drawn):
    for name, number in (("accuracy-demo_mmlu", r": ([\d.]+) %"), ("differences-demo_mmlu", r": (\S+) points")):
        said = []
        for title, x, y in points(few_drawn[name]):
            value = float(re.search(number, title).group(1).replace("\N{MINUS SIGN}", "-"))
            budget = int(re.search(r"([\d,]+) prompts", title).group(1).replace(",", ""))
            said.append((value, np.log(budget), x, y))
        value, log_budget, x, y = np.transpose(said)
        assert len(value) > 7
        along = x if name.startswith("differences") else -y
        assert np.corrcoef(value, along)[0, 1] > 0.9999
        if name.startswith("accuracy"):
            assert np.corrcoef(log_budget, x)[0, 1] > 0.9999


def test_the_study_at_a_glance_has_a_panel_a_benchmark_and_one_order_of_arms(few, few_drawn):
    drawing = few_drawn["areas"]
    panels = drawing.figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == list(few.benchmarks)
    said = {}
    for title, x, y in points(drawing):
        arm, value = re.fullmatch(r"(.+), all budgets: (\S+) points .*", title).groups()
        said.setdefault(arm, []).append((float(value.replace("\N{MINUS SIGN}", "-")), x, y))
    expected = {c.arm.name: [] for c in findings_of(few).curves}
    for c in findings_of(few).curves:
        expected[c.arm.name].append(round(100 * c.comparison.difference.value, 1))
    assert {arm: [value for value, _, _ in found] for arm, found in said.items()} == expected
    for found in said.values():
        assert len({y for _, _, y in found}) == 1, "an arm is one row through all panels"
    rows = sorted(said, key=lambda arm: said[arm][0][2])
    assert rows == sorted(rows, key=lambda arm: -sum(expected[arm]))


@pytest.mark.slow
def test_many_arms_get_a_panel_each_and_random_is_in_all_of_them(many_drawn):
    drawing = many_drawn["accuracy-demo_mmlu"]
    panels = [axes for axes in drawing.figure.axes if axes.get_visible()]
    assert sorted(axes.get_title(loc="left") for axes in panels) == sorted(set(MANY) - {"random"})
    for axes in panels:
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_color() for line in dashed] == [NEUTRAL]
        solid = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
        assert [line.get_color() for line in solid] == [COLORS[0]]
    assert len(points(drawing)) == 4 * 13


def test_random_is_grey_and_dashed_and_no_two_arms_differ_by_color_alone(few_drawn):
    (axes,) = few_drawn["accuracy-demo_mmlu"].figure.axes
    named = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert (named["random"].get_color(), named["random"].get_linestyle()) == (NEUTRAL, "--")
    looks = [(line.get_marker(), line.get_linestyle()) for line in named.values()]
    assert len(set(looks)) == len(looks)


def test_what_is_significant_is_solid_and_all_else_hollow(few, few_drawn):
    svg = ElementTree.fromstring(few_drawn["differences-demo_mmlu"].svg())
    by_title = {}
    for element in svg.iter(f"{SVG}use"):
        title = element.find(f"{SVG}title")
        if title is not None:
            by_title[title.text.split(":")[0]] = element.get("style")
    compared = [f for f in findings_of(few).findings if f.benchmark == "demo_mmlu" and f.comparison]
    assert {f.comparison.p_adjusted < 0.05 for f in compared} == {True, False}
    for f in compared:
        style = by_title[f"{f.arm.name}, {f.budget:,} prompts"]
        assert ("fill-opacity: 0" in style) == (f.comparison.p_adjusted >= 0.05), style


def test_annotations_saved_beyond_what_random_reaches_are_triangles_at_the_end(few, few_drawn):
    compared = [f for f in findings_of(few).findings if f.benchmark == "demo_mmlu" and f.saved]
    above = [f for f in compared if f.saved.side == "above"]
    assert above
    drawing = few_drawn["saved-demo_mmlu"]
    titles = [title for title, _, _ in points(drawing)]
    assert len(titles) == len(compared)
    for f in above:
        title = next(t for t in titles if t.startswith(f"{f.arm.name}, {f.budget:,} prompts"))
        assert f"more than {times(f.saved.range[1])} times" in title
    markers = [(line.get_marker(), x) for axes in drawing.figure.axes for line in axes.lines for x in line.get_xdata()]
    assert {x for marker, x in markers if marker == ">"} == {f.saved.range[1] for f in above}


@pytest.mark.slow
def test_annotations_saved_are_drawn_at_budgets_that_random_lacks_too(few):
    findings = findings_of(few)
    largest = max(f.budget for f in findings.findings)
    lacking = [replace(f, comparison=None) if f.budget == largest else f for f in findings.findings]
    drawings = {d.name: d for d in draw(few, replace(findings, findings=lacking), None)}
    most = max((f for f in lacking if f.saved and f.budget == largest), key=lambda f: f.score.value)
    assert f"with {largest:,}, {most.arm.name}: " in drawings["saved-demo_mmlu"].description


@pytest.mark.slow
def test_one_budget_makes_rows_instead_of_a_curve():
    study = make_study({"random": (0.5,), "longest": (0.4,)}, budgets=(45000,))
    drawings = drawn(study)
    assert len(points(drawings["accuracy-demo_mmlu"])) == 2
    assert "saved-demo_mmlu" in drawings


@pytest.mark.slow
@pytest.mark.parametrize("base", [0.3, 0.02])
def test_a_base_far_below_does_not_flatten_the_curves(few, base):
    far = replace(few, base={name: np.full_like(right, base) for name, right in few.base.items()})
    (axes,) = drawn(far)["accuracy-demo_mmlu"].figure.axes
    assert (axes.get_ylim()[0] < 100 * base) == (base == 0.3)
    assert any(f"{100 * base:.1f} %" in line.get_label() for line in axes.lines)


def gamma_study():
    """Facility location at four widths, and once with another mode; random beside it."""
    study = make_study({"random": (0.5, 0.6), **{f"g{i}": (0.5, 0.6) for i in range(5)}}, budgets=(1000, 3000))
    arms = {
        f"g{i}": Arm(
            f"facility_location kernel.gamma={gamma}", "facility_location", {"kernel.gamma": gamma, "mode": mode}
        )
        for i, (gamma, mode) in enumerate(
            [(0.01, "Exact"), (0.1, "Exact"), (1, "Exact"), (10, "Exact"), (0.1, "Sparse")]
        )
    }
    return replace(study, cells=[replace(cell, arm=arms.get(cell.arm.name, cell.arm)) for cell in study.cells])


def picks_with(similarity):
    """Nothing but similarities."""
    return Picks(1, 10, (), (), (), np.eye(0), None, None, None, None, None, similarity)


def test_arms_that_differ_in_exactly_one_number_make_an_ablation():
    arms = [cell.arm for cell in gamma_study().cells if cell.budget == 1000]
    (found,) = find_ablations(arms)
    assert (found.name, found.setting, found.values) == ("facility_location", "kernel.gamma", (0.01, 0.1, 1, 10))
    assert {arm.parameters["mode"] for arm in found.arms} == {"Exact"}
    assert not find_ablations(
        [Arm("a", "s", {"x": 1, "y": 1}), Arm("b", "s", {"x": 2, "y": 2}), Arm("c", "t", {"x": 3})]
    )


@pytest.mark.slow
def test_degenerate_kernels_are_crossed_out_and_say_why():
    study = gamma_study()
    names = {
        f"facility_location kernel.gamma={g}": s for g, s in ((0.01, 0.0004), (0.1, 0.001), (1, 0.99), (10, 0.995))
    }
    drawing = drawn(study, picks_with(names))["ablation-facility_location-kernel_gamma"]
    crossed = [title for title, _, _ in points(drawing) if "degenerate" in title]
    assert len(crossed) == 2 * 2 * 2  # the outer two of four, at two budgets on two benchmarks
    assert all(("=0.01," in t and "is 0.0004" in t) or ("=10," in t and "is 0.99" in t) for t in crossed), crossed
    plain = drawn(study)["ablation-facility_location-kernel_gamma"]
    assert not [title for title, _, _ in points(plain) if "degenerate" in title]


@pytest.mark.slow
def test_ids_are_unique_and_references_hold_on_a_page_of_several_studies(few_drawn, many_drawn):
    page = "".join(d.svg("one-") for d in few_drawn.values()) + "".join(d.svg("two-") for d in many_drawn.values())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 1000
    referred = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert referred
    assert referred <= set(ids)


@pytest.mark.slow
def test_the_same_findings_give_the_same_bytes(few, few_drawn, tmp_path):
    for name, again in drawn(few).items():
        assert again.svg() == few_drawn[name].svg() == few_drawn[name].svg()
        again.save(tmp_path / "a")
        few_drawn[name].save(tmp_path / "b")
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert written == sorted(f"{name}.{kind}" for name in few_drawn for kind in ("svg", "png"))
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.fixture
def texts_of(monkeypatch):
    """Draws a figure, and returns everything that was written, with where it stands."""
    written, draw_text = [], Text.draw

    @functools.wraps(draw_text)
    def record(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            written.append((text.get_text(), text.get_window_extent(renderer)))
        return draw_text(text, renderer, *args, **kwargs)

    def texts_of(figure):
        written.clear()
        figure.dpi = 200
        FigureCanvasAgg(figure).draw()
        return list(written)

    monkeypatch.setattr(Text, "draw", record)
    return texts_of


@pytest.fixture(scope="module")
def long_drawn():
    """Arms with long names, and budgets that lie close together."""
    budgets = (900, 1000, 30000, 45000)
    named = {f"weighted_facility_location kernel.gamma=0.0{i} mode.epsilon=0.01": RANDOM for i in range(1, 5)}
    return drawn(make_study(named | {"random": RANDOM}, budgets=budgets, benchmarks=("demo_mmlu",)))


@pytest.mark.slow
def test_no_text_leaves_the_canvas_or_touches_another(few_drawn, many_drawn, long_drawn, texts_of):
    one_budget = drawn(make_study({"random": (0.5,), "longest": (0.4,)}, budgets=(45000,)))
    for drawing in [d for drawings in (few_drawn, many_drawn, long_drawn, one_budget) for d in drawings.values()]:
        canvas, boxes = drawing.figure.bbox, texts_of(drawing.figure)
        assert len(boxes) > 5
        for text, box in boxes:
            inside = canvas.x0 <= box.x0 and box.x1 <= canvas.x1 and canvas.y0 <= box.y0 and box.y1 <= canvas.y1
            assert inside, (drawing.name, text)
        for i, (text, box) in enumerate(boxes):
            touched = [other for other, another in boxes[:i] if box.overlaps(another)]
            assert not touched, (drawing.name, text, touched)


def luminance(color):
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def test_colors_can_be_told_from_white_and_from_near_black():
    for color in (*COLORS, NEUTRAL):
        for ground in ("white", "#15171a"):
            light, dark = sorted((luminance(color), luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, (color, ground)


def test_text_and_axes_take_the_color_of_the_page(few_drawn):
    for drawing in few_drawn.values():
        svg = drawing.svg()
        colors = set(re.findall(r"#[0-9a-f]{6}\b", svg))
        assert colors <= {*COLORS, NEUTRAL}, colors
        assert INK not in svg
        root = ElementTree.fromstring(svg)
        assert all("fill: currentColor" in text.get("style") for text in root.iter(f"{SVG}text"))
        assert root.get("role") == "img"
        assert root.get("aria-label") == drawing.description
        assert root.find(f"{SVG}metadata") is None


def test_files_lie_on_white_and_leave_nothing_half_written(few_drawn, tmp_path):
    from PIL import Image

    drawing = few_drawn["accuracy-demo_mmlu"]
    drawing.save(tmp_path)
    first = ElementTree.parse(tmp_path / "accuracy-demo_mmlu.svg").getroot()[0]
    assert (first.tag, first.get("fill")) == (f"{SVG}rect", "white")
    with Image.open(tmp_path / "accuracy-demo_mmlu.png") as image:
        assert image.width == 1000
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    (tmp_path / "blocked").write_text("")
    with pytest.raises(OSError, match="blocked"):
        drawing.save(tmp_path / "blocked")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accuracy-demo_mmlu.png",
        "accuracy-demo_mmlu.svg",
        "blocked",
    ]


@pytest.mark.slow
def test_names_that_are_markup_stay_text():
    name = '<script>&"x $\\frac$ y'
    study = make_study({"random": RANDOM, name: RANDOM}, benchmarks=(name,))
    for drawing in drawn(study).values():
        root = ElementTree.fromstring(drawing.svg())
        assert root.find(f".//{SVG}script") is None
        assert re.fullmatch(r"[\w-]+", drawing.name)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_labels_on_an_axis_keep_their_distance(logarithmic):
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = sorted(rng.choice(np.arange(1, 1000), size=rng.integers(1, 12), replace=False).tolist())
        kept = apart(values, 0.1, logarithmic)
        assert set(kept) <= set(values)
        assert (kept[0], kept[-1]) == (values[0], values[-1])
        place = np.log(kept) if logarithmic else np.asarray(kept, dtype=float)
        assert len(kept) < 3 or (np.diff(place) >= 0.1 * np.ptp(place) - 1e-9).all()


@pytest.mark.slow
def test_what_several_processes_draw_is_what_one_draws(tmp_path):
    study = make_study({name: FEW[name] for name in ("random", "min_margin")}, BUDGETS, benchmarks=("demo_mmlu",))
    findings = findings_of(study)
    expected, sent = draw(study, findings, None), draw_into(tmp_path, study, findings, None)
    assert [d.name for d in sent] == [d.name for d in expected]
    for one, other in zip(expected, sent, strict=True):
        assert (one.title, one.description, one.svg("s1-")) == (other.title, other.description, other.svg("s1-"))
        one.save(tmp_path / "one")
        for file in (f"{one.name}.svg", f"{one.name}.png"):
            assert (tmp_path / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


@pytest.mark.slow
def test_a_likelihood_is_nowhere_called_an_accuracy():
    study = make_study(MANY, BUDGETS, benchmarks=("validation_likelihood",), num_questions=50)
    for few in (study, replace(study, cells=study.cells[:8])):
        for drawing in draw(few, findings_of(few), None):
            said = drawing.svg().replace(drawing.name, "")
            assert "accuracy" not in f"{drawing.title} {drawing.description} {said}".lower()
