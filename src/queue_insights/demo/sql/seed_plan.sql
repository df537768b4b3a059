-- The incident, first part: what becomes of each track, and how the demo's clock runs.
--
-- Tracks are numbered 1..N in the order in which they were discovered. Where each one stands at the
-- end, and in which state, is decided here by its number alone, so that every count depends on the
-- number of tracks only and never on the weekday or the time of day of the anchor. The times come
-- later (seed_history.sql), worked out in `effort`: seconds of activity, of which each of the 60
-- days has 86,400 on average. A clock turns effort into wall time: it runs fast on weekday
-- afternoons, slow at night and at weekends, and ends at the anchor.
--
-- Expects the temporary table seed_parameters (anchor timestamptz, tracks int, variant text).

-- Uniform in [0, 1), the same for the same arguments on every machine and in every plan.
CREATE OR REPLACE FUNCTION pg_temp.uniform(item bigint, salt int) RETURNS float8
LANGUAGE sql IMMUTABLE AS
$$ SELECT (hashint8extended(item, salt) & 9007199254740991) / 9007199254740992.0::float8 $$;

-- Standard normal, by Box and Muller.
CREATE OR REPLACE FUNCTION pg_temp.normal(item bigint, salt int) RETURNS float8
LANGUAGE sql IMMUTABLE AS
$$ SELECT sqrt(-2 * ln(1 - pg_temp.uniform(item, salt)))
          * cos(2 * pi() * pg_temp.uniform(item, salt + 500)) $$;

-- 22 characters, letters and digits, as Spotify's are.
CREATE OR REPLACE FUNCTION pg_temp.track_id(item int) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT translate(left(encode(int8send(hashint8extended(item, 71))
                                || int8send(hashint8extended(item, 72)), 'base64'), 22), '+/', 'Qz')
$$;

-- Unix seconds as a time stamp, to the millisecond.
CREATE OR REPLACE FUNCTION pg_temp.at_ms(unix float8) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT to_timestamp(floor(unix * 1000) / 1000) $$;

-- The steps. line: tracks waiting or in hand at the step, a share of all but at least so many; its
-- head is running, backing off, retryable or pending with a row, the rest have none. The others are
-- left behind by the line: see the kinds below. failed: share of all tracks that ended here.
-- load: how busy the step's workers are; median_s, spread: run time (lognormal); retried: chance
-- that an attempt fails; outage_at, outage_h: when (share of all tracks) and how long it was down.
--
-- align is the incident: exactly 50 tracks, none with a row, nothing pending, and nothing else at
-- audio_ready. Its workers have not stopped; over the last days they did three quarters of what
-- came in. enhance and clip keep up, so that nothing is hidden there: for enhance old pending rows
-- overstate the queue, for clip rows and queue agree.
CREATE TEMP TABLE seed_steps ON COMMIT DROP AS
SELECT step, stage, task_type, greatest(least_line, round(share * tracks))::int AS line,
       running, backing_off, retryable, pending,
       stuck * scale AS stuck, exhausted * scale AS exhausted, drifted * scale AS drifted,
       CASE variant WHEN 'b' THEN skipped * scale ELSE 0 END AS skipped,
       CASE variant WHEN 'b' THEN elsewhere * scale ELSE 0 END AS elsewhere,
       orphaned * scale AS orphaned, round(failed * tracks)::int AS failed,
       load::float8, median_s::float8, spread::float8, retried::float8,
       outage_at::float8, outage_h::float8
FROM seed_parameters,
LATERAL (SELECT greatest(1, tracks / 60000) AS scale) AS scales,
(VALUES
    (-1, 'pending',        NULL,         8, 0.0010,  0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0,
     NULL, NULL, NULL, NULL, NULL, NULL),
    (0, 'enriched',        NULL,        10, 0.0015,  0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0,
     NULL, NULL, NULL, NULL, NULL, NULL),
    (1, 'lyrics_acquired', 'download',  24, 0.0025,  2, 2, 2, 1,  3, 5, 0, 0, 0, 2, 0.008,
     0.60,  18, 0.6, 0.06, NULL, 0),
    (2, 'audio_ready',     'align',     50, 0,       0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0.004,
     0.50,  45, 0.5, 0.03, 0.71, 6),
    (3, 'aligned',         'translate', 20, 0.0020,  2, 1, 2, 1,  2, 5, 3, 3, 0, 4, 0.003,
     0.55,  25, 0.5, 0.04, NULL, 0),
    (4, 'translated',      'separate',  30, 0.0030,  3, 2, 1, 1,  4, 3, 3, 0, 12, 3, 0.003,
     0.80, 180, 0.4, 0.05, 0.52, 10),
    (5, 'separated',       'segment',   18, 0.0015,  1, 1, 2, 1,  2, 2, 2, 3, 0, 0, 0.001,
     0.40,  12, 0.5, 0.02, NULL, 0),
    (6, 'segmented',       'enhance',    6, 0,       2, 1, 1, 2,  1, 0, 0, 0, 0, 5, 0,
     0.65,  75, 0.4, 0.03, NULL, 0),
    (7, 'enhanced',        'clip',       5, 0,       1, 1, 1, 2,  0, 1, 1, 0, 0, 0, 0,
     0.50,  20, 0.5, 0.02, NULL, 0)
) AS s (step, stage, task_type, least_line, share, running, backing_off, retryable, pending,
        stuck, exhausted, drifted, skipped, elsewhere, orphaned, failed,
        load, median_s, spread, retried, outage_at, outage_h);

