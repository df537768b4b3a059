"""``Queue.backtest``: what eta would have said about the queue's own past."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from conftest import Bench, database
from queue_insights import demo, pipeline
from queue_insights.database import Database
from queue_insights.errors import InputError
from queue_insights.queue import Queue

LEVELS = (0.5, 0.8)
WIDTH = 300  # seconds: the times that eta has are so coarse
PAIRS = """
    SELECT before.completed_at, row.completed_at FROM audio_tasks AS row
    JOIN audio_tasks AS before ON before.spotify_track_id = row.spotify_track_id
    WHERE row.task_type = 'separate' AND before.task_type = 'translate'
      AND row.completed_at >= before.completed_at
"""


@pytest.fixture(scope="module")
def history(server: Callable[[str], str]) -> Iterator[Queue]:
    with database(server) as url:
        demo.seed(url, "a", 3000)
        yield Queue(Database(url), pipeline.load())


@pytest.fixture(scope="module")
def past(history: Queue) -> pd.DataFrame:
    return history.backtest("separate", LEVELS, min_waiting=5)


def test_there_is_a_row_for_every_level_and_moment(past: pd.DataFrame) -> None:
    first, second = (past[past["level"] == level] for level in LEVELS)
    assert list(first["origin"]) == list(second["origin"])
    assert len(first) > 30
    assert first["origin"].is_unique
    steps = first["origin"].diff().dropna() / pd.Timedelta("6h")
    assert (steps == steps.round()).all()
    assert set(past["task_type"]) == {"separate"}
    assert (past["waiting"] >= 5).all()


def test_held_says_whether_what_happened_lies_in_the_range(past: pd.DataFrame) -> None:
    given = past.dropna(subset=["lower_seconds"])
    inside = (given["lower_seconds"] <= given["actual_seconds"]) & (
        given["actual_seconds"] <= given["upper_seconds"]
    )
    assert given["held"].tolist() == inside.tolist()
    assert 0 < given["held"].sum() < len(given)
    assert past.loc[past["lower_seconds"].isna(), "held"].isna().all()


def test_waiting_and_what_came_of_it_are_what_the_rows_tell(
    history: Queue, past: pd.DataFrame
) -> None:
    with history.snapshot() as moment:
        rows = moment.connection.exec_driver_sql(PAIRS).all()
    came, done = (
        np.array([time.timestamp() for time in times]) for times in zip(*rows, strict=True)
    )
    now = int(history.backlog().set_index("task_type")["total"]["separate"])
    for row in past.itertuples():
        at, later = row.origin.timestamp(), row.origin.timestamp() + row.actual_seconds
        surely = ((came <= at - WIDTH) & (done > at + WIDTH)).sum()
        perhaps = ((came <= at + WIDTH) & (done > at - WIDTH)).sum()
        assert surely <= row.waiting <= perhaps + now
        assert ((done > at + WIDTH) & (done <= later - WIDTH)).sum() <= row.waiting
        assert ((done > at - WIDTH) & (done <= later + WIDTH)).sum() >= row.waiting


def test_all_steps_are_judged_in_pipeline_order(history: Queue) -> None:
    found = history.backtest(min_waiting=1)
    tasks = [step.task for step in history.pipeline.steps]
    assert list(found["task_type"].unique()) == tasks
    assert set(found["level"]) == {0.8}


def test_without_history_the_frame_is_empty_with_its_columns(bench: Bench) -> None:
    found = bench.queue.backtest()
    assert found.empty
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == {
        "level": "float64",
        "stage": "str",
        "task_type": "str",
        "origin": "datetime64[us, UTC]",
        "waiting": "int64",
        "actual_seconds": "float64",
        "p50_seconds": "float64",
        "lower_seconds": "float64",
        "upper_seconds": "float64",
        "status": "str",
        "held": "boolean",
    }


def test_who_has_waited_for_longer_than_is_looked_back_makes_no_past(bench: Bench) -> None:
    bench.track("an old one", "audio_ready")
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER USER")
    bench.sql("UPDATE tracks SET updated_at = now() - interval '60 days'")
    assert bench.queue.eta("align").waiting.tolist() == [1]
    assert len(bench.queue.backtest("align", min_waiting=1)) == 0


def test_what_makes_no_sense_is_refused(bench: Bench) -> None:
    for levels in ((), (0.8, 1.5)):
        with pytest.raises(InputError, match="level"):
            bench.queue.backtest(levels=levels)
    with pytest.raises(InputError, match="unknown task 'allign'"):
        bench.queue.backtest("allign")
