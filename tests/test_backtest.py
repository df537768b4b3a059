"""Past ranges keep their word: on queues of known mechanism, without a look into the future."""

import numpy as np
import pandas as pd
import pytest

from generators import GENERATORS
from mechanisms import START, regular
from queue_insights.errors import InputError
from queue_insights.forecast import backtest
from rivals import by_rival, score


@pytest.fixture(scope="module")
def bursty() -> pd.DataFrame:
    return GENERATORS["bursty"](1)


@pytest.fixture(scope="module")
def bursty_ranges(bursty: pd.DataFrame) -> pd.DataFrame:
    return backtest(bursty)


def test_backtest_gives_one_row_per_origin_where_enough_waits_and_the_answer_is_known(
    bursty: pd.DataFrame, bursty_ranges: pd.DataFrame
) -> None:
    first, expected = bursty["arrived_at"].min() + pd.Timedelta("7D"), []
    done = bursty["completed_at"].dropna().sort_values()
    for origin in pd.date_range(first, bursty.max().max(), freq="6h"):
        waiting = int((bursty["arrived_at"] <= origin).sum() - (done <= origin).sum())
        later = done[done > origin]
        if waiting >= 20 and len(later) >= waiting:
            seconds = (later.iloc[waiting - 1] - origin).total_seconds()
            expected.append((origin, waiting, seconds))
    seconds = ["actual_seconds", "p50_seconds", "lower_seconds", "upper_seconds"]
    assert list(bursty_ranges.columns) == ["origin", "waiting", *seconds, "status"]
    found = bursty_ranges[["origin", "waiting", "actual_seconds"]]
    assert len(found) == len(expected)
    apart = found["origin"] - pd.Series([row[0] for row in expected])
    assert (apart.abs() < pd.Timedelta("1ms")).all()
    assert list(found["waiting"]) == [row[1] for row in expected]
    np.testing.assert_allclose(found["actual_seconds"], [row[2] for row in expected], atol=1e-3)


@pytest.mark.proof
def test_nothing_after_an_origin_changes_its_forecast() -> None:
    """A queue whose answers take days, so that many are outstanding where the future changes."""
    log, cut = GENERATORS["growing"](1), START + pd.Timedelta("30D")
    altered = log[log["arrived_at"] <= cut].copy()
    late = altered["completed_at"] > cut
    altered.loc[late, "completed_at"] = cut + (altered["completed_at"] - cut)[late] * 7
    flood = START + pd.to_timedelta(np.linspace(30.01, 60, 9000), unit="D")
    added = pd.DataFrame({"arrived_at": flood, "completed_at": flood + pd.Timedelta("1h")})
    found = [backtest(events) for events in (log, pd.concat([altered, added]))]
    one, other = (each[each["origin"] <= cut].set_index("origin") for each in found)
    both = one.index.intersection(other.index)
    assert len(both) > 40
    apart = (one["actual_seconds"] - other["actual_seconds"]).abs()
    assert (apart[both] > 60).sum() >= 5
    known = ["waiting", "p50_seconds", "lower_seconds", "upper_seconds", "status"]
    pd.testing.assert_frame_equal(one.loc[both, known], other.loc[both, known], rtol=1e-9)


REQUIRED = ["steady", "bursty", "rate_step", "hourly_batch", "growing"]


@pytest.mark.proof
def test_ranges_hold_as_often_as_they_say_and_beat_simple_methods() -> None:
    """76% to 84% of the 80% ranges hold on every kind, pooled over seeds; their interval score is
    lower on the whole (where a rate is constant, nothing knows more than the average), and nowhere
    far above."""
    beside: dict[str, list[float]] = {"block_bootstrap": [], "rate": []}
    for name in REQUIRED:
        logs = [GENERATORS[name](seed) for seed in range(11, 17)]
        ours = [backtest(log) for log in logs]
        pooled = score(pd.concat(ours))
        assert 0.76 <= pooled["coverage"] <= 0.84, name
        assert pooled["abstained"] <= 0.2
        for method, ratios in beside.items():
            pairs = zip(logs, ours, strict=True)
            theirs = pd.concat([by_rival(method, log, found) for log, found in pairs])
            both = (
                theirs["p50_seconds"].notna() & pd.concat(ours)["p50_seconds"].notna()
            ).to_numpy()
            mine, other = score(pd.concat(ours)[both]), score(theirs[both])
            ratios.append(mine["winkler"] / other["winkler"])
    for method, ratios in beside.items():
        assert np.exp(np.mean(np.log(ratios))) < 1, (method, ratios)
        assert max(ratios) < 1.3, (method, ratios)


@pytest.mark.proof
@pytest.mark.parametrize("name", sorted(set(GENERATORS) - {*REQUIRED, "rate_change"}))
def test_ranges_hold_on_every_other_kind_of_queue(name: str) -> None:
    pooled = score(pd.concat([backtest(GENERATORS[name](seed)) for seed in (21, 22)]))
    assert 0.70 <= pooled["coverage"] <= 0.90
    assert pooled["abstained"] <= 0.2


@pytest.mark.proof
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_other_levels_hold_too(bursty: pd.DataFrame, level: float) -> None:
    assert abs(score(backtest(bursty, level=level), level=level)["coverage"] - level) < 0.06


# -- inputs --------------------------------------------------------------------------------------


def test_order_zone_and_resolution_of_the_events_do_not_matter(
    bursty: pd.DataFrame, bursty_ranges: pd.DataFrame
) -> None:
    """Zones may be mixed in one column, and the clock of New York changes on the way."""
    other = bursty.sample(frac=1, random_state=2)
    zones = ["UTC", "Europe/Berlin", "America/New_York"]
    mixed = [time.tz_convert(zones[i % 3]) for i, time in enumerate(other["arrived_at"])]
    other["arrived_at"] = pd.Series(mixed, index=other.index, dtype=object)
    other["completed_at"] = other["completed_at"].dt.tz_convert("Asia/Kolkata").dt.as_unit("ns")
    pd.testing.assert_frame_equal(backtest(other), bursty_ranges)


def test_what_cannot_be_used_is_refused_in_one_line() -> None:
    log = regular(48)
    came = log["arrived_at"]
    naive = [time if i % 2 else time.tz_localize(None) for i, time in enumerate(came)]
    for events, argument, said in (
        (log.drop(columns="completed_at"), {}, "no column completed_at"),
        (log.assign(arrived_at=came.dt.tz_localize(None)), {}, "time zone"),
        (log.assign(completed_at=1.5), {}, "time zone"),
        (log.assign(arrived_at=came.astype(str)), {}, "time zone"),
        (log.assign(arrived_at=naive), {}, "time zone"),
        (log.assign(arrived_at=came.mask(log.index == 3)), {}, "1 rows"),
        *((log, {"every": every}, "every") for every in ("soon", "-6h")),
        *((log, {"level": level}, "level") for level in (1.0, 0)),
        (log, {"history": "0h"}, "history"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            backtest(events, **argument)
        assert "\n" not in str(caught.value)
