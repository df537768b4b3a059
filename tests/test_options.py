"""The options are compared on copies: the database is left as it was."""

import pytest

from conftest import Bench
from operating import many
from queue_insights.ddl import options
from queue_insights.errors import InputError

EVERYTHING = """
    SELECT 'relation', relname::text, relkind::text FROM pg_class
    WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
    UNION ALL SELECT 'function', proname, prosrc FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'trigger', tgname, '' FROM pg_trigger
    UNION ALL SELECT 'track', t::text, '' FROM tracks t
    UNION ALL SELECT 'task', a::text, '' FROM audio_tasks a
"""


def test_it_says_what_each_would_insert_and_leave_hidden_and_changes_nothing(bench: Bench) -> None:
    empty = options.compare(bench.queue)
    costs = empty[["stage_change_us", "rows_to_insert", "insert_ms", "hidden_after"]]
    assert not costs.to_numpy().any()
    with pytest.raises(InputError, match="sample 0"):
        options.compare(bench.queue, sample=0)
    bench.task(many(bench, "audio_ready", 5)[0], "align")
    before = sorted(bench.sql(EVERYTHING))
    found = options.compare(bench.queue, sample=3, ensure=1).set_index("option")
    assert sorted(bench.sql(EVERYTHING)) == before
    assert found.rows_to_insert.to_dict() == {"none": 0, "trigger": 4, "views": 0, "ensure": 1}
    assert found.hidden_after.to_dict() == {"none": 4, "trigger": 0, "views": 0, "ensure": 3}
    assert found.stage_change_us["none"] == found.stage_change_us["views"] > 0
    assert found.stage_change_us["trigger"] != found.stage_change_us["none"]
    assert (found.read_ms > 0).all()
    assert list(found.insert_ms > 0) == [False, True, False, True]
