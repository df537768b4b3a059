"""The command line: thin commands over the library, which is imported only when one runs."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from queue_insights.errors import QueueInsightsError

Command = TypeVar("Command", bound=Callable[..., Any])


class _Failure(click.ClickException):
    """A QueueInsightsError on its way to stderr and to an exit code."""

    def __init__(self, error: QueueInsightsError):
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"queue-insights: {line}", file=file or sys.stderr)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except QueueInsightsError as error:
            raise _Failure(error) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="queue-insights")
def main() -> None:
    """See, explain and repair a Postgres-backed work queue.

    The database is QUEUE_INSIGHTS_URL (reads) and QUEUE_INSIGHTS_WRITE_URL (actions), or libpq's
    PG* variables; with none of these, an embedded demo database. No command ever prompts.

    Exit codes: 0 fine, 1 failed, 2 wrong use or bad input, 3 a threshold is breached.
    """


pipeline_option = click.option(
    "--pipeline",
    metavar="FILE",
    default="karaoke",
    show_default=True,
    help="Pipeline file, or the name of a shipped one.",
)
task_option = click.option("--task", metavar="TASK", help="Only this task.")
limit_option = click.option("--limit", type=click.IntRange(min=0), help="At most so many rows.")


def _connect(pipeline: str) -> Any:
    import queue_insights

    return queue_insights.connect(pipeline)


def _read(*options: Callable[[Command], Command]) -> Callable[[Callable[..., None]], None]:
    """Make a command of the Queue method and the query that have the function's name."""

    def decorate(function: Callable[..., None]) -> None:
        name = function.__name__

        def command(format: str, pipeline: str, sql: bool, **arguments: Any) -> None:
            from queue_insights import formats, queries

            queue = _connect(pipeline)
            if sql:
                query = getattr(queries, name)(queue.schema, **arguments)
                click.echo(f"{queries.compile_sql(query)};")
                return
            with queue.snapshot() as moment:
                frame = getattr(queue, name)(**arguments)
            _note_lag(moment.replay_lag_seconds)
            click.echo(formats.FORMATS[format](frame).removesuffix("\n"))

        command.__doc__ = function.__doc__
        shared = (
            click.option(
                "--format",
                type=click.Choice(["table", "json", "csv"]),
                default="table",
                show_default=True,
            ),
            pipeline_option,
            click.option("--sql", is_flag=True, help="Print the query instead of running it."),
        )
        for option in reversed((*options, *shared)):
            command = option(command)
        main.command(name)(command)

    return decorate


def _note_lag(seconds: float | None) -> None:
    if seconds is not None:
        click.echo(f"queue-insights: read from a standby, {seconds:.1f} s behind", err=True)


@_read()
def backlog() -> None:
    """How much work waits at each step, by state."""


@_read(click.option("--sources", is_flag=True, help="Also ask each dashboard source (slow)."))
def audit() -> None:
    """What dashboards can see of the backlog: visible, hidden or overstated."""


@_read(task_option, limit_option)
def missing() -> None:
    """Tracks that wait and have no task row, the longest waiting first."""


@_read(task_option, click.option("--limit", type=click.IntRange(min=0), default=50))
def upcoming() -> None:
    """Tracks that workers would select next."""


@_read(click.option("--state", metavar="STATE"), task_option, limit_option)
def tasks() -> None:
    """Tracks at a step with their task rows, in one state or any."""


@_read(task_option, limit_option)
def orphans() -> None:
    """Pending and failed rows whose track has moved on."""


@main.command()
@click.argument("name")
@click.option("-f", "--file", metavar="FILE", help="Parameters as YAML; -p goes over them.")
@click.option("-p", "--parameter", "given", metavar="KEY VALUE", nargs=2, multiple=True)
@click.option("--output", metavar="DIR", default="reports", show_default=True)
@click.option("--pipeline", metavar="FILE", help="Pipeline file, or the name of a shipped one.")
def report(
    name: str, file: str | None, given: tuple[tuple[str, str], ...], output: str, pipeline: str
) -> None:
    """Run the notebook NAME into a folder below --output: page, summary, tables.

    NAME is a shipped notebook (backlog_report) or the path of one. The last line of the output is
    the path of the page.
    """
    from queue_insights import report as reports

    run = reports.run(name, file, given, output, pipeline, progress=sys.stderr.isatty())
    click.echo(run.summary["verdict"] or f"{name}: done")
    click.echo(run.page)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks; ARGUMENTS after -- go to it.

    An installed package copies its notebooks to ./queue-insights-notebooks, unless that exists.
    """
    from queue_insights import lab as laboratory

    laboratory.start(arguments)
