-- The incident, second part: when each track came to each step, began and ended there.
--
-- Tracks are discovered in bursts, then pass the steps one after the other. Each step is a queue in
-- arrival order with so much capacity: a task starts at
--     start(j) = service(1..j-1) + max over m <= j of (arrival(m) - service(1..m-1)),
-- which is Lindley's recursion as a running sum and a running maximum. All of it happens in effort
-- (see seed_plan.sql) and is turned into wall time by the clock at once. What the plan says is
-- done is done before the anchor; what it says is not yet done stays in line.

-- One row per track and completed step; step 0 is the way to the first one. ended_effort is the
-- next step's arrival. Wall times are Unix seconds; started is the first attempt's.
CREATE TEMP TABLE seed_history (
    item int, step smallint, done smallint, attempts smallint, duration_ms int,
    ended_effort float8, arrived float8, started float8, ended float8
) ON COMMIT DROP;

-- The wall time at which so much effort had been spent.
CREATE OR REPLACE FUNCTION pg_temp.wall(effort float8, at float8[]) RETURNS float8
LANGUAGE sql IMMUTABLE AS
$$ SELECT at[1 + floor(effort / 3600)::int] + (effort / 3600 - floor(effort / 3600))
          * (at[2 + floor(effort / 3600)::int] - at[1 + floor(effort / 3600)::int]) $$;

DO $seed$
DECLARE
    n       CONSTANT int := (SELECT tracks FROM seed_parameters);
    clock   CONSTANT float8[] := (SELECT at FROM seed_clock);
    full_s  CONSTANT float8 := 60 * 86400.0;  -- the effort of all 60 days
    pace    CONSTANT float8 := 2.2;           -- at least the clock's fastest
    this    seed_steps;
    behind  float8;                           -- share of all tracks from this step's line on
    bend    float8;                           -- the effort from which the line builds up
    last_s  float8;                           -- how long before the end the last one starts
BEGIN
    -- Discovery: three in four come right after the one before, and some hours bring more.
    INSERT INTO seed_history
    SELECT item, 0, done, 0, 0, arrival, NULL, pg_temp.wall(discovered, clock),
           pg_temp.wall(arrival, clock)
    FROM (
        SELECT item, done, discovered,
               -- Enriched, then lyrics found, within three quarters of an hour.
               discovered + least(2700, (full_s - discovered) * 0.3) AS arrival
        FROM (
            SELECT item, done,
                   full_s * 0.99999 * sum(gap) OVER (ORDER BY item) / sum(gap) OVER () AS discovered
            FROM (
                SELECT item, done,
                       CASE WHEN pg_temp.uniform(item, 11) < 0.75 THEN 0.05 ELSE 1 END
                       * -ln(1 - pg_temp.uniform(item, 12))
                       * exp(0.4 * pg_temp.normal(item::bigint * 1440 / n, 13)) AS gap
                FROM seed_plan
            ) AS gaps
        ) AS times
    ) AS arrivals;

    FOR this IN SELECT * FROM seed_steps WHERE step > 0 ORDER BY step LOOP
        behind := (SELECT sum(line) FROM seed_steps WHERE step <= this.step)::float8 / n;
        bend := full_s * (1 - greatest(2.0 / 60, least(0.5, 4 * behind)));
        last_s := 300 + 600 * pg_temp.uniform(this.step, 14);

        INSERT INTO seed_history
        WITH queue AS (
            SELECT item, done, ended_effort AS arrival, ended AS arrived,
                   this.load * full_s / n * (0.4 + 1.2 * pg_temp.uniform(item, 20 + this.step))
                   + CASE WHEN item = floor(n * this.outage_at) THEN this.outage_h * 3600 ELSE 0 END
                   AS service,
                   least(1200, this.median_s * exp(this.spread
                       * pg_temp.normal(item, 30 + this.step))) AS run_s,
                   1 + (pg_temp.uniform(item, 40 + this.step) < this.retried)::int
                   + (pg_temp.uniform(item, 40 + this.step) < this.retried / 6)::int AS attempts
            FROM seed_history WHERE step = this.step - 1 AND done >= this.step
        ), summed AS (
            SELECT *, sum(service) OVER by_arrival - service AS before
            FROM queue WINDOW by_arrival AS (ORDER BY arrival, item)
        ), started AS (
            SELECT *, before + max(arrival - before) OVER (ORDER BY arrival, item) AS start
            FROM summed
        ), slowed AS (
            -- Towards the end work falls behind evenly, so that the last of the done ones starts
            -- some minutes ago and the line of the plan is what is left.
            SELECT *, CASE WHEN start <= bend THEN start ELSE
                greatest(arrival, bend + (start - bend) * (full_s - last_s - bend)
                                         / (max(start) OVER () - bend)) END AS slow_start
            FROM started OFFSET 0  -- here and below: works each expression out once, not at each use
        ), ended AS (
            SELECT *, slow_start + CASE
                WHEN attempts > 1 AND slow_start < full_s - 14400
                THEN pace * (attempts * run_s + CASE attempts WHEN 2 THEN 330 ELSE 1300 END)
                ELSE least(pace * run_s, 0.8 * (full_s - slow_start)) END AS finish,
                CASE WHEN slow_start < full_s - 14400 THEN attempts ELSE 1 END AS tries
            FROM slowed OFFSET 0
        ), walled AS (
            SELECT *, pg_temp.wall(slow_start, clock) AS started,
                   pg_temp.wall(finish, clock) AS ended
            FROM ended OFFSET 0
        )
        SELECT item, this.step, done, tries, 1000 * least(run_s, 0.98 * (ended - started)), finish,
               arrived, started, ended
        FROM walled;
    END LOOP;
