-- queue-insights trigger: {{ made_for }}
-- {{ about_tables }}
--
-- When a track reaches a stage at which a task is due, the task table gets a pending row for it, in
-- the same transaction, so that work which waits can be seen and counted. It fires when a track is
-- inserted at such a stage, and when an update changes its stage to one (null counts as a value).
{% if any_update %}
-- It looks at every update, because a BEFORE trigger sets {{ about_stage }} by itself.
{% else %}
-- Updates that do not name the column {{ about_stage }} cost no more than without it.
{% endif %}
--
-- A row that exists is left as it is: a track that comes back to a stage whose task is completed gets
-- nothing (`queue-insights audit` shows it as drifted, `requeue` is for that). Any other failure, such
-- as a CHECK that does not know the task, fails the stage change, as with every trigger: swallowing it
-- would take a subtransaction for each row, and bring hidden work back without a word. So run
-- `queue-insights trigger verify --probe` in the tests of every migration of these tables, and after.
--
-- Rights: run it as the owner of both tables. SECURITY DEFINER lets whoever may change a track do so
-- without rights on the task table. The search_path is pinned and every name qualified; nobody but the
-- owner can put the function on another table. It lives beside the tracks, and goes with that schema.
--
-- Locks: SHARE ROW EXCLUSIVE on the tracks for a moment (down: ACCESS EXCLUSIVE). If writers are in
-- the way, lock_timeout ends it, nothing has changed, and it can be run again. Needs PostgreSQL 14.
--
-- Tracks that are at a stage already get no row by it: afterwards, run `queue-insights backfill`.
