"""What a forecast is asked to suppose: checked, and what it says then beside what it says now."""

from collections.abc import Mapping, Sequence

import pandas as pd

from queue_insights.errors import InputError
from queue_insights.pipeline import nearest
from queue_insights.reads import STATES


def checked(
    tasks: Sequence[str],
    speed: Mapping[str, float | str] | None,
    extra: Mapping[str, int | str] | None,
    backlog: pd.DataFrame | None,
) -> tuple[dict[str, float], dict[str, int]]:
    """The factor of each task in *speed*, and how many tracks more wait at each in *extra*, where a
    state stands for those whom the *backlog* has in it. Raises InputError."""
    for name, given in (("speed", speed), ("extra", extra)):
        for task in given or {}:
            if task not in tasks:
                expected = f"expected one of {', '.join(tasks)}{nearest(task, tasks)}"
                raise InputError(f"{name}: unknown task {task!r}: {expected}")
    factors = {task: _factor(task, given) for task, given in (speed or {}).items()}
    if backlog is None:
        return factors, {}
    return factors, {task: _items(task, given, backlog) for task, given in (extra or {}).items()}


def beside(
    before: pd.DataFrame, after: pd.DataFrame, speed: Mapping[str, float], extra: Mapping[str, int]
) -> pd.DataFrame:
    """Two answers of ``Queue.eta()`` side by side, the columns of *after* that may differ with
    ``if_`` before their names; ``assumption`` says what was supposed, null where nothing was."""
    same = ["stage", "task_type", "arrivals_per_hour", "window_seconds", "held", "given", "basis"]
    after = after.drop(columns=same).add_prefix("if_")
    said = []
    for task in before["task_type"]:
        parts = [f"{speed[task]:g} times the speed from now on"] if task in speed else []
        parts += [f"{extra[task]:,} more waiting now"] if task in extra else []
        said.append(f"{', '.join(parts)}; arrivals as they are" if parts else None)
    return pd.concat([before, after], axis=1).assign(assumption=pd.Series(said, dtype="str"))


def _factor(task: str, given: float | str) -> float:
    """How many times as fast *task* is supposed to be worked on."""
    try:
        found = float(given)
    except (TypeError, ValueError):
        found = 0.0
    if not 0.001 <= found <= 1000:
        raise InputError(f"speed of {task}: found {given!r}, expected a factor such as 2")
    return found


def _items(task: str, given: int | str, backlog: pd.DataFrame) -> int:
    """How many tracks more are supposed to wait for *task*: a number, or all in a state there."""
    moving = ("missing", "pending", "retryable", "backing_off", "running")  # reckoned with already
    idle = [state for state in STATES if state not in moving]
    if given in idle:
        return int(backlog.set_index("task_type")[str(given)][task])
    text = str(given)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        expected = f"expected a number, or one of {', '.join(idle)}{nearest(given, idle)}"
        raise InputError(f"extra of {task}: found {given!r}, {expected}")
    return int(text)
