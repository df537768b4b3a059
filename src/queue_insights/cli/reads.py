"""The commands that only read, made from the table of reads."""

from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from queue_insights.cli import common
from queue_insights.reads import READS, Read


def commands() -> Iterator[click.Command]:
    """A command for each read."""
    shared = (common.format_option, common.pipeline_option, common.sql_option)
    for read in READS.values():
        yield common.command(read.name, read.help, _runner(read), *_options(read), *shared)


def _options(read: Read) -> Iterator[common.Option]:
    for option in read.options:
        if option.default is ...:
            yield click.argument(option.name, metavar=option.metavar)
            continue
        if option.name == "ids":
            yield common.ids_option
            continue
        flag = f"--{option.name.replace('_', '-')}"
        kind: dict[str, Any] = {"metavar": option.metavar, "show_default": True}
        if option.default is False:
            kind = {"is_flag": True}
        elif option.metavar == "N":
            kind |= {"type": click.IntRange(min=0)}
        elif option.metavar.startswith("STEP="):
            kind |= {"multiple": True, "callback": _by_step}
        yield click.option(flag, option.name, default=option.default, help=option.help, **kind)


def _runner(read: Read) -> Any:
    def run(format: str, pipeline: str, sql: bool, **given: Any) -> None:
        end_to_end = given.pop("end_to_end", False)
        queue = common.connect(pipeline)
        if end_to_end:
            _refuse_others(given)
        if sql:
            click.echo(queue.sql(read.name, **({"end_to_end": True} if end_to_end else given)))
            return
        with queue.snapshot() as moment:
            frame = queue.eta_end_to_end() if end_to_end else getattr(queue, read.name)(**given)
        if moment.replay_lag_seconds is not None:
            common.note(f"read from a standby, {moment.replay_lag_seconds:.1f} s behind")
        if format == "table":
            frame = frame[[n for n in read.brief if n in frame] or frame.columns]
            frame = frame.round(dict.fromkeys(frame.select_dtypes("float"), 2))
        common.show(frame, format)

    return run


def _by_step(_: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
    """Each STEP=VALUE by its step; None without any."""
    pairs = [text.rpartition("=") for text in given]
    found = {step: value for step, _, value in pairs}
    if not all(found) or len(found) < len(pairs):
        expected = f"expected {option.metavar}, and each step once"
        raise click.BadParameter(f"found {' '.join(given)}: {expected}")
    return found or None


def _refuse_others(given: dict[str, Any]) -> None:
    for name in given:
        if click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} does not go with --end-to-end")
