"""What a report says first: one sentence, and the key figures behind it. Pure: frames in."""

import math
from collections.abc import Sequence
from datetime import timedelta

import pandas as pd

Figure = int | float | str | None


def key_figures(
    backlog: pd.DataFrame, audit: pd.DataFrame, end: pd.DataFrame | None = None
) -> dict[str, Figure]:
    """The figures of a whole queue, from ``Queue.backlog()``, ``audit()``, ``eta_end_to_end()``.

    Counts are sums over the steps: waiting, eligible, hidden, visible, orphans, running, stuck,
    exhausted, drifted. ``oldest_waiting_seconds`` is the largest of any step, None if none waits.
    With *end*: ``eta_p50_seconds``, ``eta_p80_seconds``, ``eta_p95_seconds`` until all tracks that
    are at a step are through the last one, None where there is too little history to say.
    """
    oldest = backlog["oldest_waiting_seconds"].max()
    figures: dict[str, Figure] = {name: _sum(backlog, name) for name in ("waiting", "eligible")}
    figures |= {name: _sum(audit, name) for name in ("hidden", "visible", "orphans")}
    figures |= {name: _sum(backlog, name) for name in ("running", "stuck", "exhausted", "drifted")}
    figures["oldest_waiting_seconds"] = None if math.isnan(oldest) else float(oldest)
    for level in ("p50", "p80", "p95") if end is not None else ():
        seconds = float(end[f"{level}_seconds"].iloc[0])  # type: ignore[index]
        figures[f"eta_{level}_seconds"] = seconds if math.isfinite(seconds) else None
    return figures


def sentence(
    backlog: pd.DataFrame,
    audit: pd.DataFrame,
    end: pd.DataFrame | None = None,
    timezone: str = "UTC",
) -> str:
    """The verdict: how many tracks wait, what dashboards make of it, and when it will be done.

    *end* is what ``Queue.eta_end_to_end()`` returns; its clock time is given in *timezone*.

    >>> sentence(queue.backlog(), queue.audit(), queue.eta_end_to_end())
    '419 tracks wait, all of them hidden; all done by Tuesday 14:00 UTC, 80% sure.'
    """
    waiting, hidden = _sum(backlog, "waiting"), _sum(audit, "hidden")
    orphans, stuck = _sum(audit, "orphans"), _sum(backlog, "stuck")
    few = {0: "No track waits", 1: "1 track waits"}
    first = few.get(waiting, f"{waiting:,} tracks wait")
    if hidden == waiting > 0:
        second = ", hidden from every dashboard" if waiting == 1 else ", all of them hidden"
    elif hidden:
        second = f", {hidden:,} of them hidden from every dashboard"
    elif orphans:
        rows = f"{orphans:,} open rows are" if orphans != 1 else "1 open row is"
        second = f", but dashboards overstate it: {rows} for tracks that stand elsewhere"
    else:
        second = ", and dashboards see all of them" if waiting else ""
    third = f"; {stuck:,} more {'is' if stuck == 1 else 'are'} stuck" if stuck else ""
    done = _done_by(end, timezone) if waiting and end is not None else ""
    return f"{first}{second}{done}{third}."


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
    """How the ranges said earlier have held: *forecasts* is what ``Queue.eta()`` or
    ``eta_end_to_end()`` returns, its held and given summed over the rows.

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
