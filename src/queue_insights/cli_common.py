"""What the commands share: options, the connection, notes on stderr."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from queue_insights.actions import OperableQueue

pipeline_option = click.option(
    "--pipeline",
    metavar="FILE",
    default="karaoke",
    show_default=True,
    help="Pipeline file, or the name of a shipped one.",
)
task_option = click.option("--task", metavar="TASK", help="Only this task.")
limit_option = click.option("--limit", type=click.IntRange(min=0), help="At most so many rows.")
format_option = click.option(
    "--format", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
sql_option = click.option("--sql", is_flag=True, help="Print the query instead of running it.")


def command(
    name: str, help: str, function: Callable[..., None], *options: Callable[[Any], Any]
) -> click.Command:
    """A command that calls *function*, with *options* in the order of its --help."""
    for option in reversed(options):
        function = option(function)
    return click.command(name, help=help)(function)


def connect(pipeline: str) -> "OperableQueue":
    """The queue that the environment names."""
    import queue_insights

    return queue_insights.connect(pipeline)


def show(frame: Any, format: str) -> None:
    """Print a frame in one of the formats."""
    from queue_insights import formats

    # color: whatever looks like a terminal's escape is data here, not click's to strip.
    click.echo(formats.FORMATS[format](frame).removesuffix("\n"), color=True)


def note(text: str) -> None:
    """Say something that is not the answer: on stderr."""
    click.echo(f"queue-insights: {text}", file=sys.stderr)


def program() -> str:
    """How to call this program here: its name, or its path where it is not on the PATH."""
    name = "queue-insights"
    script = Path(sys.executable).with_name(name)
    if shutil.which(name) or not script.exists():
        return name
    return shlex.quote(os.path.relpath(script))
