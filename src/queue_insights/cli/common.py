"""What the commands share: options, the connection, notes on stderr."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from queue_insights.errors import InputError, QueueInsightsError

if TYPE_CHECKING:
    from queue_insights.queue import Queue

Option = Callable[[Any], Any]

pipeline_option = click.option(
    "--pipeline",
    metavar="FILE",
    default="karaoke",
    show_default=True,
    help="Pipeline file, or the name of a shipped one.",
)
format_option = click.option(
    "--format", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
sql_option = click.option("--sql", is_flag=True, help="Print the query instead of running it.")


class Group(click.Group):
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


def command(name: str, help: str, function: Callable[..., None], *options: Option) -> click.Command:
    """A command that calls *function*, with *options* in the order of its --help."""
    for option in reversed(options):
        function = option(function)
    return click.command(name, help=help)(function)


def connect(pipeline: str) -> "Queue":
    """The queue that the environment names."""
    import queue_insights

    return queue_insights.connect(pipeline)


def show(frame: Any, format: str = "table") -> None:
    """Print a frame in one of the formats."""
    from queue_insights.formats import FORMATS

    # color: whatever looks like a terminal's escape is data here, not click's to strip.
    click.echo(FORMATS[format](frame).removesuffix("\n"), color=True)


def note(text: str) -> None:
    """Say something that is not the answer: on stderr."""
    click.echo(f"queue-insights: {text}", file=sys.stderr)
