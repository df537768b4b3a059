"""``Queue.eta``: what it reckons with is what the rows say, and it refuses where it cannot know."""

import json
from datetime import timedelta

import pandas as pd
import pytest

from conftest import STAGE_OF, TASKS, Fresh
from operating import command, many
from queue_insights.errors import InputError
from queue_insights.forecast import steps
from queue_insights.queue import Queue
from queue_insights.sql.frames import fetch

# Arrivals of what was completed since, or waits or is worked on now, by plain SQL.
ARRIVED = """
    SELECT count(*) FROM tracks AS track
    LEFT JOIN audio_tasks AS row ON row.spotify_track_id = track.spotify_track_id
                                AND row.task_type = %(task)s
    LEFT JOIN audio_tasks AS before ON before.spotify_track_id = track.spotify_track_id
                                   AND before.task_type = %(before)s
    WHERE (row.completed_at IS NOT NULL OR track.stage = %(stage)s AND (row.id IS NULL
            OR row.status IN ('pending', 'failed') AND row.attempts < row.max_attempts
            OR row.status = 'running' AND row.last_attempt_at >= now() - interval '30 min'))
      AND coalesce(before.completed_at, row.created_at, track.updated_at) >= %(start)s
      AND coalesce(before.completed_at, row.created_at, track.updated_at) < %(end)s
"""
COMPLETED = """
    SELECT count(*) FROM audio_tasks WHERE task_type = %(task)s AND spotify_track_id IS NOT NULL
    AND completed_at >= %(start)s AND completed_at < %(end)s
"""


