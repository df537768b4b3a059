"""Everything that can go wrong, said in one line: what, where, and what to do about it."""

from typing import Any


class QueueInsightsError(Exception):
    """Root of all errors raised on purpose; its text is one line fit for a terminal.

    ``exit_code`` is what the CLI exits with: 1 for what failed, 2 for wrong use or bad input.
    """

    exit_code = 1


class InputError(QueueInsightsError):
    """What the caller gave cannot be used: a pipeline file, a parameter, an argument."""

    exit_code = 2


class Refused(InputError):
    """What was asked for does not fit this kind of queue; the text says why."""


class DatabaseError(QueueInsightsError):
    """The server could not be reached, refused, or timed out. ``sqlstate`` is Postgres' code (empty
    where the server said nothing); ``lost`` is true if trying again takes a new connection."""

    sqlstate = ""
    lost = False


class DemoError(QueueInsightsError):
    """The embedded demo server could not be started or seeded."""


class PlanError(QueueInsightsError):
    """A plan that cannot be applied as it was confirmed; ``plan`` is what it would be now."""

    plan: Any = None


class RunError(QueueInsightsError):
    """A run that is not in a state for what was asked, or that somebody else has."""


class Stopped(QueueInsightsError):
    """A run or report that somebody ended. A run's whole batches count, and it can be resumed; of a
    report nothing is kept."""
