"""What a report says first: one sentence, and the key figures behind it. No database, only frames.

The frames are those of ``Queue.backlog()``, ``Queue.audit()`` and ``Queue.eta_end_to_end()``.
"""

import math
import shlex
from collections.abc import Sequence

import pandas as pd

Figure = int | float | str | None
# What a page calls the key figures that it shows, and those that only the other files have.
TILES = {
    "waiting": "waiting",
    "hidden": "missing",
    "failing": "failing",
    "stuck": "stuck",
    "oldest_waiting_seconds": "oldest waits",
    "eta_p80_seconds": "done within, 80% sure",
}
DETAILS = (
    *("eligible", "visible", "orphans", "running", "exhausted", "drifted"),
    *("eta_p50_seconds", "eta_p95_seconds", "new_failures", "waiting_grown"),
)


def key_figures(
    backlog: pd.DataFrame,
    audit: pd.DataFrame,
    end: pd.DataFrame | None = None,
    failures: pd.DataFrame | None = None,
    flow: pd.DataFrame | None = None,
) -> dict[str, Figure]:
    """The figures of the queue as one, which docs/summary.md explains: counts summed over the
    steps, ``oldest_waiting_seconds`` of any step (None if none waits), and with *end*
    ``eta_p50_seconds`` and so on until all are through the last step (None with too little
    history). *failures*, ``Queue.failures()``, gives failing, and new_failures, which a report
    fills in; *flow*, ``Queue.flow("1D")``, waiting_grown: how much more waits than a day ago."""
    seen = ("hidden", "visible", "orphans")
    names = ("waiting", "eligible", *seen, "running", "stuck", "exhausted", "drifted")
    figures: dict[str, Figure] = {n: _sum(audit if n in seen else backlog, n) for n in names}
    seconds = {"oldest_waiting_seconds": backlog["oldest_waiting_seconds"].max()}
    if failures is not None:
        known = "refused" not in failures.attrs
        figures |= {"failing": _sum(failures, "rows") if known else None, "new_failures": None}
    if flow is not None and len(flow):
        waited = int(flow.groupby("bucket")["waiting"].sum().iloc[0])
        # History cannot tell exhausted tracks from those that wait; of jobs it has those due.
        jobs = "refused" in audit.attrs
        now = ("eligible",) if jobs else ("waiting", "exhausted")
        figures["waiting_grown"] = sum(_sum(backlog, name) for name in now) - waited
    if end is not None and len(end):
        row = end.iloc[0]
        seconds |= {f"eta_{n}": row[n] for n in ("p50_seconds", "p80_seconds", "p95_seconds")}
    return figures | {n: float(s) if math.isfinite(s) else None for n, s in seconds.items()}


def sentence(
    backlog: pd.DataFrame,
    audit: pd.DataFrame,
    end: pd.DataFrame | None = None,
    timezone: str = "UTC",
) -> str:
    """The verdict: how many tracks wait, what dashboards make of it, and when it will be done, by
    the clock of *timezone*, as exactly as the range deserves. For example: ``419 tracks wait, all
    of them missing from dashboards; all done by Tuesday 14:00 UTC, 80% sure; 16 exhausted and 9
    drifted will not move by themselves.``"""
    waiting, hidden = _sum(backlog, "waiting"), _sum(audit, "hidden")
    orphans, stuck = _sum(audit, "orphans"), _sum(backlog, "stuck")
    items = backlog.attrs.get("items", "tracks")
    one = items.removesuffix("s")
    few = {0: f"No {one} waits", 1: f"1 {one} waits"}
    count, seen = few.get(waiting, f"{waiting:,} {items} wait"), ""
    if hidden:
        them = "all of them" if hidden == waiting else f"{hidden:,} of them"
        seen = f", {them if waiting > 1 else 'but'} missing from dashboards"
    elif orphans:
        rows = f"{orphans:,} open rows are" if orphans != 1 else "1 open row is"
        seen = f", but dashboards overstate it: {rows} for tracks that stand elsewhere"
    elif waiting and "refused" not in audit.attrs:
        seen = ", and dashboards see all of them"
    done = _done_by(end, timezone) if waiting and end is not None and len(end) else ""
    more = f"; {stuck:,} more {'is' if stuck == 1 else 'are'} stuck" if stuck else ""
    return f"{count}{seen}{done}{more}{_left_out(backlog)}."


def _left_out(backlog: pd.DataFrame) -> str:
    """Who waits for somebody to act, such as ``; 16 exhausted and 9 drifted will not move by
    themselves``."""
    idle = ("exhausted", "drifted", "skipped", "blocked", "other")
    counts = {state: _sum(backlog, state) for state in idle if state in backlog}
    said = [f"{count:,} {state}" for state, count in counts.items() if count]
    if not said:
        return ""
    listed = " and ".join([", ".join(said[:-1]), said[-1]] if said[1:] else said)
    return f"; {listed} will not move by {'themselves' if sum(counts.values()) > 1 else 'itself'}"


