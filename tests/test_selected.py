"""Actions on chosen tracks and kinds of failure: these rows and no others, from wherever."""

import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import Bench
from operating import give_rows, many
from queue_insights.cli import main
from queue_insights.database import READ_URL
from queue_insights.errors import InputError, PlanError

HOSTILE = ["it's", 'a "b"', "50%", ":name", "two\nlines", "{{x}}", "-- \\", "-"]


def failed(bench: Bench, tracks: Sequence[str], error: str = "no answer within 30 s") -> None:
    give_rows(bench, tracks, "align", "failed", attempts="3", error_message=f"'{error}'")


def statuses(bench: Bench) -> dict[str, str]:
    return dict(bench.sql("SELECT spotify_track_id, status FROM audio_tasks"))


def command(bench: Bench, *arguments: str, input: str | bytes = "") -> tuple[int, list[str]]:
    """The exit code of a command, and its lines."""
    runner = CliRunner(env={READ_URL: bench.url})
    done = runner.invoke(main, arguments, input=input, prog_name="queue-insights")
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    return done.exit_code, done.output.splitlines()


def confirmed(bench: Bench, *arguments: str, input: str = "") -> tuple[int, list[str]]:
    """What the last line of a dry run does."""
    code, lines = command(bench, *arguments, input=input)
    assert code == 0
    assert not [line for line in lines[:-1] if "--confirm" in line]
    program, *rest = shlex.split(lines[-1].removesuffix(" < FILE"))
    assert program == "queue-insights"
    return command(bench, *rest, input=input)


def test_a_command_retries_and_undoes_three_of_fifty(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 50)
    failed(bench, tracks)
    before = statuses(bench)
    chosen = [tracks[3], tracks[7], tracks[40]]
    for arguments, given in (
        ([f"--id={id}" for id in chosen], ""),
        (["--id", "-"], "\r\n".join([*chosen, "no such track", "", chosen[0]])),
    ):
        code, lines = confirmed(bench, "retry", *arguments, input=given)
        assert code == 0, lines
        assert statuses(bench) == before | dict.fromkeys(chosen, "pending")
        (run, *_) = bench.queue.runs()["run"]
        assert command(bench, "undo", str(run))[0] == 0
        assert statuses(bench) == before


def test_python_acts_on_ids_of_any_text_and_the_ledger_keeps_their_digest(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 5) + [bench.track(id, "audio_ready") for id in HOSTILE]
    failed(bench, tracks)
    before = statuses(bench)
    plan = bench.queue.plan_retry(ids=iter(HOSTILE))
    assert sorted(plan.preview()["spotify_track_id"]) == sorted(HOSTILE)
    assert plan.token == bench.queue.plan_retry(ids=HOSTILE[::-1]).token
    assert plan.token != bench.queue.plan_retry(ids=tracks[:8]).token
    run = plan.apply(confirm=plan.token)
    assert statuses(bench) == before | dict.fromkeys(HOSTILE, "pending")
    (kept,) = bench.sql("SELECT parameters FROM queue_insights.runs")[0]
    assert kept["ids"].startswith("8 ids, sha256 ")
    run.undo()
    assert statuses(bench) == before


@pytest.mark.parametrize("action", ["backfill", "reset", "retry", "requeue", "prune"])
def test_every_action_takes_only_the_chosen(bench: Bench, action: str) -> None:
    stage = "ready" if action == "prune" else "audio_ready"
    tracks = many(bench, stage, 20)
    columns = {
        "reset": {"status": "running", "last_attempt_at": "'2020-01-01'"},
        "retry": {"status": "failed", "attempts": "3"},
        "requeue": {"status": "completed", "completed_at": "'2020-01-01'"},
        "prune": {"status": "pending"},
    }
    if action != "backfill":
        give_rows(bench, tracks, "align", **columns[action])
    before = statuses(bench)
    plan = bench.queue.plan(action, ids=[tracks[4], tracks[11], "nobody"])
    assert (plan.rows, list(plan.left_out()["spotify_track_id"])) == (2, ["nobody"])
    run = plan.apply(confirm=plan.token)
    changed = {id for id in before | statuses(bench) if before.get(id) != statuses(bench).get(id)}
    assert changed == {tracks[4], tracks[11]}
    run.undo()
    assert statuses(bench) == before


@pytest.mark.parametrize("action", ["backfill", "reset", "retry", "requeue", "prune"])
def test_an_empty_selection_plans_nothing(bench: Bench, action: str) -> None:
    tracks = many(bench, "audio_ready", 3)
    failed(bench, tracks[:2])
    for plan in (
        bench.queue.plan(action, ids=[]),
        bench.queue.plan(action, failure="00000000"),
    ):
        assert plan.rows == 0
        assert plan.apply(confirm=plan.token).row["rows_done"] == 0
    code, lines = command(bench, action, "--id", "-")
    assert (code, lines[-1].endswith(" --id - < FILE")) == (0, True)
    assert f"{action} would" in "".join(lines)
    assert ": 0 rows" in "".join(lines)


def test_a_kind_of_failure_is_retried_alone(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 6)
    failed(bench, tracks[:2], "no answer within 30 s")
    failed(bench, tracks[2:3], "no answer within 5 s")
    failed(bench, tracks[3:5], "file not found")
    failures = bench.queue.failures().set_index("error")
    failure = failures.loc["no answer within * s", "failure"]
    code, lines = confirmed(bench, "retry", "--failure", failure, "--task", "align")
    assert code == 0, lines
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


def test_reasons_say_why_an_id_is_left_out(bench: Bench) -> None:
    bench.task(bench.track("done", "audio_ready"), "align", "completed")
    bench.track("gone", "ready")
    bench.track("fresh", "audio_ready")
    plan = bench.queue.plan_retry(ids=["gone", "nobody", "fresh", "done"])
    assert plan.left_out().to_dict("list") == {
        "spotify_track_id": ["gone", "nobody", "fresh", "done"],
        "reason": [
            "it is at ready, where none of these tasks is due",
            "there is no such track",
            "align is missing",
            "align is drifted",
        ],
    }
    assert bench.queue.plan_retry().left_out().empty


def test_another_selection_is_not_what_a_token_confirms(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 4)
    failed(bench, tracks)
    token = bench.queue.plan_retry(ids=tracks[:2]).token
    with pytest.raises(PlanError, match="parameters"):
        bench.queue.plan_retry(ids=tracks[2:]).apply(confirm=token)
    code, lines = command(bench, "retry", "--id", "-", input=b"\xff\n")
    assert (code, lines) == (2, ["queue-insights: --id -: what stdin gives is no UTF-8 text"])
    with pytest.raises(InputError, match="ids: found None"):
        bench.queue.plan_retry(ids=[None])


@pytest.mark.proof
def test_a_hundred_thousand_ids_come_from_stdin(fresh: Callable[[str], Bench]) -> None:
    bench = fresh("a")
    tracks = many(bench, "audio_ready", 30)
    failed(bench, tracks)
    given = "\n".join([*(f"stranger {i}" for i in range(100_000)), *tracks[:9]])
    code, lines = confirmed(bench, "retry", "--id", "-", input=given)
    assert code == 0, lines
    assert list(statuses(bench).values()).count("pending") == 9
    code, lines = command(bench, "tasks", "--id", "-", "--format", "json", input=given)
    found: list[dict[str, Any]] = json.loads("\n".join(lines))
    assert {row["spotify_track_id"] for row in found} == set(tracks[:9])
