"""What is said of three weeks of jobs, against what a simulation wrote down about each."""

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pandas as pd
import psycopg
import pytest

from conftest import Url, database
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue
from vendors.simulated import DAYS, KINDS, World, simulate

pytestmark = [pytest.mark.queues, pytest.mark.database]
WIDTH = 300  # seconds: the times that eta has are so coarse


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(seed=3)


@pytest.fixture(scope="module")
def history(world: World, server: Url) -> Iterator[Queue]:
    with database(server) as url:
        with psycopg.connect(url) as connection:
            world.write(connection)
        yield Queue(Database(url), pipeline.load("river"))


@pytest.fixture(scope="module")
def jobs(world: World) -> pd.DataFrame:
    """One row for each job: kind, state, and came, started, ended as times (NaT: not yet)."""
    found = pd.DataFrame(world.jobs)
    for name in ("came", "started", "ended"):
        since = pd.to_timedelta(found[name], unit="s").dt.round("ms")
        found[name] = pd.Timestamp(world.start) + since
    assert 15_000 < len(found) < 30_000
    assert {"cancelled", "completed", "discarded"} <= set(found["state"])
    return found


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
    done = jobs[(jobs["state"] == "completed")]
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
    with history.snapshot():
        found = history.eta().set_index("task_type")
        assert (
            found["waiting"].to_dict()
            == history.backlog().set_index("task_type")["waiting"].to_dict()
        )
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