def test_it_reckons_with_the_arrivals_and_completions_that_the_rows_tell(history: Queue) -> None:
    with history.snapshot() as moment:
        found = history._read("eta", task=None).set_index("task_type")
        for before, task in zip((None, *TASKS), TASKS, strict=False):
            for kind, query in (("arrivals", ARRIVED), ("completions", COMPLETED)):
                numbers, counts = found.loc[task, [f"{kind}_interval", f"{kind}_n"]]
                told = pd.Series(counts, index=numbers).groupby(lambda i: i // 288).sum()
                for day in (0, 1, 20, 44):
                    start = moment.as_of - steps.HISTORY + timedelta(days=day)
                    span = {"start": start, "end": start + timedelta(days=1)}
                    names = {"task": task, "before": before, "stage": STAGE_OF[task]}
                    expected = moment.connection.exec_driver_sql(query, span | names).scalar_one()
                    assert told.get(day, 0) == expected, (task, kind, day)


def test_it_gives_no_range_where_it_cannot_know(fresh: Fresh) -> None:
    bench = fresh("a")
    now = bench.queue.as_of
    few, long_ago = range(1, 10), range(48, 348)  # nothing for two days, after one an hour
    for task, hours in (("align", few), ("translate", long_ago)):
        many(bench, STAGE_OF[task], 30, task)
        for ago in hours:
            done = now - timedelta(hours=ago)
            times = {"completed_at": done, "last_attempt_at": done}
            times["created_at"] = done - timedelta(hours=2)
            bench.task(bench.track(f"{task} {ago}", "ready"), task, "completed", **times)
    found = bench.queue.eta().set_index("task_type")
    expected = {"align": "insufficient_history", "translate": "stalled", "clip": "empty"}
    assert found["status"][list(expected)].to_dict() == expected
    for task in ("align", "translate"):
        assert found.loc[task, "waiting"] == 30
        assert found.loc[task].filter(regex="^(clear|empty)_").isna().all()
    assert found.loc["clip", "clear_p95_seconds"] == 0


def test_the_stuck_and_the_exhausted_are_not_waited_for_and_no_past_has_a_frame(
    fresh: Fresh,
) -> None:
    bench = fresh("b")
    bench.task(bench.track("stuck", "audio_ready"), "align", "running", attempts=1)
    bench.task(bench.track("exhausted", "audio_ready"), "align", "failed", attempts=3)
    bench.track("waits", "audio_ready")
    with bench.queue.snapshot():
        found = bench.queue.eta("align")
        assert found[["waiting", "status"]].values.tolist() == [[1, "insufficient_history"]]
        assert bench.queue._read("eta", task="align")[["moving"]].iloc[0].tolist() == [1]
        assert sum(bench.queue._read("eta", task="align")["arrivals_n"][0]) == 1
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER USER")
    bench.sql("UPDATE tracks SET updated_at = now() - interval '60 days'")
    assert bench.queue.eta("align").waiting.tolist() == [1]
    found = bench.queue.backtest(min_waiting=1)
    assert found.empty  # who has waited for longer than is looked back makes no past
    seconds = ("actual_seconds", "p50_seconds", "lower_seconds", "upper_seconds")
    assert list(found.dtypes.astype(str).items()) == [
        *(("level", "float64"), ("stage", "str"), ("task_type", "str")),
        *(("origin", "datetime64[us, UTC]"), ("waiting", "int64")),
        *((name, "float64") for name in seconds),
        *(("status", "str"), ("held", "boolean")),
    ]


# -- what if --------------------------------------------------------------------------------------


def test_what_if_stands_beside_what_is(history: Queue, history_url: str) -> None:
    with history.snapshot():
        standing = history.backlog().set_index("task_type")[["stuck", "exhausted", "drifted"]]
        task, state = standing.stack().idxmax()
        others = [name for name in TASKS if name != task]
        asis = history.eta()
        found = history.eta(speed={task: 2}, extra={task: state, others[0]: 7})
    idle = standing.loc[task, state]
    assert idle > 0
    pd.testing.assert_frame_equal(found[asis.columns], asis)
    rows = found.set_index("task_type")
    more = rows["if_waiting"] - rows["waiting"]
    assert more[[task, *others[:2]]].tolist() == [idle, 7, 0]
    assert rows["if_rate_per_hour"][task] == 2 * rows["rate_per_hour"][task]
    same = rows.loc[others[1:]]
    for name in ("status", "clear_p50_seconds", "clear_upper_seconds", "clear_p80_at"):
        pd.testing.assert_series_equal(same[f"if_{name}"], same[name], check_names=False)
    assert same["assumption"].isna().all()
    assert rows["assumption"][task] == (
        f"2 times the speed from now on, {idle:,} more waiting now; arrivals as they are"
    )
    assert found.dtypes["if_clear_p80_at"] == asis.dtypes["clear_p80_at"]
    line = f"eta --speed {task}=2 --extra {task}={state} --extra {others[0]}=7 --format json"
    result = command(history_url, *line.split())
    records = json.loads(result.stdout)
    assert list(records[0]) == list(found.columns)
    assert [row["if_waiting"] for row in records] == found["if_waiting"].tolist()


def test_what_cannot_be_supposed_is_refused(history: Queue, history_url: str) -> None:
    for given, said in (
        ({"speed": {"allign": 2}}, "did you mean 'align'"),
        ({"speed": {"align": 0}}, "speed of align: found 0"),
        ({"extra": {"align": "pending"}}, "'pending', expected a number, or one of stuck"),
    ):
        with pytest.raises(InputError, match=said):
            history.eta(**given)
    with pytest.raises(InputError, match="level"):
        history.backtest(levels=(0.8, 1.5))
    for line in ("--speed align", "--speed align=2 --speed align=3"):
        result = command(history_url, "eta", *line.split())
        assert result.exit_code == 2
        assert "expected STEP=" in result.stderr


# -- from end to end ------------------------------------------------------------------------------

THROUGH = """
    SELECT count(*) FILTER (WHERE completed_at >= %(start)s) FROM audio_tasks
    WHERE task_type = 'clip' AND spotify_track_id IN (
        SELECT spotify_track_id FROM tracks WHERE stage NOT IN (SELECT unnest(%(inside)s::text[])))
      AND spotify_track_id IN (
        SELECT spotify_track_id FROM audio_tasks WHERE created_at >= %(start)s)
"""


def test_the_pipeline_is_one_queue_that_the_last_step_completes(history: Queue) -> None:
    with history.snapshot() as moment:
        found = fetch(moment.connection, history._end_to_end()).iloc[0]
        said = history.eta_end_to_end().iloc[0]
        backlog = history.backlog()
        span = {"start": moment.as_of - steps.HISTORY, "inside": list(STAGE_OF.values())}
        through = moment.connection.exec_driver_sql(THROUGH, span).scalar_one()
    moving = ("missing", "pending", "retryable", "backing_off", "running")
    assert found["moving"] == said["inside"] == backlog[list(moving)].to_numpy().sum()
    assert abs(sum(found["completions_n"]) - through) <= 2  # a few stand at a step once more
    assert said["lower_seconds"] < said["p50_seconds"] < said["p80_seconds"] < said["upper_seconds"]
    assert said["status"] in ("draining", "growing")


# -- what eta would have said about the queue's own past ----------------------------------------


def test_the_past_has_a_row_for_every_level_and_moment_which_held_or_not(history: Queue) -> None:
    past = history.backtest("separate", (0.5, 0.8), min_waiting=5)
    first, second = (past[past["level"] == level] for level in (0.5, 0.8))
    assert first["origin"].is_monotonic_increasing
    assert first["origin"].is_unique
    assert list(first["origin"]) == list(second["origin"])
    assert len(first) > 30
    apart = first["origin"].diff().dropna() / pd.Timedelta("6h")
    assert (apart == apart.round()).all()
    assert set(past["task_type"]) == {"separate"}
    assert (past["waiting"] >= 5).all()
    given = past.dropna(subset=["lower_seconds"])
    inside = given["actual_seconds"].between(given["lower_seconds"], given["upper_seconds"])
    assert given["held"].tolist() == inside.tolist()
    assert 0 < given["held"].sum() < len(given)
    assert past.loc[past["lower_seconds"].isna(), "held"].isna().all()
    found = history.backtest(min_waiting=1)
    assert list(found["task_type"].unique()) == TASKS
    assert set(found["level"]) == {0.8}
