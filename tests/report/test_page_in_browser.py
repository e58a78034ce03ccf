"""The page in a real Chromium: it fits, sorts, filters and tells values by mouse and by keyboard, in light and dark.

`ALIQUOT_SCREENSHOTS=folder` keeps what the browser shows, to be looked at.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from page_sample import ORIGIN, make_report

from aliquot.report.page.write import write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt install chromium)")
WIDTHS = {"phone": 360, "desk": 1280}
RESULTS = "table:has(caption:has-text('Accuracy after finetuning'))"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from aliquot.report.figures.study import draw

    path = tmp_path_factory.mktemp("page") / "index.html"
    report = make_report()
    write_page(path, [replace(report, pictures=draw(report.study, report.findings, None))], ORIGIN)
    return path.as_uri()


@pytest.fixture
def open_page(browser, address):
    """Open the page; whatever it asks of a network or says on the console fails the test at its end."""
    said, pages = [], []

    def open_page(width=1280, scheme="light", **options):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not said


def column(page, title, table=RESULTS):
    """Return the texts of the rows that are shown, below one heading."""
    heads = [text.strip() for text in page.locator(f"{table} thead th").all_text_contents()]
    cells = page.locator(f"{table} tbody tr:not([hidden]) > :nth-child({heads.index(title) + 1})")
    return [text.strip() for text in cells.all_text_contents()]


def heading(page, title):
    return page.locator(f"{RESULTS} thead th").filter(has_text=title)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_the_page_is_accessible_and_never_wider_than_the_screen(open_page, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(width, scheme)
    assert set(column(page, "verdict")) == {"better", "worse", "unclear", "-"}
    for details in page.locator("details").all():  # what is folded away is not looked at
        details.evaluate("element => element.open = true")
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert not found.response["violations"], found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    shot = page.screenshot(full_page=True)
    assert len(set(shot)) == 256 and len(shot) > 50_000  # not blank
    if folder := os.environ.get("ALIQUOT_SCREENSHOTS"):
        Path(folder, f"page-{width}-{scheme}.png").write_bytes(shot)


@pytest.mark.slow
def test_dark_mode_turns_paper_and_ink_around(open_page):
    def brightness(page, what):
        rgb = page.evaluate(f"getComputedStyle(document.body).{what}.match(/\\d+/g).map(Number)")
        return sum(rgb[:3]) / 3

    light, dark = open_page(scheme="light"), open_page(scheme="dark")
    assert brightness(light, "backgroundColor") > 230 > 60 > brightness(light, "color")
    assert brightness(dark, "backgroundColor") < 40 < 200 < brightness(dark, "color")
    ink = "getComputedStyle(document.querySelector('.drawing svg')).color"
    assert light.evaluate(ink) != dark.evaluate(ink)


@pytest.mark.slow
def test_clicking_a_heading_sorts_by_value(open_page):
    page = open_page()
    before = [int(text.replace(",", "")) for text in column(page, "annotations")]
    assert before != sorted(before)
    for direction, reverse in (("ascending", False), ("descending", True)):
        heading(page, "annotations").first.locator("button").click()
        assert heading(page, "annotations").first.get_attribute("aria-sort") == direction
        after = [int(text.replace(",", "")) for text in column(page, "annotations")]
        assert after == sorted(before, reverse=reverse)  # 10,000 lies behind 3,000: numbers, not letters
        assert page.locator(f"{RESULTS} th[aria-sort]").count() == 1


@pytest.mark.slow
def test_the_keyboard_sorts_too_and_missing_values_come_last(open_page):
    page = open_page()
    for key, reverse in (("Enter", False), ("Space", True)):
        heading(page, "against random").locator("button").focus()
        page.keyboard.press(key)
        texts = [text.split()[0].replace("\N{MINUS SIGN}", "-") for text in column(page, "against random, points")]
        numbers = [float(text) for text in texts if text != "-"]
        assert numbers == sorted(numbers, reverse=reverse)
        assert texts[len(numbers) :] == ["-"] * 6  # random itself


@pytest.mark.slow
def test_filters_keep_the_rows_of_a_benchmark_and_a_budget(open_page):
    page = open_page()
    bar = page.locator(".filters").first
    bar.get_by_label("benchmark").select_option("demo_bbh")
    bar.get_by_label("annotations").select_option("3,000")
    assert set(column(page, "benchmark")) == {"demo_bbh"} and set(column(page, "annotations")) == {"3,000"}
    assert len(column(page, "strategy")) == 3
    assert bar.locator("output").text_content() == "3 of 18 rows"


@pytest.mark.slow
def test_values_show_when_pointed_at_and_when_reached_by_keyboard(open_page):
    page = open_page()
    tip = page.locator("#tip")
    assert not tip.is_visible()
    mark = page.locator(".drawing [data-tip]").first
    mark.hover()
    assert tip.text_content() == mark.get_attribute("data-tip")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.locator(".drawing").first.focus()
    said = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        said.append(tip.text_content())
    assert len(set(said)) == 3
    cell = page.locator(f"{RESULTS} tbody tr [data-tip]").first
    cell.focus()
    page.keyboard.press("ArrowDown")
    below = page.locator(f"{RESULTS} tbody tr").nth(1).locator("[data-tip]").first
    assert tip.is_visible() and tip.text_content() == below.get_attribute("data-tip")


@pytest.mark.slow
def test_a_finger_keeps_a_value_shown_until_it_taps_elsewhere(open_page):
    page = open_page(360, has_touch=True)
    tip = page.locator("#tip")
    mark = page.locator(".drawing [data-tip]").first
    mark.tap()
    page.wait_for_timeout(400)
    assert tip.is_visible() and tip.text_content() == mark.get_attribute("data-tip")
    page.locator("h3").first.tap()
    assert not tip.is_visible()


@pytest.mark.slow
def test_tab_stops_once_a_figure_and_once_a_table_besides_its_headings(open_page):
    page = open_page()
    stops = "[...document.querySelectorAll('tbody')].map(b => b.querySelectorAll('[tabindex=\"0\"]').length)"
    assert max(page.evaluate(stops)) == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.slow
def test_commands_can_be_copied(open_page):
    page = open_page()
    page.locator(".command button").first.click()
    copied = page.evaluate("getSelection().toString()") or page.locator(".command button").first.text_content()
    assert copied in (ORIGIN.commands[0], "Copied")


@pytest.mark.slow
def test_without_javascript_the_page_is_plain_and_whole(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator(f"{RESULTS} tbody tr").count() == 18
    assert page.locator("button, select").count() == 0
    assert not page.locator("#tip").is_visible() and not page.locator(".hint").first.is_visible()


@pytest.mark.slow
def test_paper_shows_whole_tables_in_black_on_white(open_page):
    page = open_page(scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".scroll").first.evaluate("element => getComputedStyle(element).overflow") == "visible"
    assert not page.locator("nav").is_visible() and not page.locator(".filters").first.is_visible()
