"""The code is layered as docs/development.md draws it, stays small, and its examples run."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import Url, database
from queue_insights import connect, demo, show
from queue_insights.database import READ_URL
from queue_insights.queue import Queue
from queue_insights.reads import READS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "queue_insights"
README, MAP, READS_PAGE = (
    (ROOT / page).read_text(encoding="utf-8")
    for page in ("README.md", "docs/development.md", "docs/commands.md")
)
LONGEST = 400  # lines of a module
PACKAGE = "queue_insights"


def dotted(file: Path) -> str:
    """The module's name below the package; of the package itself the package's name."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or PACKAGE


MODULES = {dotted(file): file for file in sorted(SOURCE.rglob("*.py"))}
TREES = {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in MODULES.items()}


def layers() -> list[str]:
    """The modules in the order of the map's table: each row, and within it from the left. What
    stands for a package in it, the imports of its ``__init__``, comes after its parts."""
    table = MAP[MAP.index("| modules | hold |") :].split("\n\n")[0]
    found = []
    for row in table.splitlines()[2:]:
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            package, _, parts = name.rstrip("}").partition("/{")
            found += [f"{package}.{part}" for part in parts.split(",") if parts]
            found.append(package.replace("/", "."))
    return found


def imports(module: str) -> Iterator[str]:
    """The modules of ours that it imports anywhere, in functions and for type checks too."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            both = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if below(name) in MODULES else str(node.module) for name in both]
        else:
            continue
        yield from (below(name) for name in names if name.split(".")[0] == PACKAGE)


def below(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.")


def test_a_module_imports_only_what_the_map_of_the_code_has_before_it() -> None:
    order = layers()
    assert sorted(order) == sorted(MODULES)
    for module in MODULES:
        above = [name for name in imports(module) if order.index(name) >= order.index(module)]
        assert not above, f"{module} imports {above}, which the map has after it"


def test_few_modules_stand_at_the_root_and_none_is_imported_under_another_name() -> None:
    assert len([file for file in MODULES.values() if file.parent == SOURCE]) <= 14
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    aliases = {node.asname for node in nodes if isinstance(node, ast.alias) and node.asname}
    assert aliases == {"np", "pd", "sa", "go"}


def test_no_comment_in_sql_holds_a_parameter() -> None:
    """It would be one of the statement's, too."""
    comments = {
        file.name: re.findall(r"--.*|/\*[^*]*\*/", file.read_text(encoding="utf-8"))
        for file in SOURCE.rglob("*.sql")
    }
    assert len(comments) > 20
    found = {name: re.findall(r"(?<!:):[a-z_]\w*", " ".join(c)) for name, c in comments.items()}
    assert not any(found.values()), found


@pytest.mark.parametrize("read", READS)
def test_queue_and_docs_have_the_options_of_each_read(read: str) -> None:
    table = READS_PAGE[READS_PAGE.index("| command | shows | options |") :].split("\n\n")[0]
    (row,) = re.findall(rf"^\| `{read}\b.*$", table, re.MULTILINE)
    for option in READS[read].options:
        required = option.default is ...
        flag = f"`--{option.name.replace('_', '-')}`".replace("--ids", "--id")
        assert (option.metavar if required else flag) in row
    parameters = dict(inspect.signature(getattr(Queue, read)).parameters)
    del parameters["self"]
    expected = {option.name: option.default for option in READS[read].options}
    if expected.pop("end_to_end", None) is not None:
        assert callable(getattr(Queue, f"{read}_end_to_end"))  # instead
    defaults = {n: ... if p.default is p.empty else p.default for n, p in parameters.items()}
    assert defaults == expected


def test_no_module_is_long() -> None:
    files = (
        file for room in ("src", "tests", "benchmarks") for file in (ROOT / room).rglob("*.py")
    )
    assert [f for f in files if len(f.read_text("utf-8").splitlines()) > LONGEST] == []


HEAVY = {"plotly", "papermill", "nbconvert", "IPython", "matplotlib", "pandas.plotting._core"}
STARTS = {
    "import queue_insights": HEAVY | {"pandas", "sqlalchemy"},
    "from queue_insights import cli": HEAVY | {"pandas", "sqlalchemy"},
    "from queue_insights import forecast": {"sqlalchemy", "psycopg", "queue_insights.database"},
    "from queue_insights import charts": {"papermill", "queue_insights.queue"},
}


@pytest.mark.parametrize("statement", STARTS)
def test_importing_is_light(statement: str) -> None:
    code = f"import sys\n{statement}\nprint(*sorted({STARTS[statement]!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture(scope="module")
def incident(server: Url, templates: dict[str, str]) -> Iterator[str]:
    """The URL of a database with the demo's incident in it."""
    with database(server, templates["a"]) as url:
        demo.seed(url, "a", demo.FEWEST)
        yield url


@pytest.fixture
def connected(incident: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(READ_URL, incident)
    return incident


def test_the_python_in_the_readme_does_what_it_says(connected: str) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (names["run"].row["rows_undone"], names["run"].state) == (names["plan"].rows, "undone")
    assert names["plan"].rows == 50
    assert len(names["backlog"]) == len(names["audit"]) == 7


def examples() -> dict[str, tuple[str, list[doctest.Example]]]:
    """The ``>>>`` examples of each docstring in src, by where they stand, with their module."""
    found = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = f"{module}.{getattr(node, 'name', '')}"
                if here := doctest.DocTestParser().get_examples(ast.get_docstring(node) or ""):
                    found[name] = (module, here)
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("where", EXAMPLES)
def test_an_example_in_a_docstring_runs_and_says_what_it_shows(where: str, connected: str) -> None:
    module, here = EXAMPLES[where]
    prefix = "" if module == PACKAGE else f"{PACKAGE}."
    now = datetime.now(UTC)
    arrived = pd.Series(pd.date_range(now - timedelta(days=60), now, freq="h", unit="us"))
    events = pd.DataFrame({"arrived_at": arrived, "completed_at": arrived + timedelta(minutes=30)})
    names = {"queue": connect(), "show": show, "events": events, "now": now}  # for granted
    everything = vars(importlib.import_module(f"{prefix}{module}")) | names
    for example in here:
        with redirect_stdout(StringIO()) as printed:
            exec(compile(example.source, f"<{where}>", "single"), everything)
        if example.want and not example.options.get(doctest.SKIP):
            assert printed.getvalue() == example.want
