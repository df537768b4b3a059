"""What is said of three weeks of jobs, against what a simulation wrote down about each."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import numpy as np
import pandas as pd
import psycopg
import pytest

from conftest import Url, database
from mechanisms import HOUR, daily, poisson, serve
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue
from vendors import HERE

pytestmark = [pytest.mark.queues, pytest.mark.database]
WIDTH = 300  # seconds: the times that eta has are so coarse
DAYS = 21
# Arrivals an hour at night and by day, workers, seconds that a job takes.
KINDS = {"transcode": (10, 50, 4, 350.0), "embed": (3, 15, 1, 300.0)}
COPY = """
    COPY river_job (kind, state, max_attempts, created_at, scheduled_at, attempted_at, finalized_at)
    FROM STDIN
"""


@pytest.fixture(scope="module")
def jobs() -> pd.DataFrame:
    """Those of three weeks that end now: kind, state, and made, came (when it was due last),
    started (the last attempt) and ended as times (NaT: not yet)."""
    now, rng = pd.Timestamp.now("UTC"), np.random.default_rng(3)
    start = (now - pd.Timedelta(days=DAYS)).floor("h")
    end, kinds = (now - start).total_seconds(), []
    for kind, (night, day, workers, mean) in KINDS.items():
        came = poisson(rng, partial(daily, low=night, high=day), day, end + HOUR)
        took = rng.exponential(mean, len(came))
        ended = serve(came, took, workers)
        times = {"came": came, "started": ended - took, "ended": ended}
        kinds.append(pd.DataFrame({"kind": kind} | times))
    found = pd.concat(kinds, ignore_index=True)
    chosen = rng.choice(["completed", "discarded", "cancelled"], len(found), p=[0.93, 0.05, 0.02])
    again = (found["ended"] > end - 4 * HOUR) & (rng.uniform(size=len(found)) < 0.3)
    not_yet = [found[name] > end for name in ("came", "started", "ended")]
    states = ["scheduled", "available", "running", "retryable"]
    found.insert(1, "state", np.select([*not_yet, again], states, chosen))
    found.insert(2, "made", found["came"].clip(upper=end) - HOUR)
    state = found["state"]
    found["came"] = found["came"].mask(state == "retryable", found["ended"] + 900)
    cancelled = state == "cancelled"  # when its turn came
    found["ended"] = found["ended"].mask(cancelled, found["started"]).mask(state.isin(states))
    found["started"] = found["started"].mask(cancelled | state.isin(states[:2]))
    for name in ("made", "came", "started", "ended"):
        found[name] = start + pd.to_timedelta(found[name], unit="s").dt.round("ms")
    assert 15_000 < len(found) < 30_000
    assert {"scheduled", "retryable", "completed", "discarded", "cancelled"} <= set(state)
    return found


@pytest.fixture(scope="module")
def history(jobs: pd.DataFrame, server: Url) -> Iterator[Queue]:
    tables = (HERE / "river.sql").read_text("utf-8").split("DELETE FROM truth")[0]
    with database(server) as url:
        with psycopg.connect(url) as connection:
            connection.execute(tables.encode())
            with connection.cursor().copy(COPY) as copy:
                for kind, state, *times in jobs.astype(object).where(jobs.notna(), None).to_numpy():
                    copy.write_row((kind, state, 3, *times))
            connection.execute("ANALYZE")
        yield Queue(Database(url), pipeline.load("river"))


def test_throughput_is_what_came_was_done_and_failed(history: Queue, jobs: pd.DataFrame) -> None:
    found = history.throughput(f"{DAYS - 1}D", "1D")
    assert set(found["task_type"]) == set(KINDS)
    here = jobs[jobs["came"] <= history.as_of]
    failed = jobs[jobs["state"].isin(["retryable", "discarded"])]
    columns = {
        "arrivals": here["came"],
        "completions": jobs.loc[jobs["state"] == "completed", "ended"],
        "failures": failed["started"],
    }
    for column, times in columns.items():
        days = times.dt.floor("D")
        expected = days.groupby([jobs["kind"], days]).size()
        keys = list(zip(found["task_type"], found["bucket"], strict=True))
        assert found[column].tolist() == expected.reindex(keys, fill_value=0).tolist(), column
        assert found[column].sum() > 0


def test_durations_are_those_of_the_last_attempt(history: Queue, jobs: pd.DataFrame) -> None:
    done = jobs[jobs["state"] == "completed"]
    found = history.durations("7D").set_index("task_type")
    done = done[done["ended"] >= history.as_of - timedelta(days=7)]
    for kind, of_kind in done.groupby("kind"):
        assert found.loc[kind, "completions"] == len(of_kind)
        for name, took in (
            ("run", of_kind["ended"] - of_kind["started"]),
            ("waiting", of_kind["started"] - of_kind["came"]),
        ):
            expected = np.quantile(took.dt.total_seconds(), [0.5, 0.9, 0.99])
            given = found.loc[kind, [f"{name}_p{n}_seconds" for n in (50, 90, 99)]]
            assert given.tolist() == pytest.approx(expected, abs=0.01)


def test_flow_is_how_many_were_there_at_every_hour(history: Queue, jobs: pd.DataFrame) -> None:
    found = history.flow(f"{DAYS - 1}D", "1h")
    assert len(found) >= (DAYS - 1) * 24 * len(KINDS)
    assert found["depth"].max() > 50
    here = jobs[jobs["came"] <= history.as_of]
    taken = here["started"].where(here["state"].isin(["completed", "discarded", "running"]))
    taken = taken.fillna(here["ended"])
    for kind, rows in found.groupby("task_type"):
        edges, of_kind = rows["bucket"], here["kind"] == kind
        came, took, went = (
            np.searchsorted(times[of_kind].dropna().sort_values(), edges)
            for times in (here["came"], taken, here["ended"])
        )
        assert rows["depth"].tolist() == (came - went).tolist()
        assert rows["waiting"].tolist() == (came - took).tolist()
        left = here.loc[of_kind & here["state"].isin(["cancelled", "discarded"]), "ended"]
        assert rows["left"].sum() == (left >= edges.iloc[0]).sum() > 0


def test_eta_reckons_with_what_waits_and_what_was_done(history: Queue, jobs: pd.DataFrame) -> None:
    found = history.eta().set_index("task_type")
    waits = jobs["state"].isin(["available", "retryable", "scheduled"])  # due or not
    assert found["waiting"].to_dict() == waits.groupby(jobs["kind"]).sum().to_dict()
    assert set(found["status"]) <= {"growing", "draining", "empty"}


@pytest.mark.parametrize("kind", KINDS)
def test_its_record_is_what_truly_came_of_it(history: Queue, jobs: pd.DataFrame, kind: str) -> None:
    past = history.backtest(kind, (0.8,), min_waiting=5)
    assert len(past) > 10
    of_kind, width = jobs[jobs["kind"] == kind], pd.Timedelta(seconds=WIDTH)
    done = of_kind.loc[of_kind["state"] == "completed", "ended"]
    left = of_kind["state"].isin(["cancelled", "discarded"])  # nobody waited for that
    for row in past.itertuples():
        at, later = row.origin, row.origin + pd.Timedelta(seconds=row.actual_seconds)
        surely = (of_kind["came"] <= at - width) & ~(of_kind["ended"] <= at + width) & ~left
        perhaps = (of_kind["came"] <= at + width) & ~(of_kind["ended"] <= at - width)
        assert surely.sum() <= row.waiting <= perhaps.sum()
        assert done.between(at + width, later - width).sum() <= row.waiting
        assert done.between(at - width, later + width).sum() >= row.waiting
    assert past["held"].mean() > 0.5
