"""Report pages in a real browser, without a network, at the sizes people have."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import JavascriptException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from conftest import Url, database
from queue_insights import demo
from reporting import (
    TITLES,
    chromium,
    complaints,
    incident,
    queue_insights,
    readable,
    requests,
    write,
)

pytestmark = pytest.mark.proof
TESTS = Path(__file__).parent
DESKTOP, PHONE = (1280, 900), (390, 844)
HIDDEN = -3  # where the table of hidden tracks is
MARKUP = "<script>document.title='owned'</script> & <b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium("--host-resolver-rules=MAP * ~NOTFOUND") as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(
    browser: Chrome,
    server: Url,
    templates: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with runs of the backlog report, of throughput_eta on a queue with sixty days of
    history, and of a notebook titled with markup whose table is cut."""
    output = tmp_path_factory.mktemp("reports")
    tracks = "pd.DataFrame({'track': [f'Song {i}' for i in range(5000)]})"
    hostile = write(
        output,
        f"import pandas as pd; from queue_insights import show; print({MARKUP!r})",
        f"pd.DataFrame({{'title': [{MARKUP!r}] * 3}})",
        f"show.table('long', show.save('long', [{tracks}] * 2, limit=100), 'Tracks')",
        title=f"Title {MARKUP}",
    )
    with incident(server, templates) as backlog, database(server) as history:
        demo.seed(history, "b", 2000)
        runs = {"backlog_report": (backlog, 3), "throughput_eta": (history, 0), hostile: (None, 0)}
        for name, (url, code) in runs.items():
            done = queue_insights("report", name, "--output", output, url=url)
            assert done.returncode == code, done.stderr
    return output


def page_of(reports: Path, name: str) -> Path:
    (file,) = reports.glob(f"{name}-*/report.html")
    return file


@pytest.fixture
def page(browser: Chrome, reports: Path) -> Chrome:
    return opened(browser, page_of(reports, "backlog_report"), DESKTOP)


def emulate(browser: Chrome, size: tuple[int, int], **media: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [], **media})
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def opened(browser: Chrome, file: Path, size: tuple[int, int]) -> Chrome:
    emulate(browser, size)
    requests(browser), complaints(browser)
    browser.get(file.as_uri())
    return browser


