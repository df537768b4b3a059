"""Forecasts: what they say of a queue, alone and from end to end, and where they say nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import generators
from generators import GENERATORS, STEPS, as_known, seven_steps
from mechanisms import HOUR, START, WEEK, events, regular
from queue_insights.errors import InputError
from queue_insights.forecast import backtest, conformal, endtoend, forecast_step, pipeline


@pytest.fixture(scope="module")
def bursty() -> pd.DataFrame:
    return GENERATORS["bursty"](1)


# -- one step ------------------------------------------------------------------------------------


def step(log: pd.DataFrame, now: pd.Timestamp, waiting: int | None = None):
    return forecast_step(log["arrived_at"], log["completed_at"], now, waiting)


def test_a_stalled_queue_gets_no_finite_range() -> None:
    found = step(generators.stalled(1), START + pd.Timedelta("30D"))
    assert found.status == "stalled"
    assert found.clear_p50_seconds is found.clear_upper_seconds is found.empty_p50_at is None
    assert found.waiting > 1000
    assert "nothing completed for" in found.basis


def test_too_few_events_are_insufficient_history_and_none_waiting_is_empty() -> None:
    log = generators.nine(1)
    found = step(log, START + pd.Timedelta("21D"))
    assert (found.status, found.clear_p95_seconds) == ("insufficient_history", None)
    assert backtest(log, min_waiting=1)[["lower_seconds", "upper_seconds"]].isna().all(axis=None)
    now = START + pd.Timedelta("1D")
    assert step(events([1], [None]), now).status == "insufficient_history"
    assert step(events([1], [2]), now).status == "empty"
    nothing = step(events([], []), now)
    assert (nothing.status, nothing.clear_p95_seconds, nothing.clear_p50_at) == ("empty", 0.0, now)
    assert step(events([], []), now, waiting=5).status == "insufficient_history"


def test_a_growing_queue_has_a_finite_clear_no_empty_and_the_rate_it_needs() -> None:
    """33 arrive an hour and 30 are done."""
    found = step(GENERATORS["growing"](1), START + pd.Timedelta("40D"))
    assert found.status == "growing"
    assert found.empty_p95_seconds is found.empty_p50_at is None
    assert found.needed_per_hour == pytest.approx(33, rel=0.05)
    assert found.rate_per_hour == pytest.approx(30, rel=0.05)
    assert found.growth_per_hour == pytest.approx(found.arrivals_per_hour - found.rate_per_hour)
    assert found.clear_p50_seconds == pytest.approx(found.waiting / 30 * 3600, rel=0.1)


def test_a_draining_queue_empties_after_it_clears() -> None:
    """30 an hour are done and 10 arrive: 3000 items clear in 100 hours, and are gone in 150."""
    rng = np.random.default_rng(4)
    arrived = np.concatenate([np.zeros(9000), np.sort(rng.uniform(0, 600, 6000))])
    log = events(arrived, np.maximum(np.arange(1, 15001) / 30, arrived))
    now = START + pd.Timedelta(hours=300)  # 9000 done by then, 3000 arrived: 3000 wait
    found = step(log, now)
    assert (found.status, found.waiting) == ("draining", pytest.approx(3000, abs=60))
    assert found.clear_p50_seconds == pytest.approx(100 * 3600, rel=0.1)
    assert found.empty_p50_seconds == pytest.approx(150 * 3600, rel=0.15)
    assert found.needed_per_hour is None
    assert found.clear_p50_at == now + pd.Timedelta(seconds=round(found.clear_p50_seconds, 3))


def test_quantiles_ascend_and_the_record_is_that_of_its_own_ranges(bursty: pd.DataFrame) -> None:
    found = step(bursty, START + pd.Timedelta("60D18h"))
    assert 0 < found.clear_lower_seconds < found.clear_p50_seconds
    assert found.clear_p50_seconds < found.clear_p80_seconds < found.clear_p95_seconds
    assert found.clear_p80_seconds < found.clear_upper_seconds < found.clear_p95_seconds
    assert 60 < found.given <= 120
    assert 0.7 < found.held / found.given < 0.9
    assert f"of the last {found.given}, {found.held} held" in found.basis


def test_what_lies_after_now_is_ignored(bursty: pd.DataFrame) -> None:
    now = START + pd.Timedelta("40D18h")
    known = bursty[bursty["arrived_at"] <= now].copy()
    known["completed_at"] = known["completed_at"].where(known["completed_at"] <= now)
    assert step(bursty, now) == step(known, now)


def test_recent_history_and_the_number_waiting_suffice(bursty: pd.DataFrame) -> None:
    """A database gives the last weeks and what waits now, not all that ever happened."""
    now = START + pd.Timedelta("60D18h")
    since = now - pd.Timedelta("42D")
    waiting = int((bursty["arrived_at"] <= now).sum() - (bursty["completed_at"] <= now).sum())
    recent = forecast_step(
        bursty["arrived_at"][bursty["arrived_at"] > since],
        bursty["completed_at"][bursty["completed_at"] > since],
        now,
        waiting,
    )
    assert recent.clear_p50_seconds == pytest.approx(step(bursty, now).clear_p50_seconds, rel=0.05)


def test_a_weekend_seen_before_is_no_stall() -> None:
    found = step(GENERATORS["office"](1), pd.Timestamp("2025-02-09 20:00Z"))
    assert found.status in ("draining", "growing")
    assert found.clear_p50_at > pd.Timestamp("2025-02-10 14:00Z")  # Monday, 9:00 in New York


def test_a_naive_now_and_a_negative_number_waiting_are_refused() -> None:
    with pytest.raises(InputError, match="time zone"):
        step(regular(48), pd.Timestamp("2025-01-07"))
    with pytest.raises(InputError, match="negative"):
        step(regular(48), START + pd.Timedelta("1D"), waiting=-1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    items=st.lists(
        st.tuples(st.floats(0, 12), st.one_of(st.none(), st.floats(-2, 60))),
        min_size=1,
        max_size=80,
    ),
    least=st.integers(1, 5),
)
def test_any_history_gives_ordered_finite_ranges_or_none(items, least) -> None:
    arrived = np.cumsum([gap for gap, _ in items])
    log = events(arrived, arrived + np.array([wait for _, wait in items], float))
    for method in ("conformal", "rate", "block_bootstrap", "bootstrap"):
        found = backtest(log, history="1D", min_waiting=least, method=method)
        told = found[["lower_seconds", "p50_seconds", "upper_seconds"]].to_numpy()
        assert (np.isnan(told).all(axis=1) | np.isfinite(told).all(axis=1)).all()
        ordered = told[np.isfinite(told[:, 0])]
        assert (np.diff(ordered, axis=1) >= 0).all()
        assert (ordered >= 0).all()
    answer = step(log, log["arrived_at"].max())
    assert answer.status in ("draining", "growing", "stalled", "empty", "insufficient_history")
    if answer.status in ("stalled", "insufficient_history"):
        assert answer.clear_p50_seconds is None


# -- end to end ----------------------------------------------------------------------------------


def test_end_to_end_ranges_hold_and_beat_the_sum_of_the_steps() -> None:
    """Seven steps, failures and retries, outages: judged at past moments of four pipelines."""
    held, ours, sums = [], [], []
    for seed in (31, 32, 33, 34):
        tracks, share = seven_steps(seed, days=35, hourly=15.0)
        end = START + pd.Timedelta("35D")
        past = endtoend.read_tracks(as_known(tracks, end), STEPS, end.timestamp())
        origins = np.arange(past.whole.first + WEEK, end.timestamp(), 6 * HOUR)
        told = endtoend.ranges(past, origins, np.full(7, share), 0.8, (0.1, 0.9))
        per_step = np.zeros((len(origins), 2))
        for queue in past.steps:
            use = ~queue.stalled(origins)
            alone = conformal.ranges(queue, origins, 6 * HOUR, 0.8, use, (0.1, 0.9))
            alone[~use] = np.nan  # as forecast_step says nothing of a stalled step
            per_step += np.where((queue.waiting(origins) == 0)[:, None], 0.0, alone)
        for place, origin in enumerate(pd.to_datetime(origins, unit="s", utc=True)):
            inside = (tracks["entered_at"] <= origin) & (tracks["clip"] > origin)
            actual = (tracks.loc[inside, "clip"].max() - origin).total_seconds()
            if origins[place] + actual < end.timestamp() and not np.isnan(told[place, 0]):
                held.append(told[place, 0] <= actual <= told[place, 1])
                ours.append(interval_score(actual, *told[place]))
                sums.append(interval_score(actual, *per_step[place]))
    assert len(held) > 350
    assert 0.7 <= np.mean(held) <= 0.9
    compared = np.isfinite(sums)
    assert compared.mean() > 0.6
    assert np.mean(np.array(ours)[compared]) < np.mean(np.array(sums)[compared])


def test_pipeline_gives_the_last_of_its_own_past_ranges() -> None:
    tracks, share = seven_steps(31, days=20)
    now = START + pd.Timedelta("16D")
    known = as_known(tracks, now)
    found = pipeline(known, STEPS, now, dict.fromkeys(STEPS, share))
    assert found.inside == ((tracks["entered_at"] <= now) & (tracks["clip"] > now)).sum()
    assert 0 < found.lower_seconds < found.p50_seconds < found.p80_seconds < found.upper_seconds
    assert found.p50_at == now + pd.Timedelta(seconds=round(found.p50_seconds, 3))
    assert 0.6 < found.held / found.given <= 1.0
    assert found == pipeline(as_known(tracks, now), STEPS, now, dict.fromkeys(STEPS, share))


def interval_score(actual: float, lower: float, upper: float) -> float:
    return upper - lower + 10 * max(lower - actual, 0) + 10 * max(actual - upper, 0)


def test_a_pipeline_that_is_empty_or_new_and_frames_that_cannot_be_used() -> None:
    tracks, _ = seven_steps(1, days=8)
    end = tracks["clip"].max()
    done = pipeline(as_known(tracks, end), STEPS, end)
    assert (done.status, done.inside, done.p95_seconds, done.p95_at) == ("empty", 0, 0.0, end)
    early = START + pd.Timedelta("3h")
    young = pipeline(as_known(tracks, early), STEPS, early)
    assert (young.status, young.p95_seconds) == ("insufficient_history", None)
    assert young.inside > 0
    now = START + pd.Timedelta("2D")
    known = as_known(tracks, now)
    with pytest.raises(InputError, match="clip"):
        pipeline(known.drop(columns="clip"), STEPS, now)
    with pytest.raises(InputError, match="due"):
        pipeline(known.assign(due="polish"), STEPS, now)
    with pytest.raises(InputError, match="failure_share"):
        pipeline(known, STEPS, now, {"clip": 1.5})