-- Tracks that the line has left behind or carried away, and how many of each kind.
--   stuck      the worker died: running for hours
--   exhausted  failed as often as it may, the track still stands there
--   drifted    completed, but the stage was never moved on
--   skipped    (variant B) by an operator
--   elsewhere  (variant B) at a stage that is no step of the pipeline file
--   failed     given up: the track's stage is `failed`, its failed row an orphan
--   orphaned   moved on by hand while its row was pending, from the time when rows came first
-- zone: recent (since rows are made at the start of work) or old.
CREATE TEMP TABLE seed_kinds ON COMMIT DROP AS
SELECT kind, step, zone, copies,
       sum(copies) OVER (PARTITION BY zone ORDER BY step, kind) AS upto
FROM seed_steps,
LATERAL (VALUES
    ('stuck', 'recent', stuck), ('exhausted', 'recent', exhausted), ('drifted', 'recent', drifted),
    ('skipped', 'recent', skipped), ('elsewhere', 'recent', elsewhere),
    ('failed', 'recent', failed / 8), ('failed', 'old', failed - failed / 8),
    ('orphaned', 'old', orphaned)
) AS k (kind, zone, copies)
WHERE copies > 0;

-- done: steps completed (-2 and -1: not yet at the first); step: where the track stands out, place:
-- its place there, counted from 1. A drifted track has done its step, an orphaned one all of them.
CREATE TEMP TABLE seed_plan ON COMMIT DROP AS
WITH lines AS (
    SELECT seed_steps.*, sum(line) OVER (ORDER BY step) AS upto FROM seed_steps
), numbered AS (
    SELECT item::int, tracks - item + 1 AS from_newest,
           ceil((tracks - item + 1 - waiting) * 60.0 / tracks) AS days_behind
    FROM seed_parameters, generate_series(1, tracks) AS item,
         (SELECT sum(line) AS waiting FROM seed_steps) AS lines
), zoned AS (
    SELECT item, zone, row_number() OVER (PARTITION BY zone ORDER BY pg_temp.uniform(item, 1), item)
    FROM numbered,
    LATERAL (SELECT CASE WHEN days_behind BETWEEN 3 AND 8 THEN 'recent'
                         WHEN days_behind BETWEEN 11 AND 56 THEN 'old' END AS zone) AS zones
    WHERE zone IS NOT NULL
), special AS (
    SELECT item, kind, step, row_number - (upto - copies) AS place
    FROM zoned JOIN seed_kinds USING (zone)
    WHERE row_number > upto - copies AND row_number <= upto
)
SELECT item,
       CASE WHEN lines.step IS NOT NULL THEN lines.step - 1
            WHEN kind = 'orphaned' OR kind IS NULL THEN 7
            WHEN kind = 'drifted' THEN special.step
            ELSE special.step - 1 END::smallint AS done,
       coalesce(lines.step, special.step)::smallint AS step,
       coalesce(lines.upto - from_newest + 1, special.place)::int AS place,
       CASE WHEN lines.step IS NULL THEN kind
            WHEN lines.step < 1 THEN 'early'
            WHEN lines.upto - from_newest < running THEN 'running'
            WHEN lines.upto - from_newest < running + backing_off THEN 'backing_off'
            WHEN lines.upto - from_newest < running + backing_off + retryable THEN 'retryable'
            WHEN lines.upto - from_newest < running + backing_off + retryable + pending
                THEN 'pending'
            ELSE 'missing' END AS kind
FROM numbered
LEFT JOIN special USING (item)
LEFT JOIN lines ON from_newest > lines.upto - line AND from_newest <= lines.upto
ORDER BY item;

-- The clock: at[h + 1] is the wall time (Unix seconds) at which h hours of effort were spent.
CREATE TEMP TABLE seed_clock ON COMMIT DROP AS
WITH hours AS (
    SELECT h, extract(epoch FROM anchor) - (1440 - h) * 3600.0 AS began,
           anchor - make_interval(hours => 1440 - h) + interval '30 minutes' AS middle
    FROM seed_parameters, generate_series(0, 1439) AS h
), shaped AS (
    SELECT h, began,
           (0.35 + 1.35 * exp(-power((extract(hour FROM middle AT TIME ZONE 'UTC') - 14.5) / 5, 2)))
           * CASE WHEN extract(isodow FROM middle AT TIME ZONE 'UTC') >= 6 THEN 0.45 ELSE 1 END
           * exp(0.20 * pg_temp.normal(h / 24, 2) + 0.25 * pg_temp.normal(h, 3)) AS pace
    FROM hours
), capped AS (
    -- No hour is worth more than 2.2: seed_history.sql relies on it.
    SELECT h, began, least(pace / avg(pace) OVER (), 2) AS pace FROM shaped
), spent AS (
    SELECT h, began, pace / avg(pace) OVER () AS pace,
           coalesce(sum(pace) OVER before, 0) / avg(pace) OVER () AS effort,
           sum(pace) OVER (ORDER BY h) / avg(pace) OVER () AS upto
    FROM capped
    WINDOW before AS (ORDER BY h ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT array_agg(began + (whole - effort) / pace * 3600 ORDER BY whole)
       || array_fill(extract(epoch FROM anchor)::float8, ARRAY[2]) AS at
FROM spent, seed_parameters,
     generate_series(ceil(effort)::int, least(ceil(upto)::int - 1, 1439)) AS whole
GROUP BY anchor;
ANALYZE seed_plan;
