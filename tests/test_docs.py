"""What the pages for people promise: the README is short, all is documented, and it is so."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from papermill.cli import papermill

from conftest import Url, database
from operating import command
from queue_insights import demo
from queue_insights.cli import main
from queue_insights.pipeline import Pipeline, load
from reporting import COMMANDS, ROOT

README = ROOT / "README.md"
PAGES = {
    str(page.relative_to(ROOT)): page.read_text("utf-8")
    for page in (README, *sorted((ROOT / "docs").glob("*.md")))
}
EVERYTHING = "\n".join(PAGES.values())
LONGEST = 200  # lines of the README: what a newcomer reads in ten minutes
PICTURE = 150_000  # bytes


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of *text* in this language, which may be none."""
    every = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", text)
    return [block for name, block in every if name == language]


def commands(program: str, text: str = EVERYTHING) -> list[str]:
    """The lines of fenced blocks of *text* that call *program*, without their comments."""
    lines = "".join(blocks(text, "")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.startswith(f"{program} ")]


def parse(command: click.Command, arguments: list[str], parent: click.Context | None) -> None:
    context = command.make_context(command.name, arguments, parent=parent)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        parse(found, rest, context)


def anchors(page: str) -> set[str]:
    """What a link to a heading of *page* ends in, as code hosts make it."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_links_every_page_and_links_lead_to_something() -> None:
    readme = PAGES["README.md"]
    assert len(readme.splitlines()) <= LONGEST
    (picture,) = re.findall(r"!\[[^]]{20,}\]\((.*?)\)", readme)
    assert (ROOT / picture).stat().st_size <= PICTURE
    assert [page for page in PAGES if f"({page}" not in readme] == ["README.md"]
    for page, text in PAGES.items():
        for link in re.findall(r"\]\((?!\w+://)(.*?)\)", text):
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), (page, link)
            assert not anchor or anchor in anchors(target.read_text("utf-8")), (page, link)


def test_prose_says_missing_where_a_column_is_named_hidden() -> None:
    prose = re.sub(r"(?ms)^```.*?^```$|`[^`]*`", "", EVERYTHING)
    assert "hidden" not in prose.lower()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_is_documented_with_its_options(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert re.search(r"Usage: .*\n\n  \S+", result.stdout)
    text = PAGES["docs/commands.md"]
    code = [set(re.split(r"[\s|]+", span)) for span in re.findall(r"`([^`\n]+)`", text)]
    code += [set(line.split()) for line in text.splitlines() if line.startswith("queue-insights ")]
    assert any(set(path) <= words for words in code), f"`{' '.join(path)}` is not in commands.md"
    options = [o for p in COMMANDS[path].params if isinstance(p, click.Option) for o in p.opts]
    undocumented = [o for o in options if not re.search(rf"(?<![\w-]){o}(?![\w-])", text)]
    assert not undocumented, f"options of `{' '.join(path)}` are not documented: {undocumented}"


def test_the_commands_of_the_readme_work_on_the_demo(
    server: Url, templates: dict[str, str]
) -> None:
    """But for those that show a page or JupyterLab, which have tests of their own."""
    found = commands("queue-insights", PAGES["README.md"])
    lines = [line for line in found if not line.startswith("queue-insights report ")]
    lines.sort(key=lambda line: line.split()[1] in ("runs", "undo"))  # of what the others did
    assert len(lines) > 15
    with database(server, templates["a"]) as url:
        demo.seed(url)
        for line in lines:
            done = command(url, *shlex.split(line)[1:])
            assert (line, done.exit_code) == (line, 0), done.stderr
            assert "(none)" not in done.stdout, line


def test_every_command_in_the_docs_is_one() -> None:
    programs = {"queue-insights": main, "papermill": papermill}
    for line in [line for program in programs for line in commands(program)]:
        program, *arguments = shlex.split(line.split(" # ")[0])
        parse(programs[program], arguments, None)


def test_make_targets_and_files_that_the_docs_name_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", EVERYTHING, re.MULTILINE)
    assert set(named) <= set(targets)
    folders = "benchmarks|docs|examples|notebooks|params|src|tests"
    files = set(re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w", EVERYTHING))
    assert files >= {"notebooks/backlog_report.ipynb", "params/backlog_report.yaml"}
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []


def test_a_pipeline_file_in_the_docs_is_one_and_every_key_is_documented(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    for text in blocks(EVERYTHING, "yaml"):
        if text.startswith("name:"):
            file.write_text(text, "utf-8")
            assert load(file).name
    keys = [*Pipeline.model_fields]
    for model in ("tracks", "tasks", "dashboards"):
        keys += Pipeline.model_fields[model].annotation.model_fields
    assert [key for key in keys if f"`{key}`" not in PAGES["docs/pipelines.md"]] == []
