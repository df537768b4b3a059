"""Actions on chosen tracks and kinds of failure: these rows and no others, from wherever."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

import pytest
from click.testing import Result

from conftest import Bench, Fresh
from operating import WORK, command, give_rows, many, rows, work
from queue_insights.errors import PlanError

HOSTILE = ["it's", 'a "b"', "50%", ":name", "two\nlines", "{{x}}", "-- \\", "-"]


def failed(bench: Bench, tracks: Sequence[str], error: str = "no answer within 30 s") -> None:
    give_rows(bench, tracks, "align", "failed", attempts="3", error_message=f"'{error}'")


def statuses(bench: Bench) -> dict[str, str]:
    return dict(bench.sql("SELECT spotify_track_id, status FROM audio_tasks"))


def confirmed(bench: Bench, *arguments: str, input: str | None = None) -> Result:
    """What the last line of a dry run does."""
    dry = command(bench.url, *arguments, input=input)
    *lines, last = dry.output.splitlines()
    assert dry.exit_code == 0
    assert not [line for line in lines if "--confirm" in line]
    program, *rest = shlex.split(last.removesuffix(" < FILE"))
    assert program == "queue-insights"
    done = command(bench.url, *rest, input=input)
    assert done.exit_code == 0, done.output
    return done


def test_a_command_retries_and_undoes_three_of_fifty(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 50)
    failed(bench, tracks)
    before = statuses(bench)
    chosen = [tracks[3], tracks[7], tracks[40]]
    for arguments, given in (
        ([f"--id={id}" for id in chosen], ""),
        (["--id", "-"], "\r\n".join([*chosen, "no such track", "", chosen[0]])),
    ):
        confirmed(bench, "retry", *arguments, input=given)
        assert statuses(bench) == before | dict.fromkeys(chosen, "pending")
        (run, *_) = bench.queue.runs()["run"]
        assert command(bench.url, "undo", str(run)).exit_code == 0
        assert statuses(bench) == before


@pytest.mark.parametrize("action", WORK)
def test_every_action_takes_only_the_chosen_of_any_text(bench: Bench, action: str) -> None:
    others, (stage, task, status, columns) = work(bench, 8)[action], WORK[action]
    hostile = [bench.track(id, stage) for id in HOSTILE]
    if status:
        give_rows(bench, hostile, task, status, **columns)
    before, was = rows(bench.connection), statuses(bench)
    plan = bench.queue.plan(action, ids=iter([*HOSTILE, "nobody"]))
    left_out = [("nobody", "there is no such track")]
    assert (plan.rows, list(plan.left_out().itertuples(False, None))) == (8, left_out)
    assert sorted(plan.preview()["spotify_track_id"]) == sorted(HOSTILE)
    assert plan.token == bench.queue.plan(action, ids=["nobody", *HOSTILE[::-1]]).token
    other = bench.queue.plan(action, ids=["nobody", *others])
    with pytest.raises(PlanError, match="parameters"):
        other.apply(confirm=plan.token)
    run = plan.apply(confirm=plan.token)
    now = statuses(bench)
    assert {id for id in was | now if was.get(id) != now.get(id)} == set(HOSTILE)
    (kept,) = bench.sql("SELECT parameters FROM queue_insights.runs")[0]
    assert kept["ids"].startswith("9 ids, sha256 ")
    run.undo()
    assert rows(bench.connection) == before
    for nothing in ({"ids": []}, {"failure": "00000000"}):
        plan = bench.queue.plan(action, **nothing)
        assert plan.rows == 0
        assert plan.apply(confirm=plan.token).row["rows_done"] == 0
    bad = command(bench.url, action, "--id", "-", input=b"\xff\n")
    said = "queue-insights: --id -: what stdin gives is no UTF-8 text\n"
    assert (bad.exit_code, bad.output) == (2, said)
    dry = command(bench.url, action, "--id", "-", input="")
    assert (dry.exit_code, dry.output.endswith(" --id - < FILE\n")) == (0, True)
    assert f"{action} would" in dry.output
    assert ": 0 rows" in dry.output


def test_a_kind_of_failure_is_retried_alone(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 6)
    failed(bench, tracks[:2], "no answer within 30 s")
    failed(bench, tracks[2:3], "no answer within 5 s")
    failed(bench, tracks[3:5], "file not found")
    failures = bench.queue.failures().set_index("error")
    failure = failures.loc["no answer within * s", "failure"]
    confirmed(bench, "retry", "--failure", failure, "--task", "align")
    assert statuses(bench) == dict.fromkeys(tracks[:3], "pending") | dict.fromkeys(
        tracks[3:5], "failed"
    )


def test_a_row_that_fails_of_something_else_meanwhile_is_left_alone(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 3)
    failed(bench, tracks)
    (failure,) = bench.queue.failures()["failure"]
    plan = bench.queue.plan_retry(failure=failure)
    # A trigger makes the change after the run has listed its rows.
    bench.queue.plan_retry(ids=[]).apply(max_rows=0)
    bench.sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE audio_tasks "
        "SET error_message = 'disk full' WHERE spotify_track_id = 't1'; RETURN NULL; END $$"
    )
    bench.sql("CREATE TRIGGER fail AFTER INSERT ON queue_insights.targets EXECUTE FUNCTION fail()")
    run = plan.apply(confirm=plan.token)
    assert (run.row["rows_done"], len(run.dropped())) == (2, 1)


@pytest.mark.proof
def test_a_hundred_thousand_ids_come_from_stdin(fresh: Fresh) -> None:
    bench = fresh("a")
    tracks = many(bench, "audio_ready", 30)
    failed(bench, tracks)
    given = "\n".join([*(f"stranger {i}" for i in range(100_000)), *tracks[:9]])
    confirmed(bench, "retry", "--id", "-", input=given)
    assert list(statuses(bench).values()).count("pending") == 9
    listed = command(bench.url, "tasks", "--id", "-", "--format", "json", input=given)
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    assert {row["spotify_track_id"] for row in found} == set(tracks[:9])
