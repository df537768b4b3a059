"""The command line: thin commands over the library, which is imported only when one runs."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.core import ParameterSource

from queue_insights import cli_actions, cli_trigger
from queue_insights.cli_common import (
    command,
    connect,
    format_option,
    limit_option,
    note,
    pipeline_option,
    program,
    show,
    sql_option,
    task_option,
)
from queue_insights.errors import InputError, QueueInsightsError


class _Group(click.Group):
    """Says on stderr what a QueueInsightsError says, and exits with its code."""

    def invoke(self, ctx: click.Context) -> Any:
        failure: QueueInsightsError
        try:
            return super().invoke(ctx)
        except QueueInsightsError as error:
            failure = error
        except UnicodeEncodeError as error:  # such as an argument that was not in UTF-8
            what = repr(error.object[error.start : error.end])
            text = f"{what} is no text in {error.encoding}: give it in the terminal's encoding"
            failure = InputError(text)
        for line in str(failure).splitlines():
            note(line)
        ctx.exit(failure.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="queue-insights")
def main() -> None:
    """See, explain and repair a Postgres-backed work queue.

    The database is QUEUE_INSIGHTS_URL (reads) and QUEUE_INSIGHTS_WRITE_URL (actions), or libpq's
    PG* variables; with none of these, an embedded demo database. No command ever prompts.

    Exit codes: 0 fine, 1 failed, 2 wrong use or bad input, 3 a threshold is breached.
    """


def _read(
    name: str,
    help: str,
    *options: Callable[[Any], Any],
    room: str = "queries",
    glance: Sequence[str] = (),
    **flags: str,
) -> None:
    """Make a command of the Queue method *name*, and of its query in the module *room*; *flags*
    name the other method that a flag asks for. Of many columns, a table in the terminal has those
    of *glance*."""

    def run(format: str, pipeline: str, sql: bool, **arguments: Any) -> None:
        asked = [flag for flag in flags if arguments.pop(flag)]
        method = flags[asked[0]] if asked else name
        queue = connect(pipeline)
        given = _accepted(getattr(queue, method), arguments, asked)
        if sql:
            click.echo(f"{queue.sql(room, method, **given)};")
            return
        with queue.snapshot() as moment:
            frame = getattr(queue, method)(**given)
        if moment.replay_lag_seconds is not None:
            note(f"read from a standby, {moment.replay_lag_seconds:.1f} s behind")
        if format == "table":
            frame = frame if asked or not glance else frame[list(glance)]
            frame = frame.round(dict.fromkeys(frame.select_dtypes("float"), 2))
        show(frame, format)

    main.add_command(command(name, help, run, *options, format_option, pipeline_option, sql_option))


def _accepted(method: Callable[..., Any], arguments: dict[str, Any], asked: list[str]) -> Any:
    """Those of the *arguments* that *method* takes; a usage error for others that were given."""
    taken = inspect.signature(method).parameters
    for name in arguments.keys() - taken:
        if click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT:
            flag = asked[0].replace("_", "-")
            raise click.UsageError(f"--{name} does not go with --{flag}")
    return {name: value for name, value in arguments.items() if name in taken}


_since = click.option(
    "--since", metavar="AGE", default="7D", show_default=True, help="How far back."
)
_long_since = click.option("--since", metavar="AGE", default="60D", show_default=True)
_buckets = (
    click.option(
        "--bucket", metavar="LENGTH", default="1h", show_default=True, help="15min, 1h, 1D, 1W."
    ),
    click.option("--zone", metavar="NAME", default="UTC", show_default=True, help="Of whole days."),
)

_read("backlog", "How much work waits at each step, by state.")
_read(
    "audit",
    "What dashboards can see of the backlog: visible, hidden or overstated.",
    click.option("--sources", is_flag=True, help="Also ask each dashboard source (slow)."),
)
_read(
    "missing",
    "Tracks that wait and have no task row, the longest waiting first.",
    *(task_option, limit_option),
)
_read(
    "upcoming",
    "Tracks that workers would select next.",
    *(task_option, click.option("--limit", type=click.IntRange(min=0), default=50)),
)
_read(
    "tasks",
    "Tracks at a step with their task rows, in one state or any.",
    *(click.option("--state", metavar="STATE"), task_option, limit_option),
)
_read(
    "orphans",
    "Pending and failed rows whose track has moved on.",
    *(task_option, limit_option),
)
_read(
    "throughput",
    "What came, was done and failed at each step, per bucket of time.",
    *(_since, *_buckets, task_option),
    room="flow",
)
_read(
    "durations",
    "How long tasks ran and tracks waited, and the oldest that waits.",
    *(_since, task_option),
    room="flow",
)
_read(
    "flow",
    "How many tracks were at each step, weeks back, with rows or without.",
    *(_long_since, *_buckets, task_option),
    click.option("--averages", is_flag=True, help="Only the averages, by Little's law."),
    room="flow",
    averages="flow_averages",
)
_read(
    "eta",
    "When the work that waits will be done, as a range, and how such ranges have held.",
    task_option,
    click.option("--end-to-end", is_flag=True, help="When all of them are through the last step."),
    room="eta",
    glance=(
        *("stage", "task_type", "waiting", "status", "rate_per_hour", "growth_per_hour"),
        *("clear_p50_seconds", "clear_p80_seconds", "clear_p95_seconds", "clear_p80_at"),
        *("empty_p80_seconds", "held", "given"),
    ),
    end_to_end="eta_end_to_end",
)


@main.command()
@pipeline_option
def doctor(pipeline: str) -> None:
    """Say what is in the way of reads and actions, and what mends it; exit 1 if anything is."""
    from queue_insights import doctor as doctors

    findings = doctors.doctor(connect(pipeline))
    for finding in findings:
        click.echo(finding)
    if any(finding.level == "fix" for finding in findings):
        raise SystemExit(1)


@main.command()
@click.argument("name")
@click.option("-f", "--file", metavar="FILE", help="Parameters as YAML; -p goes over them.")
@click.option("-p", "--parameter", "given", metavar="KEY VALUE", nargs=2, multiple=True)
@click.option("--output", metavar="DIR", default="reports", show_default=True)
@click.option("--pipeline", metavar="FILE", help="Pipeline file, or the name of a shipped one.")
@click.option("--keep", metavar="AGE|N", help="Then remove older runs: by age, or all but N.")
@click.option("--metrics", metavar="FILE", help="Also write the figures for Prometheus.")
def report(
    name: str,
    file: str | None,
    given: tuple[tuple[str, str], ...],
    output: str,
    pipeline: str | None,
    keep: str | None,
    metrics: str | None,
) -> None:
    """Run the notebook NAME into a folder below --output: page, summary, tables.

    NAME is a shipped notebook (backlog_report) or the path of one. The last line of the output is
    the path of the page. Exits with 3 if a threshold is breached.
    """
    from queue_insights import report as reports
    from queue_insights import thresholds

    run = reports.run(
        *(name, file, given, output, pipeline, keep, metrics), progress=sys.stderr.isatty()
    )
    for breach in run.summary["breached"]:
        note(f"breached: {thresholds.describe(breach)}")
    if run.summary["verdict"]:
        click.echo(run.summary["verdict"])
    click.echo(run.page)
    if run.summary["breached"]:
        raise SystemExit(3)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks; ARGUMENTS after -- go to it.

    An installed package copies its notebooks to ./queue-insights-notebooks, unless that exists.
    """
    from queue_insights import lab as laboratory

    laboratory.start(arguments)