END
$seed$;

ANALYZE seed_history;

-- What is in hand at a step, or was left there. Wall times again; failed ends an attempt. The row
-- of a track that arrived before the last ten days was made on arrival, later ones at the start of
-- the first attempt: that is the refactoring which hides the queue.
CREATE TEMP TABLE seed_standing ON COMMIT DROP AS
WITH standing AS (
    SELECT plan.item, plan.step, plan.kind, plan.place, history.ended AS arrived,
           extract(epoch FROM anchor)::float8 AS now,
           extract(epoch FROM anchor)::float8 - history.ended AS age,
           pg_temp.uniform(plan.item, 61) AS x
    FROM seed_plan AS plan
    JOIN seed_history AS history ON history.item = plan.item AND history.step = plan.step - 1
    CROSS JOIN seed_parameters
    WHERE plan.kind NOT IN ('early', 'missing', 'drifted', 'elsewhere')
), attempted AS (
    SELECT *,
        CASE kind
            WHEN 'running' THEN greatest(arrived, now - 60 - 600 * x)
            WHEN 'backing_off' THEN greatest(arrived, now - 60 - 200 * x)
            WHEN 'retryable' THEN arrived + age * (0.35 + 0.3 * x)
            WHEN 'stuck' THEN greatest(arrived, now - 7200 - 144000 * x)
            WHEN 'exhausted' THEN arrived + 1500 + 0.2 * age * x
            WHEN 'failed' THEN arrived + 1500 + least(7200, 0.2 * age * x)
            WHEN 'skipped' THEN arrived + 0.2 * age * x
        END AS attempted,
        CASE kind
            WHEN 'running' THEN 1 WHEN 'retryable' THEN 1 WHEN 'stuck' THEN 1 + place % 2
            WHEN 'backing_off' THEN 2 + place % 2
            WHEN 'exhausted' THEN CASE place % 5 WHEN 1 THEN NULL ELSE 3 END
            WHEN 'failed' THEN 3 ELSE 0
        END AS attempts
    FROM standing
)
SELECT item, step, kind,
       CASE kind WHEN 'running' THEN 'running' WHEN 'stuck' THEN 'running'
           WHEN 'pending' THEN 'pending' WHEN 'orphaned' THEN 'pending'
           WHEN 'backing_off' THEN CASE place % 4 WHEN 3 THEN 'pending' ELSE 'failed' END
           WHEN 'exhausted' THEN CASE WHEN place % 5 IN (2, 3) THEN 'pending' ELSE 'failed' END
           WHEN 'skipped' THEN 'skipped' ELSE 'failed' END AS status,
       attempts,
       CASE WHEN kind = 'exhausted' AND place % 5 = 2 THEN NULL
            WHEN kind = 'backing_off' AND place % 2 = 1 THEN 5 ELSE 3 END AS max_attempts,
       CASE WHEN kind = 'pending' THEN arrived + age * (0.2 + 0.6 * x)
            WHEN kind = 'orphaned' OR arrived < now - 864000 THEN arrived
            WHEN attempts > 1 THEN greatest(arrived, attempted - 450 * attempts)
            ELSE coalesce(attempted, arrived) END AS created,
       -- A worker that died before it wrote when it started leaves null.
       CASE WHEN kind = 'skipped' OR (kind = 'stuck' AND place = 1) THEN NULL
            ELSE attempted END AS last_attempt,
       CASE WHEN kind = 'backing_off' THEN attempted + 10 + 900 * (attempts - 1)
            WHEN kind = 'retryable' AND place % 3 > 0 THEN least(now - 1, attempted + 310) END
           AS next_retry,
       CASE WHEN kind IN ('backing_off', 'retryable', 'exhausted', 'failed')
            THEN least(now - 1, attempted + 10) ELSE attempted END AS updated
FROM attempted;
