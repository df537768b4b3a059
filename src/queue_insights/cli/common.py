"""What the commands share: options, the connection, notes on stderr."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

import queue_insights
from queue_insights.errors import InputError, QueueInsightsError

connect = queue_insights.connect
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


def _chosen(context: click.Context, _: Any, given: tuple[str, ...]) -> list[str] | None:
    """The ids given, those of stdin for a ``-``; None without any: all."""
    context.meta["ids from stdin"] = "-" in given
    if "-" not in given:
        return list(given) or None
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise InputError("--id -: what stdin gives is no UTF-8 text") from None
    found = [line.removesuffix("\r") for line in text.split("\n")]
    return [id for id in [*given, *found] if id not in ("-", "")]


ids_option = click.option(
    "--id",
    "ids",
    metavar="ID",
    multiple=True,
    callback=_chosen,
    help="Only this track (again); - reads ids from stdin, one a line.",
)


class OutputError(QueueInsightsError):
    """The answer could not be written."""


class Group(click.Group):
    """Says on stderr what a QueueInsightsError says, and exits with its code."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        if sys.stdout is None:  # another file, or the database, would get its number
            note("standard output is closed: nothing was done")
            sys.exit(1)
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            where = f"{error.filename}" if error.filename else "the output"
            note(f"{where}: cannot be used: {error.strerror}")
        except OutputError as error:
            note(str(error))
        # What is left in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        failure: QueueInsightsError
        try:
            return super().invoke(ctx)
        except OutputError:
            raise
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


def show(frame: Any, format: str = "table") -> None:
    """Print a frame in one of the formats."""
    from queue_insights.formats import FORMATS

    # color: whatever looks like a terminal's escape is data here, not click's to strip.
    click.echo(FORMATS[format](frame).removesuffix("\n"), color=True)


def done(text: str) -> None:
    """Print what was done, which cannot be asked for again. Raises OutputError, which repeats it,
    where that cannot be written."""
    try:
        click.echo(text)
    except OSError as error:
        raise OutputError(f"{text}; the output cannot be used: {error.strerror}") from None


def note(text: str) -> None:
    """Say something that is not the answer: on stderr."""
    click.echo(f"queue-insights: {text}", file=sys.stderr)
