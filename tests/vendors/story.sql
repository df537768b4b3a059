-- What became of each job, in our words, for the vendors whose packages are not run here. Their files
-- make tables in which it is so, and take out of `truth` what their vendor lacks.
CREATE TABLE truth AS
SELECT (row_number() OVER ())::text AS id, story.*, timezone('UTC', now()) AS utc,
    nullif(replace(message, '#', n::text), '') AS error
FROM (VALUES
    -- kind, our state, how many, tries, due in, started ago, ended ago, worker's last sign ago, message
    ('resize', 'completed', 20, 1, '-2 h'::interval, '90 min'::interval, '89 min'::interval, NULL::interval, ''),
    ('resize', 'pending', 6, NULL, '-1 h', NULL, NULL, NULL, ''),
    ('doomed', 'exhausted', 4, 3, '-2 h', '60 min', '59 min', NULL, 'track # of ''Mo'' not found: HTTP 404'),
    ('slow', 'backing_off', 3, 1, '10 years', '60 min', NULL, NULL, 'no answer within # s'),
    ('flaky', 'retryable', 2, 2, '-1 min', '60 min', NULL, NULL, 'no answer within # s'),
    ('later', 'backing_off', 5, 0, '10 years', NULL, NULL, NULL, ''),
    ('later', 'pending', 1, 0, '-1 s', NULL, NULL, NULL, ''),  -- due, and not moved to what is ready yet
    ('mail', 'pending', 6, 0, '-1 h', NULL, NULL, NULL, ''),
    ('mail', 'skipped', 3, 1, '-1 h', '50 min', '49 min', NULL, 'cancelled by #'),
    ('one', 'blocked', 4, 0, '-1 h', NULL, NULL, NULL, ''),
    ('hang', 'stuck', 2, 1, '-1 d', '20 h', NULL, '19 h', ''),
    ('hang', 'stuck', 1, 1, '-1 d', '20 h', NULL, NULL, ''),  -- the worker's row is gone
    ('hang', 'running', 1, 1, '-1 d', '1 min', NULL, '1 s', ''),
    ('lost', 'missing', 2, 0, '-1 d', NULL, NULL, NULL, '')
) AS story (kind, state, jobs, tries, due, started, ended, seen, message),
    generate_series(1, story.jobs) AS n;