def found(browser: Chrome | WebElement, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def texts(browser: Chrome, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def asked(browser: Chrome) -> set[str]:
    return {address for address in requests(browser) if not address.startswith("data:")}


def column(browser: Chrome, table: str, position: int) -> list[str]:
    cells = f"{table} tbody tr:not([hidden]) td:nth-child({position})"
    return [cell.text for cell in found(browser, cells)]


def named(browser: Chrome, position: int) -> str:
    """Give the table at *position* an id, and return its selector."""
    script = "[...document.querySelectorAll('table')].at(arguments[0]).id = 'looked-at'"
    browser.execute_script(script, position)
    return "#looked-at"


DRAWN = {
    "backlog_report": [".barlayer .point path"] * 2,
    "throughput_eta": [
        ".barlayer .point path",  # time to clear
        *[".scatterlayer .fills path.js-fill"] * 3,  # fan, cumulative flow, depth
        ".heatmaplayer image",  # throughput by hour
        ".scatterlayer .point",  # calibration
    ],
}
FITS = """return [...document.querySelectorAll('.js-plotly-plot')].every(
    e => Math.abs(e.querySelector('.main-svg').clientWidth - e.clientWidth) < 2)"""
ENDS = """return ['.main-svg', 'figcaption'].map(
    s => arguments[0].querySelector(s).getBoundingClientRect())"""
# Of such labels, those that cover the next of the same chart.
OVERLAPPING = """return [...document.querySelectorAll('.plot')].flatMap(chart => {
      const labels = [...chart.querySelectorAll(arguments[0])];
      const boxes = labels.map(label => label.getBoundingClientRect());
      return labels.filter((label, i) => boxes.some((box, j) => j > i
        && box.left < boxes[i].right - 1 && boxes[i].left < box.right - 1
        && box.top < boxes[i].bottom - 1 && boxes[i].top < box.bottom - 1));
    }).map(label => label.textContent)"""
AXES = """return [...document.querySelectorAll('.plot [class$=axislayer-above]')].map(
    axis => [...axis.querySelectorAll('text')].map(label => label.textContent))"""


@pytest.mark.parametrize("name", DRAWN)
def test_every_chart_is_drawn_and_fits_and_follows_the_window(
    browser: Chrome, reports: Path, name: str
) -> None:
    file = page_of(reports, name)
    opened(browser, file, DESKTOP)
    emulate(browser, PHONE)
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script(FITS))
    for size in (DESKTOP, PHONE):
        opened(browser, file, size)
        WebDriverWait(browser, 10).until(lambda _: browser.execute_script(FITS))
        for chart, selector in zip(found(browser, "figure.chart"), DRAWN[name], strict=True):
            assert found(chart, selector)
            assert chart.size["width"] <= size[0]
            drawing, caption = browser.execute_script(ENDS, chart)
            assert drawing["bottom"] <= caption["top"] + 1  # it does not cover what follows it
        for labels in (".ytick text", ".xtick text"):
            assert browser.execute_script(OVERLAPPING, labels) == []
        axes = browser.execute_script(AXES)
        numbers = [axis for axis in axes if all(re.fullmatch(r"[\d.,]+[kM%]?", n) for n in axis)]
        assert [axis for axis in numbers if len(set(axis)) < len(axis)] == []
        assert max(map(len, numbers)) > 2
    assert (complaints(browser), asked(browser)) == ([], {file.as_uri()})


def test_titles_are_text(page: Chrome, reports: Path) -> None:
    assert set(TITLES) <= set(texts(page, "td"))
    assert page.title.startswith("Backlog report")
    assert not found(page, "td *")
    opened(page, page_of(reports, "mine"), DESKTOP)
    assert texts(page, "h1, pre") == [f"Title {MARKUP}", f"{MARKUP}\n"]
    assert texts(page, "tbody td")[:3] == [MARKUP[:46] + "..."] * 3  # pandas cuts at 50
    assert page.title.startswith(f"Title {MARKUP}")
    opened(page, reports / "index.html", PHONE)
    assert f"Title {MARKUP}" in texts(page, "td:first-child")
    assert page.title == "Queue reports"


def test_a_heading_sorts_by_text_or_size_and_says_so(page: Chrome) -> None:
    title, button = named(page, HIDDEN) + " th:nth-child(2)", " [role=button]"
    for order in ("ascending", "descending"):
        found(page, title + button)[0].send_keys(Keys.ENTER)
        assert found(page, title)[0].get_attribute("aria-sort") == order
        songs = [text for text in column(page, "#looked-at", 2) if text.startswith("Song")]
        assert songs == sorted(songs, reverse=order == "descending")
    page.execute_script("document.querySelector('#looked-at').removeAttribute('id')")
    headers = found(page, named(page, 3) + " thead th")  # of steps
    assert [headers[i].text for i in (2, -1)] == ["total", "oldest waiting"]
    found(headers[2], button)[0].click()
    totals = [int(text) for text in column(page, "#looked-at", 3)]
    assert totals == sorted(totals)
    assert len(set(totals)) > 2
    found(headers[-1], button)[0].click()
    assert column(page, "#looked-at", len(headers))[-1] == "-"  # nothing to compare comes last


def test_searching_leaves_the_rows_that_hold_every_word_and_says_what_it_searched(
    page: Chrome, reports: Path
) -> None:
    found(page, "input[type=search]")[-1].send_keys("ALIGN karaoke")
    assert column(page, named(page, HIDDEN), 2) == ["🎤 Karaoke 🎶"]
    assert found(page, ".search output")[-1].text.startswith("1 of ")
    file = page_of(reports, "mine")
    opened(page, file, DESKTOP)
    assert texts(page, "caption") == ["Tracks: the first 100 of 10,000"]
    assert texts(page, ".search") == ["Search in the first 100 of 10,000"]
    found(page, ".search input")[0].send_keys("song 99")
    assert column(page, named(page, -1), 1) == ["Song 99"]
    assert texts(page, ".search") == ["Search 1 found in the first 100 of 10,000"]
    (link,) = found(page, "main a")
    assert link.text == "All 10,000 rows"
    assert link.get_attribute("href") == (file.parent / "tables" / "long.csv").as_uri()


@pytest.mark.parametrize("name", DRAWN)
def test_without_javascript_and_on_paper_nothing_is_lost(
    browser: Chrome, reports: Path, name: str
) -> None:
    paper = (700, 1000)  # A4 less its margins, in CSS pixels
    opened(browser, page_of(reports, name), paper)
    emulate(browser, paper, media="print")
    outside = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"
    )
    assert outside == []
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, page_of(reports, name), PHONE)
        tables = found(browser, "figure noscript table")
        assert len(tables) == len(DRAWN[name])
        assert all(table.is_displayed() and found(table, "td.words") for table in tables)
        assert found(browser, "figure noscript td.bar i")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, which finds what people cannot perceive or operate."""
    file = TESTS / "node_modules" / "axe-core" / "axe.min.js"
    if not file.exists():
        if shutil.which("npm") is None and os.environ.get("CI") != "true":
            pytest.skip("no npm (apt-get install npm)")
        install = ("npm", "ci", "--no-audit", "--no-fund", "--prefix", TESTS)
        subprocess.run(install, check=True, capture_output=True, timeout=120)
    return file.read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_or_mail_is_hard_to_read_too_wide_or_asks_for_anything(
    browser: Chrome, reports: Path, axe: str, scheme: str
) -> None:
    files = [*reports.glob("*/report.html"), *reports.glob("*/mail.html"), reports / "index.html"]
    assert len(files) == 7
    for file in files:
        for size in (DESKTOP, PHONE):
            opened(browser, file, size)
            emulate(browser, size, features=[{"name": "prefers-color-scheme", "value": scheme}])
            width = browser.execute_script("return document.documentElement.scrollWidth")
            assert (width <= size[0], asked(browser), complaints(browser)) == (
                *(True, {file.as_uri()}, []),
            )
            if found(browser, ".plot"):  # there is no label for a moment: it is drawn again
                waiting = WebDriverWait(browser, 10, ignored_exceptions=[JavascriptException])
                waiting.until(lambda b: readable(b, ".plot .ytick text", "fill", "body"))
            browser.execute_script(axe)
            amiss = browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
            assert [(each["id"], each["nodes"][0]["html"][:200]) for each in amiss] == [], file