@main.command()
@click.option("--variant", type=click.Choice(["a", "b"]), default="a", show_default=True)
@click.option("--tracks", type=int, default=6000, show_default=True, help="Size of the history.")
@click.option("--output", metavar="DIR", default="reports", show_default=True)
def demo(variant: str, tracks: int, output: str) -> None:
    """Seed the embedded demo database with the incident, and report on it.

    Leaves databases named in the environment alone. The server stops with the command; its data
    stays for the commands that follow.
    """
    from queue_insights import demo as demos
    from queue_insights import report as reports
    from queue_insights.database import forget_environment

    forget_environment()
    click.echo(f"seeding {tracks:,} tracks (variant {variant.upper()}) ...")
    demos.seed(demos.default_url(), variant, tracks)
    click.echo(f"embedded Postgres in {demos.EmbeddedServer().folder} (it stops by itself)\n")
    queue = connect("karaoke")
    audit = queue.audit(sources=True)
    backlog = queue.backlog()
    at_stage = dict(zip(backlog.stage, backlog.tracks, strict=True))["audio_ready"]
    pending = dict(zip(audit.task_type, audit.visible, strict=True))["align"]
    click.echo(f"before: {at_stage} tracks at audio_ready, {pending} pending align rows")
    show(audit, "table")
    click.echo("\nrunning the backlog report ...")
    run = reports.run("backlog_report", None, (), output, None, progress=sys.stderr.isatty())
    click.echo(run.summary["verdict"])
    click.echo(f"report: {run.page}\n\ntry next:")
    for line in ("missing --task align --limit 5", "backfill --task align", "doctor", "lab"):
        click.echo(f"  {program()} {line}")


for _command in (*cli_actions.COMMANDS, *cli_trigger.COMMANDS):
    main.add_command(_command)
