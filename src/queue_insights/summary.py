"""What a report says first: one sentence, and the key figures behind it. Pure: frames in."""

import math

import pandas as pd

Figure = int | float | str | None


def key_figures(backlog: pd.DataFrame, audit: pd.DataFrame) -> dict[str, Figure]:
    """The figures of a whole queue, from ``Queue.backlog()`` and ``Queue.audit()``.

    Counts are sums over the steps: waiting, eligible, hidden, visible, orphans, running, stuck,
    exhausted, drifted. ``oldest_waiting_seconds`` is the largest of any step, None if none waits.
    """
    oldest = backlog["oldest_waiting_seconds"].max()
    figures: dict[str, Figure] = {name: _sum(backlog, name) for name in ("waiting", "eligible")}
    figures |= {name: _sum(audit, name) for name in ("hidden", "visible", "orphans")}
    figures |= {name: _sum(backlog, name) for name in ("running", "stuck", "exhausted", "drifted")}
    return figures | {"oldest_waiting_seconds": None if math.isnan(oldest) else float(oldest)}


def sentence(backlog: pd.DataFrame, audit: pd.DataFrame) -> str:
    """The verdict: how many tracks wait, and what dashboards make of it.

    >>> sentence(queue.backlog(), queue.audit())
    '419 tracks wait, 50 of them hidden from every dashboard.'
    """
    waiting, hidden = _sum(backlog, "waiting"), _sum(audit, "hidden")
    orphans, stuck = _sum(audit, "orphans"), _sum(backlog, "stuck")
    if waiting == 0:
        first = "No track waits"
    else:
        first = f"{waiting:,} tracks wait" if waiting != 1 else "1 track waits"
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
    return f"{first}{second}{third}."


def _sum(frame: pd.DataFrame, column: str) -> int:
    return int(frame[column].sum())
