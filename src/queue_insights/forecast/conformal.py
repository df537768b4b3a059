"""How long until the work that waits is done: a range, from simple estimates and their past errors.

Some simple *experts* say how long as many completions as items wait will take: at the rate of the
last hours, days or weeks, at the rate while work waited, as long as the last so many took, if the
last day or week came again, and by a balance of arrivals and departures. At *trials*, moments
before now, they are put to the same question, as far as anybody could have answered it then.

The *estimate* is the experts' mean (of logarithms), each weighted by how small its errors were at
trials of a like length. The range is made of the estimate's own past errors (conformal prediction:
Vovk et al. 2005; with unequal weights, as neighbours in time are alike: Barber et al. 2023), each
divided by how far the experts were apart, so that the range is wide where they disagree (normalised
scores: Lei et al. 2018). Each side of it then follows its own record: a range that was missed
widens it, one that held narrows it (Gibbs and Candes 2021), as soon as the answer is known.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np

from queue_insights.forecast.history import DAY, HOUR, WEEK, Bools, Floats, History, Ints

PER_STEP = 2  # trials between two origins: more of them overlap, and tell little that is new
LAST = 1000  # trials that are looked back on: four months of them, and quick to reckon with
MIN_TARGET = 5  # completions that a trial asks for: the times to fewer are mostly chance
MIN_TRIALS = 10  # needed to tell where a tenth of the errors lies
MIN_COMPLETIONS = 20  # known before anything is said
WINDOWS = (6 * HOUR, DAY, WEEK, 4 * WEEK)  # a shift, and the periods in which people work
OUTLIER = 1.5  # an expert further (in logarithms, 4.5 times) from the median expert is drawn in
TRUST = 3.0  # power of the inverse squared error: errors are alike, and a mere inverse blurs them
DOUBT = 2, 0.02  # trials that each expert is given beforehand, and its squared error (14%) in them
ALIKE = 0.5  # logarithms: trials of up to about 1.6 times or 1/1.6 of the length are alike
UNLIKE = 0.01  # weight of all others, so that something is known where no trial is alike
APART = 0.5  # disagreement of experts (in logarithms) that is always there, whatever they say
UNDER_WAY = 0.3  # share of its target that must be done before a trial without answer counts
OTHER_TIMES = 0.25  # weight of trials at other times of day, and again of week
FEW = 0.2  # the range is so much wider if no error is independent of another
LEARNING = 0.2  # logarithm by which a miss widens one side, if no other answer is outstanding
DAMPING = 0.3  # how much less it is for each that is: they share one surprise
WIDEST = 1.0  # logarithm by which a side is widened at most


def experts(history: History, began: Floats, target: Ints, waiting: Ints) -> Floats:
    """Log seconds that ``target`` completions will take, from each moment ``began`` on, at which so
    many are ``waiting``: a row for each moment and a column for each expert, who looks only at what
    had happened by then."""
    done, known = history.done(began), np.maximum(began - history.first, HOUR)
    said = []
    for window in WINDOWS:
        length = np.minimum(window, known)
        count = done - history.done(began - length) + 0.5
        said.append(target * length / count)
        if window in (DAY, WEEK):
            said.append(_balance(history, began, target, waiting, length))
        if window == WEEK:
            busy = history.area(began, 1) - history.area(began - length, 1)
            said.append(target * np.maximum(busy, 1.0) / count)
    last = np.clip(target, 1, done)
    said.append((began - history.completions[done - last]) * target / last)
    said += [_replay(history, began, target, days) for days in (1, 7)]
    logs = np.log(np.maximum(np.stack(said, axis=1), 1e-3))
    middle = np.median(logs, axis=1, keepdims=True)
    return np.clip(logs, middle - OUTLIER, middle + OUTLIER)


def _replay(history: History, began: Floats, target: Ints, days: int) -> Floats:
    """Seconds to ``target`` completions if the last ``days`` days came again and again."""
    known = np.maximum((began - history.first) // DAY, 1)
    period = np.minimum(days, known) * DAY
    before = history.done(began - period)
    count = history.done(began) - before
    rounds, rest = np.divmod(target - 1, np.maximum(count, 1))
    at = history.completions[np.minimum(before + rest, len(history.completions) - 1)]
    average = target * known * DAY / (history.done(began) + 0.5)
    return np.where(count > 0, at - (began - period) + rounds * period, average)


def _balance(
    history: History, began: Floats, target: Ints, waiting: Ints, length: Floats
) -> Floats:
    """Seconds if items arrive, and each of those waiting leaves, as in the last ``length``.

    With arrivals at rate a, and w items waiting of which each leaves at rate p, there are
    w' = a - p w of them more, so by t have left a t + (w - a / p)(1 - exp(-p t)): ever fewer once
    nothing arrives, which no mere rate can know. Solved for t by halving its logarithm's span.
    """
    waited = history.area(began, np.inf) - history.area(began - length, np.inf)
    leave = (history.done(began) - history.done(began - length) + 0.5) / np.maximum(waited, 1.0)
    arrive = (history.arrived(began) - history.arrived(began - length)) / length
    low, high = np.zeros(len(began)), np.full(len(began), np.log(300 * 365 * DAY))
    for _ in range(30):
        middle = (low + high) / 2
        t = np.exp(middle)
        left = arrive * t - (waiting - arrive / leave) * np.expm1(-leave * t)
        enough = left >= target - 0.5
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.exp(high)


def ranges(
    history: History,
    origins: Floats,
    step: float,
    level: float,
    judged: Bools,
    probabilities: Sequence[float],
    extra: int = 0,
    speed: float = 1.0,
) -> Floats:
    """Seconds until what waits at each origin is done, one column per probability.

    ``origins`` ascend by ``step`` seconds; at each, only what was known then counts. NaN where
    nothing waits or too little is known. There are trials at the origins, between them, and before
    the first, but not in the first day. Only ``judged`` origins count in the record that the sides
    follow. The last range is what it would be if
    ``extra`` items waited on top and each took 1 / ``speed`` of its time: what w items take then,
    w / ``speed`` take now, nights and pauses included.
    """
    found = np.full((len(origins), len(probabilities)), np.nan)
    if not len(origins) or not len(history.completions):
        return found
    before = int(np.clip((origins[0] - history.first - DAY) // step * PER_STEP, 0, LAST))
    place = np.arange(-before, (len(origins) - 1) * PER_STEP + 1)
    began = origins[0] + place * (step / PER_STEP)
    waiting = history.waiting(began)
    waiting[-1] += extra
    target = waiting.copy()
    target[-1] = ceil(waiting[-1] / speed)
    is_origin = (place >= 0) & (place % PER_STEP == 0)
    use = (target >= np.where(is_origin, 1, MIN_TARGET)) & (history.done(began) >= MIN_TARGET)
    if not use.any():
        return found
    trials = Trials(history, began[use], target[use], waiting[use], step / PER_STEP)
    sides, turns, is_origin = Sides(level), place[use] // PER_STEP, is_origin[use]
    asked = np.array([*probabilities, 0.5, sides.tail, 1 - sides.tail])
    for turn in np.unique(turns):
        first, last = np.searchsorted(turns, [turn, turn + 1])
        past, now = slice(max(first - LAST, 0), first), origins[0] + turn * step
        trials.estimate(now, first, last, past)
        if not is_origin[first] or (errors := trials.errors(now, first, past, asked)) is None:
            continue
        sides.learn(now)
        given = np.exp(trials.estimates[first] + sides.widened(errors, errors[-3]))
        found[turn] = given[:-3]
        if judged[turn]:
            sides.given(now, given[-2], given[-1], trials.answered[first])
    return found


class Trials:
    """Moments at which the question was put, in order, and what was said and came of it."""

    def __init__(
        self, history: History, began: Floats, target: Ints, waiting: Ints, spacing: float
    ) -> None:
        self.history, self.began, self.target, self.spacing = history, began, target, spacing
        self.done = history.done(began)
        self.experts = experts(history, began, target, waiting)
        self.length = np.median(self.experts, axis=1)
        took = history.time_to(began, target)
        self.answered = np.where(np.isnan(took), np.inf, began + took)
        self.took = np.log(np.maximum(took, 1e-3))
        self.squares = np.nan_to_num(np.clip(self.took[:, None] - self.experts, -2, 2)) ** 2
        self.estimates, self.apart = np.full((2, len(began)), np.nan)

    def _alike(self, row: int, past: slice) -> Floats:
        """Weights of the ``past`` trials by how near their lengths are to that of ``row``."""
        longer = self.length[past] - self.length[row]
        return np.exp(-0.5 * (longer / ALIKE) ** 2) + UNLIKE

    def _share(self, took: Floats) -> Floats:
        """Trials that overlap in time share one story: each counts for its part of it."""
        return np.minimum(self.spacing * np.exp(-took), 1.0)

    def estimate(self, now: float, first: int, last: int, past: slice) -> None:
        """Blend the experts at the trials from ``first`` to ``last``, trusting each by its errors
        at those of the ``past`` that were answered by ``now``."""
        weight = self._alike(first, past) * self._share(self.took[past])
        weight = np.where(self.answered[past] <= now, weight, 0.0)
        squares = weight @ self.squares[past] + DOUBT[0] * DOUBT[1]
        trust = (squares / (weight.sum() + DOUBT[0])) ** -TRUST
        said = self.experts[first:last]
        self.estimates[first:last] = blend = said @ (trust / trust.sum())
        spread = ((said - blend[:, None]) ** 2).mean(axis=1)
        self.apart[first:last] = np.sqrt(APART**2 + spread)

    def errors(self, now: float, row: int, past: slice, asked: Floats) -> Floats | None:
        """Quantiles ``asked`` of the estimate's error at ``row``, in logarithms; None if too few
        trials tell of it.

        A trial under way counts by its progress, as if it went on at its pace: the answers of long
        waits come last, and without them the errors would be those of short ones.
        """
        age, answered = now - self.began[past], self.answered[past] <= now
        part = (self.history.done(np.array([now])) - self.done[past]) / self.target[past]
        progress = np.where(answered, 1.0, part)
        use = progress >= UNDER_WAY
        if np.count_nonzero(use) < MIN_TRIALS:
            return None
        weight = progress * self._alike(row, past)
        for period, near in ((DAY, 3 * HOUR), (WEEK, 6 * HOUR)):
            away = (age + period / 2) % period - period / 2
            weight *= OTHER_TIMES + (1 - OTHER_TIMES) * np.exp(-0.5 * (away / near) ** 2)
        age, progress, weight = age[use], progress[use], weight[use]
        took = np.where(answered[use], self.took[past][use], np.log(age / progress))
        errors = (took - self.estimates[past][use]) * self.apart[row] / self.apart[past][use]
        order = np.argsort(errors)
        below = np.cumsum(weight[order]) - weight[order] / 2
        found, middle = (np.interp(p, below / weight.sum(), errors[order]) for p in (asked, 0.5))
        return middle + (found - middle) * (1 + FEW / (1 + weight @ self._share(took)))


class Sides:
    """How much wider than past errors the range is drawn, below and above, by its own record.

    In logarithms. A miss moves its side by as much as the hits should move it back, so that in the
    long run each side is missed as often as ``level`` says.
    """

    def __init__(self, level: float) -> None:
        self.tail, self.by = (1 - level) / 2, np.zeros(2)
        self.outstanding: list[tuple[float, Floats]] = []

    def given(self, now: float, lower: float, upper: float, answered: float) -> None:
        """Note a range; that it was missed above is known as soon as it has passed."""
        missed = np.array([answered < now + lower, answered > now + upper], dtype=float)
        self.outstanding.append((min(answered, now + upper), missed))

    def learn(self, now: float) -> None:
        """Move both sides by the answers known ``now``.

        The more are outstanding, the less each moves them, yet all together still by about
        LEARNING / DAMPING, so that long waits for answers do not leave them where they are.
        """
        pace = LEARNING / (1 + DAMPING * max(len(self.outstanding) - 1, 0))
        for missed in (missed for known, missed in self.outstanding if known <= now):
            self.by = np.minimum(self.by + pace * (missed - self.tail), WIDEST)
        self.outstanding = [each for each in self.outstanding if each[0] > now]

    def widened(self, quantiles: Floats, middle: float) -> Floats:
        away = quantiles - middle
        wider = np.abs(away) * np.exp(np.where(away < 0, *self.by))
        return middle + np.sign(away) * np.minimum(wider, np.abs(away) + WIDEST)
