"""How long until the work that waits is done: a range from many estimates and their past errors.

At every moment a couple of dozen simple *experts* say how long ``target`` completions will take:
rates over windows from six hours to ninety days, over the time in which work waited, the time
that as many completions took last, and replays of the past days and weeks. They are put to the
same question at *trials*, moments before the origin whose answer was known at the origin. The
centre is the experts' mean (of logarithms), corrected for their bias and weighted by the inverse
of their squared errors; the range is the weighted quantiles of the centre's own errors at trials
like the present one (alike in length, hour, weekday and trend; conformal prediction for
dependent data, Barber et al., "Conformal prediction beyond exchangeability", 2023), and its
width follows the hits and misses of the ranges given before, each counted once it is known
(Gibbs and Candes, "Adaptive conformal inference under distribution shift", 2021).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from queue_insights.forecast.history import DAY, HOUR, WEEK, Bools, Floats, History, Ints

TRIALS_PER_STEP = 3  # trials between two origins, at the same minutes of the hour where it divides
TARGETS = (1.0, 0.3)  # as many completions as items wait; and a part, whose answer comes sooner
MIN_TARGET = 5
MIN_TRIALS = 10  # answers known, before a range is given
MIN_COMPLETIONS = 20
MEMORY, HORIZONS = 45 * DAY, 8.0  # trials older than both this and so many horizons are forgotten
HALF_LIFE, RESIDUAL_HALF_LIFE = 30 * DAY, 40 * DAY
LEVEL = 0.8  # of a forecast's range
TOLD = (0.5, 0.8, 0.95, (1 - LEVEL) / 2, 1 - (1 - LEVEL) / 2)  # what is told of it, see ``told``
STEP, LOOK_BACK, WARM_UP = 6 * HOUR, 30 * DAY, 10 * DAY  # its past origins, and trials before
WINDOWS = (6 * HOUR, DAY, 3 * DAY, WEEK, 4 * WEEK, 90 * DAY)
BUSY_WINDOWS = (DAY, 3 * DAY, WEEK, 4 * WEEK)
SHIFT, FEW = 0.25, 0.2  # how much noise a common shift must stand out from, and the extra spread
DELAY = 0.2  # log error beyond which being late is taken as a delay, not as a slower pace
LEARNING, SKEW, DAMPING, WIDEST, NARROWEST = 0.25, 0.02, 1.0, 1.0, -3.0


@dataclass(frozen=True)
class Trials:
    """Moments at which the question was put, in order."""

    place: Ints  # on the grid, 0 at the first origin
    whole: Bools  # the target is all that waited
    began: Floats
    experts: Floats  # log seconds, one column each
    prior: Floats  # variance to expect of each, before any error is known
    took: Floats  # seconds, NaN if never
    targets: int  # trials at one moment, at most


def grid(history: History, origins: Floats, step: float, reach: float) -> tuple[Ints, Floats]:
    """(place, moment) of all that may be trials: from ``reach`` seconds before the first origin,
    or a day after the first event, to the last origin."""
    before = max(int(min(origins[0] - history.first - DAY, reach) // step), 0)
    place = np.arange(-before * TRIALS_PER_STEP, (len(origins) - 1) * TRIALS_PER_STEP + 1)
    return place, origins[0] + place * (step / TRIALS_PER_STEP)


def at_origin(place: Ints) -> Bools:
    found: Bools = (place >= 0) & (place % TRIALS_PER_STEP == 0)
    return found


def experts(history: History, began: Floats, target: Ints) -> tuple[Floats, Floats]:
    """(log seconds that ``target`` completions after ``began`` will take, variance to expect).

    Shape (trials, experts); each looks only at what had happened by ``began``. The variance is
    that of a count, 1/completions looked at, and a little that no count removes.
    """
    done = history.done(began)
    span = np.maximum(began - history.first, HOUR)

    def rate(window: float) -> tuple[Floats, Floats]:
        length = np.minimum(window, span)
        count: Floats = (done - history.done(began - length)).astype(float) + 0.5
        return np.log(target * length / count), count

    said = [rate(window) for window in WINDOWS]
    for share in (0.5, 1.0, 2.0):
        last = np.clip(np.ceil(target * share).astype(np.int64), 1, done)
        took = began - history.completions[done - last]
        said.append((np.log(np.maximum(took, 1e-3) * target / last), last.astype(float)))
    weekly, weekly_count = rate(WEEK)
    seen = np.minimum(target, weekly_count)
    days = np.stack([_replay(history, began, target, done, day) for day in range(1, 8)])
    fortnight = _replay(history, began, target, done, 14)
    said += [(days[0], seen), (days[6], seen)]
    said += [(days.mean(axis=0), 5 * seen), (np.median(days, axis=0), 5 * seen)]
    said.append(((days[6] + fortnight) / 2, 2 * seen))
    busy_rates = _busy_rates(history, began, target)
    for window, busy in zip(BUSY_WINDOWS, busy_rates, strict=True):
        said.append((np.where(np.isnan(busy), weekly, busy), 0.7 * rate(window)[1]))
    found, counts = (np.stack(each, axis=-1) for each in zip(*said, strict=True))
    middle = np.median(found, axis=1, keepdims=True)
    return np.clip(found, middle - 1.5, middle + 1.5), 1 / counts + 0.003


def _replay(history: History, began: Floats, target: Ints, done: Ints, days: int) -> Floats:
    """Log seconds to ``target`` completions if the last ``days`` days were repeated for ever."""
    whole = np.maximum(np.floor((began - history.first) / DAY), 1.0)
    period = np.minimum(float(days), whole) * DAY
    before = history.done(began - period)
    count = np.maximum(done - before, 1)
    rounds, rest = (target - 1) // count, (target - 1) % count
    at = history.completions[np.minimum(before + rest, len(history.completions) - 1)]
    took = at - (began - period) + rounds * period
    average = target * np.maximum(began - history.first, HOUR) / (done + 0.5)
    return np.log(np.maximum(np.where(done > before, took, average), 1e-3))


def _busy_rates(history: History, began: Floats, target: Ints) -> Iterable[Floats]:
    """Log seconds to ``target`` completions at the rate seen while a like queue waited.

    One array per busy window. "Like" is at least a quarter of the target, to a power of four;
    NaN where fewer than ten completions were seen at that level.
    """
    times, after, served = history.changes(began.min(initial=np.inf) - max(BUSY_WINDOWS))
    lasted = np.diff(times, append=times[-1:])
    level = 4.0 ** np.maximum(np.floor(np.log2(np.maximum(target / 4, 1)) / 2), 0)
    found = np.full((len(BUSY_WINDOWS), len(began)), np.nan)
    for threshold in np.unique(level):
        here = level == threshold
        busy = after >= threshold
        time_before = np.concatenate([[0.0], np.cumsum(lasted * busy)])
        count_before = np.concatenate([[0], np.cumsum(served & (after >= threshold - 1))])

        def totals(at: Floats) -> tuple[Floats, Ints]:
            place = np.searchsorted(times, at, "right")
            last = np.maximum(place - 1, 0)
            partial = np.where(place > 0, (at - times[last]) * busy[last], 0.0)  # noqa: B023
            return time_before[last] + partial, count_before[place]  # noqa: B023

        time_now, count_now = totals(began[here])
        for row, window in enumerate(BUSY_WINDOWS):
            time_then, count_then = totals(np.maximum(began[here] - window, history.first))
            time, count = time_now - time_then, count_now - count_then
            estimate = np.log(target[here] * np.maximum(time, 1e-3) / np.maximum(count, 1))
            found[row, here] = np.where(count >= 10, estimate, np.nan)
    return found


class Centre:
    """The blend of experts, learned from the trials whose answers are known."""

    def __init__(self, rows: Trials, spacing: float) -> None:
        self.rows = rows
        self.middle = np.median(rows.experts, axis=1)
        self.actual = np.log(np.maximum(rows.took, 1e-3))
        self.known = np.where(np.isnan(rows.took), np.inf, rows.began + rows.took)
        self.errors = np.nan_to_num(np.clip(self.actual[:, None] - rows.experts, -2.0, 2.0))
        self.squares = self.errors**2
        length = np.maximum(np.nan_to_num(np.exp(self.actual), nan=spacing), spacing)
        # Trials that overlap in time tell the same story: each counts for its own share of it.
        self.share = spacing / length / rows.targets
        self.estimate = np.full(len(rows.began), np.nan)
        self.residual = np.full(len(rows.began), np.nan)
        ages = spacing * np.arange(rows.place[-1] - rows.place[0] + 1)
        self.season = _near(_apart(ages, DAY) / (3 * HOUR), 0.2)
        self.season *= _near(_apart(ages, WEEK) / (6 * HOUR), 0.3)
        self.wholeness = np.where(rows.whole, 1.0, 0.15)

    def _recency(self, now: float, row: int, past: slice, half_life: float) -> Floats:
        half_life = max(half_life, 6 * np.exp(self.middle[row]))
        known = self.known[past] <= now
        found: Floats = known * np.exp((self.rows.began[past] - now) * (np.log(2) / half_life))
        return found

    def learn(self, now: float, first: int, last: int, past: slice) -> None:
        """Estimate the trials from ``first`` to ``last`` by the answers known of ``past``."""
        rows = self.rows
        weight = self._recency(now, first, past, HALF_LIFE) * self.share[past]
        weight /= 1 + ((self.middle[past] - self.middle[first]) / 0.5) ** 2
        total, errors = weight.sum(), weight @ self.errors[past]
        bias = errors / (total + 10.0)
        squares = weight @ self.squares[past] - 2 * bias * errors + total * bias**2
        variance = (squares + 2.0 * rows.prior[first]) / (total + 2.0)
        # With no errors known the prior is all there is, and deserves less trust.
        trust = variance ** (-4.0 if total > 0 else -2.0)
        trust /= trust.sum()
        self.estimate[first:last] = (rows.experts[first:last] + bias) @ trust
        self.residual[first:last] = self.actual[first:last] - self.estimate[first:last]

    def residuals(self, now: float, row: int, past: slice) -> tuple[Floats, Floats]:
        """(errors of the blend at known trials of ``past``, their weights at ``row``).

        They are scaled to the length at hand (longer waits have smaller relative errors, or
        larger ones where the rate drifts; an outage of hours delays a long wait by hours, too, not
        by its multiple). Their common shift counts as far as it stands out from
        the noise of so few; their spread is taken as wider the fewer independent ones there are.
        """
        rows, estimate = self.rows, self.estimate
        weight = self._recency(now, row, past, RESIDUAL_HALF_LIFE) * self.wholeness[past]
        weight *= self.season[rows.place[row] - rows.place[past]]
        longer = estimate[past] - estimate[row]
        weight *= np.exp(-0.5 * longer**2)
        trend = rows.experts[past, 0] - estimate[past]  # the last six hours, against the blend
        weight *= _near((trend - rows.experts[row, 0] + estimate[row]) / 0.4, 0.3)
        known = self.known[past] <= now
        if np.count_nonzero(known) < MIN_TRIALS:
            return np.empty(0), np.empty(0)
        longer, errors, weight = longer[known], self.residual[past][known], weight[known] + 1e-9
        slope = _slope(longer, np.log(np.abs(errors) + 1e-3), weight)
        errors = errors * np.exp(-slope * np.clip(longer, -1.5, 1.5))
        delay = np.expm1(np.maximum(errors - DELAY, 0)) * np.exp(np.minimum(longer, 0))
        errors = np.minimum(errors, DELAY) + np.log1p(delay)
        independent = float(weight @ self.share[past][known])
        low, shift, high = _weighted_quantiles(errors, weight, (0.1, 0.5, 0.9))
        noise = SHIFT * ((high - low) / 2.56) ** 2 / max(independent, 0.1)
        signal = shift**2 / (shift**2 + noise + 1e-12)
        return shift * signal + (errors - shift) * (1 + FEW / (independent + 1)), weight


def _slope(x: Floats, y: Floats, weight: Floats) -> float:
    """Slope of a weighted regression, drawn towards zero and kept between -0.5 and 0.3."""
    total = weight.sum()
    apart = x - weight @ x / total
    along = weight @ apart**2 + 0.05 * total
    return float(np.clip(weight @ (apart * (y - weight @ y / total)) / along, -0.5, 0.3))


def _apart(age: Floats, period: float) -> Floats:
    return np.abs((age + period / 2) % period - period / 2)


def _near(distance: Floats, least: float) -> Floats:
    return least + (1 - least) * np.exp(-0.5 * distance**2)


def past_origins(history: History, at: float) -> Floats:
    """Moments of the last weeks, each a STEP after the one before, the last of them ``at``."""
    oldest = max(history.first + DAY, at - LOOK_BACK)
    count = max(int((at - oldest) // STEP), 0) + 1
    return at - STEP * np.arange(count - 1, -1, -1.0)


def told(as_of: pd.Timestamp, found: Iterable[float], prefix: str = "") -> dict[str, Any]:
    """The fields of a forecast that say what was ``found``: seconds, and for p50, p80 and p95
    the clock times; none for what is infinite."""
    fields: dict[str, Any] = {}
    for name, length in zip(("p50", "p80", "p95", "lower", "upper"), found, strict=False):
        if np.isfinite(length):
            fields[f"{prefix}{name}_seconds"] = float(length)
            if name.startswith("p"):
                clock = as_of + pd.Timedelta(seconds=round(float(length), 3))
                fields[f"{prefix}{name}_at"] = clock
    return fields


def too_little(history: History, at: float) -> str:
    """Why there is no range."""
    return f"{(at - history.first) / DAY:.1f} days of history hold too few answers to learn from"


def ranges(
    history: History,
    origins: Floats,
    step: float,
    level: float,
    judged: Bools,
    probabilities: Sequence[float],
    reach: float = np.inf,
) -> Floats:
    """Seconds until what waits at each origin is done, one column per probability.

    ``origins`` ascend by ``step`` seconds. NaN where nothing waits or too little is known.
    Learned from trials up to ``reach`` seconds before the first origin, too; only ``judged``
    origins count in the record that the width follows.
    """
    if not len(origins) or not len(history.completions):
        return np.full((len(origins), len(probabilities)), np.nan)
    place, moments = grid(history, origins, step, reach)
    wanted = np.ceil(np.outer(history.waiting(moments), TARGETS)).astype(np.int64)
    is_whole = np.array(TARGETS) == 1.0
    least = np.where(at_origin(place)[:, None] & is_whole, 1, MIN_TARGET)
    asked = (wanted >= least) & (history.done(moments) >= MIN_TARGET)[:, None]
    row, share = np.nonzero(asked)
    began, target = moments[row], wanted[asked]
    estimates, prior = experts(history, began, target)
    took = history.time_to(began, target)
    rows = Trials(place[row], is_whole[share], began, estimates, prior, took, len(TARGETS))
    return calibrate(rows, origins, step, level, judged, probabilities)


def calibrate(
    rows: Trials,
    origins: Floats,
    step: float,
    level: float,
    judged: Bools,
    probabilities: Sequence[float],
) -> Floats:
    """As ``ranges``, from trials."""
    found = np.full((len(origins), len(probabilities)), np.nan)
    if not len(rows.began):
        return found
    centre, width = Centre(rows, step / TRIALS_PER_STEP), Width(level)
    asked = (*probabilities, 0.5, width.tail, 1 - width.tail)
    turns = rows.place // TRIALS_PER_STEP
    is_origin = rows.whole & at_origin(rows.place)
    for turn in np.unique(turns):
        now = origins[0] + turn * step
        first, last = np.searchsorted(turns, [turn, turn + 1])
        memory = max(MEMORY, HORIZONS * np.exp(centre.middle[first]))
        past = slice(int(np.searchsorted(rows.began, now - memory)), int(first))
        centre.learn(now, first, last, past)
        row = first + int(np.argmax(is_origin[first:last]))
        if not is_origin[row]:
            continue
        errors, weight = centre.residuals(now, row, past)
        if not len(errors):
            continue
        quantiles = _weighted_quantiles(errors, weight, asked)
        width.update(now)
        adjusted = np.exp(centre.estimate[row] + width.stretch(quantiles, quantiles[-3]))
        found[turn] = adjusted[:-3]
        if judged[turn]:
            width.given(now, adjusted[-2], adjusted[-1], centre.known[row])
    return found


def _weighted_quantiles(values: Floats, weight: Floats, asked: Sequence[float]) -> Floats:
    order = np.argsort(values)
    weight = weight[order]
    below = np.cumsum(weight) - weight / 2
    return np.interp(asked, below / weight.sum(), values[order])


class Width:
    """How much wider than the past errors the range is drawn, each side, by its own record.

    In logarithms: a miss widens, a hit narrows, so that in the long run ``level`` of the ranges
    hold. While many answers are outstanding it moves less, as the same surprise would be
    counted many times.
    """

    def __init__(self, level: float) -> None:
        self.tail = (1 - level) / 2
        self.lower = self.upper = 0.0
        self.outstanding: deque[tuple[float, float, float]] = deque()

    def given(self, now: float, lower: float, upper: float, known: float) -> None:
        """Note a range; that it was missed above is known as soon as it has passed."""
        below, above = float(known < now + lower), float(known > now + upper)
        self.outstanding.append((min(known, now + upper), below, above))

    def update(self, now: float) -> None:
        damping = 1 + DAMPING * max(len(self.outstanding) - 1, 0)
        waiting: deque[tuple[float, float, float]] = deque()
        for known, below, above in self.outstanding:
            if known > now:
                waiting.append((known, below, above))
                continue
            both = LEARNING / damping * (below + above - 2 * self.tail) / 2
            skew = SKEW / damping * (below - above) / 2
            self.lower = min(max(self.lower + both + skew, NARROWEST), WIDEST)
            self.upper = min(max(self.upper + both - skew, NARROWEST), WIDEST)
        self.outstanding = waiting

    def stretch(self, quantiles: Floats, middle: float) -> Floats:
        side = np.where(quantiles < middle, self.lower, self.upper)
        away = np.abs(quantiles - middle)
        wider: Floats = np.minimum(away * np.exp(side), away + 0.7)
        return np.asarray(middle + np.sign(quantiles - middle) * wider, dtype=float)
