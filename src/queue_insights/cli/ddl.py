"""The commands that keep the backlog visible, the trigger and the views, and who may see it."""

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from queue_insights.cli.actions import show_plan
from queue_insights.cli.common import command, connect, note, pipeline_option

_output = click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there instead of printing it.",
)
_probe = click.option(
    "--probe", is_flag=True, help="Also prove it live, in a transaction rolled back."
)


def _group(name: str, help: str, fine: str, uninstalled: str) -> click.Group:
    """The commands of ``trigger`` or ``views``, each a function of the module of that name."""

    def module() -> Any:
        return import_module(f"queue_insights.ddl.{name}")

    def sql(output: Path | None, pipeline: str) -> None:
        from queue_insights.ddl.migration import write

        text = module().generate(connect(pipeline)).text()
        if output is None:
            click.echo(text, nl=False)
        else:
            write(output, text)
            click.echo(output)

    def verify(pipeline: str, **given: bool) -> None:
        findings = module().verify(connect(pipeline), *given.values())
        proved = "; proved: a track got its rows at every stage (rolled back)"
        for line in findings or [fine + (proved if any(given.values()) else "")]:
            click.echo(line)
        if findings:
            raise SystemExit(3)

    def uninstall(pipeline: str) -> None:
        click.echo(module().uninstall(connect(pipeline)))

    text = "Print the complete migration, up and down, for a DBA."
    checked = "Check that all is there, up to date, and alone; exits 3 if anything is amiss."
    probe = [_probe] if name == "trigger" else []
    commands = (
        command("sql", text, sql, _output, pipeline_option),
        command("verify", checked, verify, *probe, pipeline_option),
        command("uninstall", uninstalled, uninstall, pipeline_option),
    )
    return click.Group(name, commands, help=help)


trigger = _group(
    "trigger",
    "Insert a pending row whenever a track reaches a stage (recommended).",
    "the trigger is in place",
    "Remove it, at once; rows that it made stay.",
)
views = _group(
    "views",
    "Let psql and dashboards read the truth; nothing is inserted.",
    "the views are in place and say what the CLI says",
    "Remove them, at once; the ledger stays.",
)


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


@views.command("install")
@pipeline_option
def views_install(pipeline: str) -> None:
    """Create them or bring them up to date, at once; grants stay."""
    from queue_insights.ddl.views import install

    click.echo(install(connect(pipeline)))
    click.echo("who may read them: see the GRANT lines of `queue-insights views sql`")


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


COMMANDS = (trigger, views, grants)
