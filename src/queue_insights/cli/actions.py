"""The commands that change the queue, and those about their runs."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from queue_insights.actions.definitions import ACTIONS, CHOICES
from queue_insights.cli import common
from queue_insights.errors import InputError, PlanError

if TYPE_CHECKING:
    from queue_insights.actions.plan import Plan
    from queue_insights.actions.runs import Run

_run = click.argument("run", type=click.IntRange(min=1, max=2**63 - 1))
_pause = click.option(
    "--pause", type=click.FloatRange(min=0), metavar="SECONDS", help="Between batches [adaptive]."
)
_unattended = "With --apply, unattended: refuse above so many rows."
_SHARED = (
    click.option("--task", "tasks", metavar="TASK", multiple=True, help="Only this task (again)."),
    common.ids_option,
    click.option("--failure", metavar="ID", help="Only failed rows of this kind."),
    click.option("--older-than", metavar="AGE", help="Nothing happened to it for so long: 2h, 7d."),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first so many to arrive."),
    click.option("--apply", is_flag=True, help="Do it; without this, show what would be done."),
    click.option("--confirm", metavar="TOKEN", help="With --apply: the token of a dry run."),
    click.option("--max-rows", type=click.IntRange(min=0), metavar="N", help=_unattended),
    _pause,
    common.pipeline_option,
    click.option("--sql", is_flag=True, help="Print the statement that does a batch."),
)
_error = click.option("--error", metavar="TEXT", help="Only rows whose error message contains it.")
_HELP = {
    "attempts": "What becomes of the attempt that the lost worker had begun.",
    "status": "Failed rows are evidence: removed only when asked for.",
}


def _actions() -> Iterator[click.Command]:
    """The command of each action, with the options that only some have."""
    for action in ACTIONS.values():
        own = [] if action.kind == "insert" else [_error]
        for name in action.options:
            values = CHOICES[name]
            chosen: dict[str, Any] = {"type": click.Choice(values), "default": values[0]}
            own.append(click.option(f"--{name}", help=_HELP[name], show_default=True, **chosen))
        yield _action(action.name, f"{action.does[0].upper()}{action.does[1:]}.", *own)


def _action(name: str, help: str, *options: common.Option) -> click.Command:
    """The command that plans an action, and applies the plan when told to."""

    def act(
        pipeline: str,
        sql: bool,
        apply: bool,
        confirm: str | None,
        max_rows: int | None,
        pause: float | None,
        tasks: tuple[str, ...],
        **given: Any,
    ) -> None:
        if not apply and (confirm is not None or max_rows is not None):
            raise InputError(f"{name}: --confirm and --max-rows go with --apply")
        plan = common.connect(pipeline).plan(name, counted=False, tasks=tasks or None, **given)
        if sql:
            click.echo(plan.sql())
        elif not apply:
            show_plan(plan, pipeline)
        else:
            try:
                with _narrated():
                    run = plan.apply(confirm=confirm, max_rows=max_rows, pause=pause)
            except PlanError as error:
                show_plan(error.plan, pipeline)
                raise
            _show_run(run)

    return common.command(name, help, act, *options, *_SHARED)


def _going_on(name: str, help: str) -> click.Command:
    """The command that calls the method *name* of a run, and shows what became of it."""

    def go_on(run: int, pause: float | None, pipeline: str) -> None:
        with _narrated():
            done = getattr(common.connect(pipeline).run(run), name)(pause)
        _show_run(done)

    return common.command(name, help, go_on, _run, _pause, common.pipeline_option)


def show_plan(plan: "Plan", pipeline: str) -> None:
    """A dry run; its last line is the command that applies it."""
    common.show(plan.counts if plan.action.kind != "delete" else plan.counts.iloc[:, :3])
    click.echo(f"\n{plan.action.name} would {plan.action.does}: {plan.rows} rows")
    _show_list("of the chosen ids it leaves out", plan.left_out())
    if plan.rows:
        click.echo("the first of them:")
        common.show(plan.preview(5))
    if exhausted := int(plan.counts["ends_exhausted"].sum()):
        click.echo(f"{exhausted} of them end exhausted: no worker selects those; see --attempts")
    click.echo("nothing was changed; to do it:")
    from_file = click.get_current_context().meta.get("ids from stdin", False)
    click.echo(plan.command(None if pipeline == "karaoke" else pipeline, from_file))


def _show_run(run: "Run") -> None:
    row = run.row
    said = f"run {row['run']}: {row['action']} {row['state']}: {row['rows_done']} rows done"
    if row["undoing"]:
        common.done(f"{said}, {row['rows_undone']} undone, {row['rows_kept']} kept")
        title, left = "kept, not as the run left them", run.kept()
    else:
        said += (
            f", {row['rows_dropped']} no longer qualified, {row['came_after']} came after the plan"
        )
        if not run.schema.pipeline.refusal("undo"):
            said += f"; undo with: queue-insights undo {row['run']}"
        common.done(said)
        title, left = "no longer qualified", run.dropped()
    _show_list(title, left)


def _show_list(title: str, frame: Any) -> None:
    if len(frame):
        more = f" (the first 20 of {len(frame)})" if len(frame) > 20 else ""
        click.echo(f"{title}{more}:")
        common.show(frame.head(20))


@contextlib.contextmanager
def _narrated() -> Iterator[None]:
    """Plain progress lines on stderr where there is no terminal for a bar."""
    log, handler = logging.getLogger("queue_insights"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("queue-insights: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


@click.command()
@common.format_option
@common.sql_option
@click.option("--prune", "age", metavar="AGE", help="Drop the entries of runs ended before: 90d.")
@click.option("--ddl", is_flag=True, help="Print the ledger's DDL, for a DBA to run first.")
@common.pipeline_option
def runs(format: str, sql: bool, age: str | None, ddl: bool, pipeline: str) -> None:
    """What was applied, newest first."""
    from queue_insights.actions import ledger, statements

    if ddl:
        click.echo(ledger.ddl())
    elif sql:
        click.echo(f"{statements.named('all_runs')};")
    elif age is not None:
        dropped = common.connect(pipeline).prune_runs(age)
        common.done(f"{dropped} runs dropped from the ledger; they can no longer be undone")
    else:
        common.show(common.connect(pipeline).runs(), format)


@click.command()
@_run
@common.pipeline_option
def stop(run: int, pipeline: str) -> None:
    """End RUN after the batch in hand, wherever it runs."""
    common.connect(pipeline).run(run).stop()
    common.note(f"run {run} is stopped; go on with it by `queue-insights resume {run}`")


COMMANDS = (
    *_actions(),
    runs,
    _going_on("resume", "Go on with RUN, taking it over from whoever has it."),
    stop,
    _going_on("undo", "Put back what RUN changed and nobody has changed since."),
)
