"""The commands that keep the backlog visible, the trigger and the views, and who may see it."""

import importlib
from pathlib import Path
from typing import Any

import click

from queue_insights.cli.actions import show_plan
from queue_insights.cli.common import connect, note, pipeline_option

AMISS = 3


@click.group()
def trigger() -> None:
    """Insert a pending row whenever a track reaches a stage (recommended)."""


@click.group()
def views() -> None:
    """Let psql and dashboards read the truth; nothing is inserted."""


@trigger.command("install")
@pipeline_option
def trigger_install(pipeline: str) -> None:
    """Install it or bring it up to date, and plan the backfill of existing tracks.

    Acts at once. The last line is the command of the backfill, if there is anything to fill.
    """
    from queue_insights.ddl.trigger import install, verify

    queue = connect(pipeline)
    click.echo(install(queue))
    for finding in verify(queue):
        note(finding)
    plan = connect(pipeline).plan_backfill()
    if plan.rows:
        click.echo("tracks that came before it still have no row:\n")
        show_plan(plan, pipeline)
    else:
        click.echo("nothing to backfill: every track that waits has its row")


@trigger.command("verify")
@click.option("--probe", is_flag=True, help="Also prove it live, in a transaction rolled back.")
@pipeline_option
def trigger_verify(probe: bool, pipeline: str) -> None:
    """Check that it is there, enabled, up to date, and alone; exits 3 if anything is amiss."""
    from queue_insights.ddl.trigger import verify

    findings = verify(connect(pipeline), prove=probe)
    proved = "; proved: a track got its rows at every stage (rolled back)" if probe else ""
    _report(findings, f"the trigger is in place{proved}")


@views.command("install")
@pipeline_option
def views_install(pipeline: str) -> None:
    """Create them or bring them up to date, at once; grants stay."""
    from queue_insights.ddl.views import install

    click.echo(install(connect(pipeline)))
    click.echo("who may read them: see the GRANT lines of `queue-insights views sql`")


@views.command("verify")
@pipeline_option
def views_verify(pipeline: str) -> None:
    """Check that they are there, up to date, and say what the CLI says; exits 3 if not."""
    from queue_insights.ddl.views import verify

    _report(verify(connect(pipeline)), "the views are in place and say what the CLI says")


@click.command()
@click.argument("kind", type=click.Choice(["reader", "operator"]))
@click.argument("role")
@pipeline_option
def grants(kind: Any, role: str, pipeline: str) -> None:
    """Print the least grants that make ROLE a reader or an operator; executes nothing.

    For the tables' owner to run, as they are now: `queue-insights grants reader analyst | psql`.
    """
    from queue_insights.ddl.grants import generate

    click.echo(generate(connect(pipeline), kind, role), nl=False)


def _add_shared(group: click.Group, uninstall_help: str) -> None:
    """The commands that trigger and views, modules named as their groups, have alike."""

    def module() -> Any:
        return importlib.import_module(f"queue_insights.ddl.{group.name}")

    @group.command()
    @click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write it there instead of printing it.",
    )
    @pipeline_option
    def sql(output: Path | None, pipeline: str) -> None:
        """Print the complete migration, up and down, for a DBA."""
        from queue_insights.ddl.migration import write

        text = module().generate(connect(pipeline)).text()
        if output is None:
            click.echo(text, nl=False)
        else:
            write(output, text)
            click.echo(output)

    @group.command(help=uninstall_help)
    @pipeline_option
    def uninstall(pipeline: str) -> None:
        click.echo(module().uninstall(connect(pipeline)))


def _report(findings: list[str], fine: str) -> None:
    for line in findings or [fine]:
        click.echo(line)
    if findings:
        raise SystemExit(AMISS)


_add_shared(trigger, "Remove it, at once; rows that it made stay.")
_add_shared(views, "Remove them, at once; the ledger stays.")
COMMANDS = (trigger, views, grants)
