"""``queue-insights lab``: JupyterLab itself, driven in a browser, on the shipped notebook."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from conftest import Url
from processes import until
from queue_insights.report import lab
from reporting import MISSING, ROOT, chromium, incident, queue_insights, readable, requests

PATIENCE = 120
# Twelve tracks at separated whose task has failed, three of them in the same way.
FAILED = """
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT 'failed ' || i, 'Song ' || i, '[]', 'separated' FROM generate_series(1, 12) i;
    INSERT INTO audio_tasks (spotify_track_id, task_type, status, attempts, error_message)
    SELECT 'failed ' || i, 'segment', 'failed', 3,
           CASE WHEN i % 4 = 0 THEN 'timeout after ' || i || ' s' ELSE 'no vocals found' END
    FROM generate_series(1, 12) i;
"""


@contextmanager
def running_lab(url: str, folder: Path, theme: str) -> Iterator[str]:
    """The address of a JupyterLab on *folder*, stopped afterwards as ``kill`` would."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "queue_insights", "lab", "--", "--no-browser", f"--port={port}"),
        *("--IdentityProvider.token=test", f"--ServerApp.root_dir={folder}"),
    ]
    # Nothing of the user's, such as tabs of the last time; and all cells drawn, seen or not.
    home = folder / ".jupyter"
    for file, text in {
        "notebook-extension/tracker": '{"windowingMode": "none"}',
        "apputils-extension/themes": f'{{"theme": "JupyterLab {theme}"}}',
    }.items():
        setting = home / "settings" / "@jupyterlab" / f"{file}.jupyterlab-settings"
        setting.parent.mkdir(parents=True)
        setting.write_text(text)
    environment = os.environ | {
        "QUEUE_INSIGHTS_URL": url,
        "JUPYTER_CONFIG_DIR": str(home),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: _answers(address, server), "JupyterLab to answer", PATIENCE)
        yield f"{address}/?token=test"
    finally:
        server.terminate()
        assert server.wait(30) == 0


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "JupyterLab has ended"
    try:
        with urllib.request.urlopen(f"{address}/api?token=test", timeout=5):
            return True
    except OSError:
        return False


def found(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


@contextmanager
def opened(
    server: Url, templates: dict[str, str], folder: Path, name: str, theme: str = "Light"
) -> Iterator[tuple[Chrome, WebDriverWait[Chrome]]]:
    """A notebook on the incident in JupyterLab, which has run all its cells and asks nobody."""
    shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder)
    with (
        chromium("--window-size=1400,6000") as browser,
        incident(server, templates) as url,
        running_lab(url, folder, theme) as address,
    ):
        with psycopg.connect(url) as connection:
            connection.execute(FAILED)
        at = address if name == "explore" else address.replace("/?", f"/lab/tree/{name}.ipynb?")
        browser.get(at)
        run_all(browser)
        assert f"{name}.ipynb" in browser.current_url
        yield browser, WebDriverWait(browser, PATIENCE)
        own = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
        assert not [asked for asked in requests(browser) if not asked.startswith(own)]


def run_all(browser: Chrome) -> None:
    """Menu Run, Run All Cells; returns once no cell is running or queued."""
    waiting = WebDriverWait(browser, PATIENCE)
    waiting.until(lambda b: found(b, ".jp-Notebook .jp-CodeCell"))
    # Asked to run before it has one, JupyterLab asks back which kernel.
    kernel = "return document.querySelector('.jp-KernelName')?.textContent.includes('Python')"
    waiting.until(lambda b: b.execute_script(kernel))
    waiting.until(lambda b: found(b, ".jp-Notebook-ExecutionIndicator[data-status='idle']"))
    menu = "//div[contains(@class,'lm-MenuBar-itemLabel') and text()='Run']"
    waiting.until(lambda b: b.find_elements(By.XPATH, menu))[0].click()
    waiting.until(lambda b: found(b, "li[data-command='runmenu:run-all']"))[0].click()
    prompts = "return [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
    numbered = f"{prompts}.every(prompt => /\\[\\d+\\]/.test(prompt.textContent))"
    waiting.until(lambda b: b.execute_script(numbered))


@pytest.mark.proof
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_explore_runs_top_to_bottom_and_shows_its_charts(
    server: Url, templates: dict[str, str], tmp_path: Path, theme: str
) -> None:
    with opened(server, templates, tmp_path, "explore", theme) as (browser, waiting):
        waiting.until(lambda b: len({e.id for e in found(b, ".js-plotly-plot")}) >= 2)
        waiting.until(lambda b: found(b, ".js-plotly-plot .bars .point path"))
        assert f"{sum(MISSING.values())} tracks wait" in browser.page_source
        assert not found(browser, ".Toastify__toast")  # such as news
        captions = [e.text for e in found(browser, ".jp-OutputArea .said")]
        assert "Tracks at each step by state" in captions
        fits = "[...document.querySelectorAll('.records')].every(e => e.clientWidth <= innerWidth)"
        assert browser.execute_script(f"return {fits}")
        for text in ((".js-plotly-plot .ytick text", "fill"), (".records td", "color")):
            assert readable(browser, *text, ".jp-Notebook")
        assert not found(browser, "[data-mime-type$='.stderr'], [data-mime-type$='.error']")
        assert browser.execute_script("return document.title") != "owned"


def test_the_notebooks_are_copied_once_and_found_by_papermill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / lab.WORKPLACE / "explore.ipynb"
    shipped = ROOT / "notebooks" / "explore.ipynb"
    for text in (shipped.read_text("utf-8"), "mine"):
        assert lab.workplace() == mine.parent
        assert mine.read_text("utf-8") == text
        mine.write_text("mine")
    done = queue_insights("lab", "--notebooks")
    assert Path(done.stdout.strip()) == ROOT / "notebooks"


@pytest.mark.proof
def test_rows_selected_in_a_table_are_what_the_next_cell_plans(
    server: Url, templates: dict[str, str], tmp_path: Path
) -> None:
    with opened(server, templates, tmp_path, "act") as (browser, waiting):
        listed = ".jp-OutputArea .dt-container tbody tr"
        waiting.until(lambda b: len(found(b, listed)) == 10)
        found(browser, ".dt-search input")[0].send_keys("timeout")
        waiting.until(lambda b: len(found(b, listed)) == 3)
        for row in found(browser, f"{listed} td:first-child")[1:]:
            ActionChains(browser).key_down(Keys.CONTROL).click(row).key_up(Keys.CONTROL).perform()
        waiting.until(lambda b: len(found(b, f"{listed}.selected")) == 2)
        cell = "//div[contains(@class,'jp-CodeCell')][.//*[contains(text(),'left_out')]]"
        editor = browser.find_element(By.XPATH, f"{cell}//div[contains(@class,'cm-content')]")
        editor.click()
        editor.send_keys(Keys.CONTROL, Keys.ENTER)
        waiting.until(lambda b: b.find_elements(By.XPATH, f"{cell}//caption[.='2 rows']"))
