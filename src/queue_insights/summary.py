"""What a report says first: one sentence, and the key figures behind it. No database, only frames.

The frames are those of ``Queue.backlog()``, ``Queue.audit()`` and ``Queue.eta_end_to_end()``.
"""

import math
from collections.abc import Sequence
from datetime import timedelta

import pandas as pd

Figure = int | float | str | None


def key_figures(
    backlog: pd.DataFrame, audit: pd.DataFrame, end: pd.DataFrame | None = None
) -> dict[str, Figure]:
    """The figures of the queue as one.

    Counts are sums over the steps: waiting, eligible, hidden, visible, orphans, running, stuck,
    exhausted, drifted. ``oldest_waiting_seconds`` is the largest of any step, None if none waits.
    With *end*: ``eta_p50_seconds``, ``eta_p80_seconds``, ``eta_p95_seconds`` until all tracks that
    are at a step are through the last one, None where there is too little history to say.
    """
    seen = ("hidden", "visible", "orphans")
    names = ("waiting", "eligible", *seen, "running", "stuck", "exhausted", "drifted")
    figures: dict[str, Figure] = {n: _sum(audit if n in seen else backlog, n) for n in names}
    figures["oldest_waiting_seconds"] = _finite(backlog["oldest_waiting_seconds"].max())
    if end is not None:
        for name in ("p50_seconds", "p80_seconds", "p95_seconds"):
            figures[f"eta_{name}"] = _finite(end[name].iloc[0])
    return figures


def sentence(
    backlog: pd.DataFrame,
    audit: pd.DataFrame,
    end: pd.DataFrame | None = None,
    timezone: str = "UTC",
) -> str:
    """The verdict: how many tracks wait, what dashboards make of it, and when it will be done, by
    the clock of *timezone*.

    >>> sentence(queue.backlog(), queue.audit(), queue.eta_end_to_end())
    '419 tracks wait, all of them hidden; all done by Tuesday 14:00 UTC, 80% sure.'
    """
    waiting, hidden = _sum(backlog, "waiting"), _sum(audit, "hidden")
    orphans, stuck = _sum(audit, "orphans"), _sum(backlog, "stuck")
    few = {0: "No track waits", 1: "1 track waits"}
    count = few.get(waiting, f"{waiting:,} tracks wait")
    if hidden == waiting > 0:
        seen = ", hidden from every dashboard" if waiting == 1 else ", all of them hidden"
    elif hidden:
        seen = f", {hidden:,} of them hidden from every dashboard"
    elif orphans:
        rows = f"{orphans:,} open rows are" if orphans != 1 else "1 open row is"
        seen = f", but dashboards overstate it: {rows} for tracks that stand elsewhere"
    else:
        seen = ", and dashboards see all of them" if waiting else ""
    done = _done_by(end, timezone) if waiting and end is not None else ""
    more = f"; {stuck:,} more {'is' if stuck == 1 else 'are'} stuck" if stuck else ""
    return f"{count}{seen}{done}{more}."


def before_and_after(
    before: pd.DataFrame, after: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """Two answers of ``Queue.backlog()`` side by side: stage, task_type, and for each of *columns*
    ``COLUMN_before`` and ``COLUMN_after``."""
    step = ["stage", "task_type"]
    kept = [*step, *columns]
    both = before[kept].merge(after[kept], on=step, suffixes=("_before", "_after"))
    return both[step + [f"{name}_{side}" for name in columns for side in ("before", "after")]]


def track_record(forecasts: pd.DataFrame, level: float = 0.8) -> str:
    """How earlier ranges have held: *forecasts* is what ``Queue.eta()`` or ``eta_end_to_end()``
    returns; its columns held and given are summed over the rows.

    >>> track_record(queue.eta(task="align"))
    'Of the last 120 such ranges, 97 held: 81%, where 80% should.'
    """
    held, given = _sum(forecasts, "held"), _sum(forecasts, "given")
    if not given:
        return "No such range could be checked against what happened yet."
    ranges = f"Of the last {given:,} such ranges," if given > 1 else "Of the one such range so far,"
    return f"{ranges} {held:,} held: {held / given:.0%}, where {level:.0%} should."


def _done_by(end: pd.DataFrame, timezone: str) -> str:
    row = end.iloc[0]
    if row["status"] != "draining" or pd.isna(row["p80_at"]):
        return "; too little history to say when they will be done"
    at = row["p80_at"].tz_convert(timezone)
    soon = row["p80_seconds"] < timedelta(days=6).total_seconds()
    day = f"{at:%A}" if soon else f"{at:%A} {at.day} {at:%B %Y}"
    return f"; all done by {day} {at:%H:%M %Z}, 80% sure"


def _sum(frame: pd.DataFrame, column: str) -> int:
    return int(frame[column].sum())


def _finite(seconds: float) -> float | None:
    return float(seconds) if math.isfinite(seconds) else None
