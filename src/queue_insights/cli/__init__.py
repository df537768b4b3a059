"""The command line: thin commands over the library, which is imported only when one runs."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from queue_insights.cli import actions, ddl, reads
from queue_insights.cli.common import Group, connect, note, pipeline_option, show


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="queue-insights")
def main() -> None:
    """See, explain and repair a Postgres-backed work queue.

    The database is QUEUE_INSIGHTS_URL (reads) and QUEUE_INSIGHTS_WRITE_URL (actions), or libpq's
    PG* variables; with none of these, an embedded demo database. No command ever prompts.

    Exit codes: 0 fine, 1 failed, 2 wrong use or bad input, 3 a threshold is breached.
    """


@main.command()
@pipeline_option
def doctor(pipeline: str) -> None:
    """Say what is in the way of reads and actions, and what mends it; exit 1 if anything is."""
    from queue_insights.doctor import examine

    findings = examine(connect(pipeline))
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
@click.option("--metrics", "metrics_file", metavar="FILE", help="Write the figures for Prometheus.")
def report(name: str, **given: Any) -> None:
    """Run the notebook NAME into a folder below --output: page, summary, tables.

    NAME is a shipped notebook (backlog_report) or the path of one. The last line of the output is
    the path of the page. Exits with 3 if a threshold is breached.
    """
    from queue_insights.report.maker import make
    from queue_insights.report.thresholds import describe

    page, summary = make(name, **given, progress=sys.stderr.isatty())
    for breach in summary["breached"]:
        note(f"breached: {describe(breach)}")
    if summary["verdict"]:
        click.echo(summary["verdict"])
    click.echo(page)
    if summary["breached"]:
        raise SystemExit(3)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--notebooks", is_flag=True, help="Print the folder of the shipped ones instead.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(notebooks: bool, arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks; ARGUMENTS after -- go to it.

    They are copied to ./queue-insights-notebooks, unless that exists.
    """
    from queue_insights.pipeline import shipped
    from queue_insights.report.lab import start

    if notebooks:
        click.echo(shipped("notebooks"))
    else:
        start(arguments)


@main.command()
@click.option("--variant", type=click.Choice(["a", "b"]), default="a", show_default=True)
@click.option("--tracks", type=int, default=6000, show_default=True, help="Size of the history.")
@click.option("--output", metavar="DIR", default="reports", show_default=True)
def demo(variant: str, tracks: int, output: str) -> None:
    """Seed the embedded demo database with the incident, and report on it.

    Leaves databases named in the environment alone. The server stops with the command; its data
    stays for the commands that follow.
    """
    from queue_insights.database import forget_environment
    from queue_insights.demo import default_url, seed
    from queue_insights.demo.server import EmbeddedServer
    from queue_insights.report.maker import make

    forget_environment()
    owner = {"a": "track", "b": "subject"}[variant]
    click.echo(f"seeding {tracks:,} tracks; task rows by {owner} (variant {variant.upper()}) ...")
    seed(default_url(), variant, tracks)
    click.echo(f"embedded Postgres in {EmbeddedServer().folder} (it stops by itself)\n")
    queue = connect("karaoke")
    audit = queue.audit(sources=True)
    total = queue.backlog().set_index("stage")["total"]["audio_ready"]
    pending = audit.set_index("task_type")["visible"]["align"]
    click.echo(f"before: {total} tracks at audio_ready, {pending} pending align rows")
    show(audit)
    click.echo("\nrunning the backlog report ...")
    page, summary = make("backlog_report", output=output, progress=sys.stderr.isatty())
    click.echo(summary["verdict"])
    click.echo(f"report: {page}")
    red = " and ".join(breach["threshold"] for breach in summary["breached"])
    click.echo(f"it is red, as it should be here: {red}\n\ntry next:")
    for line in ("failures", "missing --task align --limit 5", "backfill --task align", "lab"):
        click.echo(f"  {_program()} {line}")


def _program() -> str:
    """How to call this program here: its name, or its path where it is not on the PATH."""
    name = "queue-insights"
    script = Path(sys.executable).with_name(name)
    if shutil.which(name) or not script.exists():
        return name
    return shlex.quote(os.path.relpath(script))


for _command in (*reads.commands(), *actions.COMMANDS, *ddl.COMMANDS):
    main.add_command(_command)
