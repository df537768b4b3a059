"""Forecasts: what they say of a queue, alone and from end to end, and where they say nothing."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import cases
from generators import GENERATORS, seven_steps
from mechanisms import DAY, HOUR, START, daily, events, frame, poisson, serve
from queue_insights.forecast import COLUMNS, backtest, forecast
from queue_insights.forecast.history import History, seconds


@pytest.fixture(scope="module")
def bursty() -> pd.DataFrame:
    return GENERATORS["bursty"](1)


# -- one step ------------------------------------------------------------------------------------


def step(log: pd.DataFrame, now: pd.Timestamp, **what_if):
    """The forecast from what had happened by now."""
    both = (seconds(log[name], name) for name in ("arrived_at", "completed_at"))
    came, went = (each[each <= now.timestamp()] for each in both)
    answer = forecast(History(came, went, max(0, len(went) - len(came))), now, **what_if)
    return SimpleNamespace(**dict.fromkeys(COLUMNS) | answer)


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


@cases(5)
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
    found = backtest(log, history="1D", min_waiting=least)
    given = found[["lower_seconds", "p50_seconds", "upper_seconds"]].to_numpy()
    assert (np.isnan(given).all(axis=1) | np.isfinite(given).all(axis=1)).all()
    ordered = given[np.isfinite(given[:, 0])]
    assert (np.diff(ordered, axis=1) >= 0).all()
    assert (ordered >= 0).all()
    answer = step(log, log["arrived_at"].max())
    assert answer.status in ("draining", "growing", "stalled", "empty", "insufficient_history")
    if answer.status in ("stalled", "insufficient_history"):
        assert answer.clear_p50_seconds is None


def simulated(
    seed: int,
    speed: Callable[[float], float],
    rate: Callable[[np.ndarray], np.ndarray],
    days: int = 30,
    extra: tuple[float, int] = (0, 0),
) -> pd.DataFrame:
    """Three servers who do 30 an hour at speed 1 (at ``speed(seconds)``), arrivals at up to 60 an
    hour, and at a moment so many ``extra`` (the last rows)."""
    rng = np.random.default_rng(seed)
    came = poisson(rng, rate, 60, days * DAY)
    came = np.concatenate([came, np.full(extra[1], extra[0])])
    done = serve(came, rng.exponential(3 * HOUR / 30, len(came)), 3, speed)
    return frame(came, done, np.inf)


# -- status --------------------------------------------------------------------------------------


@pytest.mark.proof
@pytest.mark.parametrize(("hourly", "status"), [(36, "growing"), (24, "draining")])
def test_a_fifth_more_or_less_than_is_done_shows_within_a_day(hourly: int, status: str) -> None:
    """After three weeks of as many arrivals as completions, and some hundreds waiting."""
    change, found = 21 * DAY, []
    rate = lambda t: np.where(t < HOUR, 60, np.where(t < change, 30, hourly))  # noqa: E731
    for seed in range(20):
        log = simulated(seed, lambda t: float(t > 8 * HOUR), rate, 23)
        found.append(step(log, START + pd.Timedelta("22D")).status)
    assert found.count(status) >= 19


@pytest.mark.proof
def test_the_status_of_a_steady_queue_does_not_flip_within_a_minute() -> None:
    pairs = same = 0
    for seed in range(4):
        log = simulated(seed, lambda t: float(t > 8 * HOUR), lambda t: np.full(t.shape, 29.8))
        for hour in range(15 * 24, 30 * 24, 12):
            now = START + pd.Timedelta(hours=hour + seed / 4)
            found = [step(log, at) for at in (now, now + pd.Timedelta("1min"))]
            if all(each.status in ("draining", "growing") for each in found):
                pairs += 1
                same += found[0].status == found[1].status
    assert pairs > 100
    assert same / pairs >= 0.99


def test_growth_is_judged_by_the_rates_that_are_shown_and_has_no_end() -> None:
    for name in ("growing", "bursty", "drifting"):
        log = GENERATORS[name](1)
        for day in (20, 21, 22.5, 30, 40.25):
            now = START + pd.Timedelta(days=day)
            found = step(log, now)
            since = now - pd.Timedelta(seconds=found.window_seconds)
            hours = found.window_seconds / 3600
            came, went = (log[c].between(since, now, inclusive="right").sum() for c in log)
            rates = (found.arrivals_per_hour, found.rate_per_hour, found.growth_per_hour)
            assert rates == pytest.approx([n / hours for n in (came, went, came - went)])
            growing = came - went > 2 * np.sqrt(came + went)
            assert (found.status == "growing") == growing
            assert (found.empty_p95_seconds is found.empty_p50_at is None) or not growing
            assert found.needed_per_hour == (found.arrivals_per_hour if growing else None)
    # 33 arrive an hour and 30 are done.
    found = step(GENERATORS["growing"](1), START + pd.Timedelta("40D"))
    assert found.clear_p50_seconds == pytest.approx(found.waiting / 30 * 3600, rel=0.1)


# -- what if -------------------------------------------------------------------------------------

MECHANISMS = {
    "steady": (lambda t: np.full(t.shape, 29), lambda t: 1.0),
    "bursty": (lambda t: daily(t, 3, 55), lambda t: 1.0),
    "backlog": (lambda t: np.where(t < 2 * DAY, 60, 25), lambda t: 1.0),
    "office": (lambda t: daily(t, 3, 16, 0.5), lambda t: float(t % DAY > DAY / 2)),
}


@pytest.mark.proof
@pytest.mark.parametrize(("speed", "extra"), [(2.0, 0), (0.5, 0), (1.0, 300), (1.5, 100)])
def test_what_if_ranges_hold_when_it_happens(speed: float, extra: int) -> None:
    held = []
    for rate, usual in MECHANISMS.values():
        for seed in range(10):
            at = (14 + 0.61 * seed) * DAY
            faster = lambda t, at=at, usual=usual: usual(t) * (speed if t > at else 1.0)  # noqa: E731
            log = simulated(seed, faster, rate, 24, (at, extra))
            now = START + pd.Timedelta(seconds=at)
            before = log.iloc[: len(log) - extra]
            found = step(before, now, speed=speed, extra=extra)
            done = log["completed_at"][log["completed_at"] > now].sort_values()
            if found.waiting >= 5 and found.clear_lower_seconds is not None:
                seconds = (done.iloc[found.waiting - 1] - now).total_seconds()
                held.append(found.clear_lower_seconds <= seconds <= found.clear_upper_seconds)
    assert len(held) >= 20
    assert 0.7 <= np.mean(held) <= 0.9


def test_nothing_changed_changes_nothing_and_twice_as_fast_takes_about_half() -> None:
    now = START + pd.Timedelta("20D")
    log = GENERATORS["growing"](1)
    asis, faster = step(log, now), step(log, now, speed=2)
    assert step(log, now, speed=1, extra=0) == asis
    assert faster.clear_p50_seconds == pytest.approx(asis.clear_p50_seconds / 2, rel=0.1)
    assert (asis.status, faster.status) == ("growing", "draining")
    assert faster.growth_per_hour == asis.arrivals_per_hour - 2 * asis.rate_per_hour
    assert faster.empty_p50_seconds > faster.clear_p50_seconds
    more = step(log, now, extra=asis.waiting)
    assert more.waiting == 2 * asis.waiting
    assert more.clear_p50_seconds == pytest.approx(asis.clear_p50_seconds * 2, rel=0.1)


# -- end to end ----------------------------------------------------------------------------------


@pytest.mark.proof
def test_ranges_end_to_end_hold_until_all_that_was_inside_is_through() -> None:
    """Seven steps, failures and retries, outages, taken as one queue that the last one completes:
    judged at past moments of six pipelines."""
    held = []
    for seed in range(31, 37):
        tracks, _ = seven_steps(seed, days=35, hourly=15.0)
        log = pd.DataFrame({"arrived_at": tracks["entered_at"], "completed_at": tracks["clip"]})
        for row in backtest(log, min_waiting=1).dropna().itertuples():
            inside = (tracks["entered_at"] <= row.origin) & (tracks["clip"] > row.origin)
            actual = (tracks.loc[inside, "clip"].max() - row.origin).total_seconds()
            held.append(row.lower_seconds <= actual <= row.upper_seconds)
    assert len(held) > 500
    assert 0.74 <= np.mean(held) <= 0.86