def _done_by(end: pd.DataFrame, timezone: str) -> str:
    """When all is done with 80% certainty, no more exactly than the width of the range deserves."""
    row = end.iloc[0]
    if row["status"] == "stalled":
        return "; nothing gets done at the end of the pipeline"
    if pd.isna(row["p80_at"]):
        return "; too little history to say when they will be done"
    at, days = row["p80_at"].tz_convert(timezone), row["p80_seconds"] / 86_400
    hours = (row.get("upper_seconds", 0) - row.get("lower_seconds", 0)) / 3600
    day = f"{at:%A}" if days < 6 else f"{at:%A} {at.day} {at:%B %Y}"
    if hours < 1:
        when = f"{day} {at.ceil('5min'):%H:%M %Z}"
    elif hours < 6:
        when = f"{day} {at.ceil('1h'):%H:%M %Z}"
    elif hours < 24:
        when = f"{day} {('night', 'morning', 'afternoon', 'evening')[at.hour // 6]} ({at:%Z})"
    elif hours < 7 * 24:
        when = day
    elif hours < 31 * 24:
        monday = (at - pd.Timedelta(days=at.weekday())).normalize()
        when = f"the week of {monday.day} {monday:%B %Y}"
    else:
        when = f"{at:%B %Y}"
    return f"; all done by {when}, 80% sure"


def causes(failures: pd.DataFrame, pipeline: str = "karaoke") -> pd.DataFrame:
    """``Queue.failures()`` with the new kinds first, and the command that would retry each."""
    if "refused" in failures.attrs:
        return failures
    of = failures.sort_values(["new", "rows"], ascending=False, kind="stable", ignore_index=True)
    pairs = zip(of["task_type"], of["failure"], strict=True)
    narrow = [f" --task {shlex.quote(str(task))} --failure {failure}" for task, failure in pairs]
    if "retry" in failures.attrs.get("actions", ("retry",)):
        of.insert(3, "retry", [_command("retry", pipeline, each) for each in narrow])
    return of


def next_steps(
    backlog: pd.DataFrame, audit: pd.DataFrame, failures: pd.DataFrame, pipeline: str = "karaoke"
) -> list[tuple[str, str]]:
    """What somebody should look at, each with the command that plans to mend it (and changes
    nothing until it is told to)."""
    if "refused" in audit.attrs:  # a queue of jobs
        exhausted = _sum(backlog, "exhausted")
        why = f"{exhausted:,} have used up their attempts"
        can = exhausted and "retry" in backlog.attrs["actions"]
        return [(why, _command("retry", pipeline))] if can else []
    states = {name: _sum(backlog, name) for name in ("stuck", "exhausted", "drifted")}
    failed = _sum(failures, "rows")
    exhausted = states["exhausted"] - _sum(failures, "exhausted")
    names = ("pending", "retryable", "backing_off", "exhausted")
    here = sum(_sum(backlog, name) for name in names)  # rows pending or failed
    steps = [
        (_sum(audit, "hidden"), "are missing: they wait without a task row", "backfill"),
        (states["stuck"], "are stuck, their worker is gone", "reset"),
        (
            failed + exhausted,
            "have failed"
            + (f" ({failed:,}) or used up their attempts ({exhausted:,})" if exhausted else ""),
            "retry",
        ),
        (states["drifted"], "are completed, but never moved on", "requeue"),
        (
            _sum(audit, "visible") - (here - failed),
            "pending rows are of tracks that have moved on",
            "prune",
        ),
    ]
    return [(f"{n:,} {why}", _command(action, pipeline)) for n, why, action in steps if n]


def _command(action: str, pipeline: str, narrow: str = "") -> str:
    file = "" if pipeline == "karaoke" else f" --pipeline {shlex.quote(pipeline)}"
    return f"queue-insights {action}{narrow}{file}"


def before_and_after(
    before: pd.DataFrame, after: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """Two answers of ``Queue.backlog()`` side by side: stage, task_type, and each of *columns* as
    ``COLUMN_before`` and ``COLUMN_after``."""
    step = ["stage", "task_type"]
    kept = [*step, *columns]
    both = before[kept].merge(after[kept], "left", on=step, suffixes=("_before", "_after"))
    counts = [f"{name}_{side}" for name in columns for side in ("before", "after")]
    zero = both[counts].fillna(0).astype("int64")  # of a kind of job that there is none of by now
    return both[step].join(zero)


def track_record(forecasts: pd.DataFrame) -> str:
    """How earlier ranges have held, the columns held and given of *forecasts* (``Queue.eta()`` or
    ``eta_end_to_end()``) summed: ``Of the last 120 such ranges, 97 held: 81%, where 80% should.``
    """
    held, given = _sum(forecasts, "held"), _sum(forecasts, "given")
    if not given:
        return "No such range could be checked against what happened yet."
    share = f"{held / given:.0%}"
    return f"Of the last {given:,} such ranges, {held:,} held: {share}, where 80% should."


def _sum(frame: pd.DataFrame, column: str) -> int:
    """Zero of a frame that this kind of queue has not got."""
    return 0 if "refused" in frame.attrs else int(frame[column].sum())
