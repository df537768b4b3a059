"""Lives a story with a vendor's queue; a script for each vendor says how that is done with it.

``SCRIPT URL STEPS`` does the steps (as in `STEPS` of __init__.py), by an interpreter that has the
vendor's package, and prints as JSON what the last one gave.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

_, URL, STEPS = sys.argv
TEN_YEARS = timedelta(days=3650)
KINDS = ("resize", "doomed", "slow", "flaky", "later", "mail", "hang")
FAILING = ("doomed", "slow", "flaky")  # for good, until in ten years, until `hasten`
finished: list[str] = []
succeeding = False


def act(kind: str, job: object) -> bool:
    """What the handler of any kind does; whether it is never to end."""
    if succeeding:
        finished.append(str(job))
    elif kind in FAILING:
        raise ValueError(f"{kind}: track {job} of 'Mo \"X\"' not found, HTTP 404 after 3.5 s")
    elif kind == "hang":
        print(job, flush=True)
        return True
    return False


async def handle(kind: str, job: object) -> None:
    if act(kind, job):
        await asyncio.Event().wait()


def sql(statement: str, *values: object) -> list[Any]:
    with psycopg.connect(URL, options="-c timezone=UTC") as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


class Runner:
    """What is alike with all vendors. Each adds: make the tables; enqueue a job, for its id; work
    until nothing more can run; hang, as a worker that takes what never ends; drop, which cancels
    ids; jobs, by its own API: id, kind, status, when due, whether who runs it is alive, error."""

    STATES = ""  # which of its statuses has another name with us
    HASTEN = ""  # makes what waits of a kind due
    SILENCE = ""  # lets who runs the ids be silent for long

    async def add(self, kind: str, count: str) -> list[Any]:
        return [await self.enqueue(kind) for _ in range(int(count))]

    async def cancel(self, kind: str, count: str) -> None:
        await self.drop(await self.add(kind, count))

    async def hasten(self, kind: str) -> None:
        sql(self.HASTEN, kind)

    async def taken(self, count: str) -> list[Any]:
        """Jobs whose worker was killed when it had begun them all."""
        jobs = await self.add("hang", count)
        command = [sys.executable, sys.argv[0], URL, "hang"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            begun = [worker.stdout.readline() for _ in jobs]
            worker.kill()
        assert all(begun), "the worker ended before it was killed"
        return jobs

    async def lose(self, dead: str, alive: str) -> None:
        """Kill workers; of some it is known at once, the others have just given a sign of life."""
        jobs = await self.taken(dead)
        await self.taken(alive)
        sql(self.SILENCE, jobs)

    async def tell(self) -> list[Any]:
        told, names = [], dict(pair.split("=") for pair in self.STATES.split())
        for id, kind, status, due, alive, error in await self.jobs():
            state = names.get(status, status)
            if state in ("pending", "retryable") and due and due > datetime.now(UTC):
                state = "backing_off"
            elif state == "running" and not alive:
                state = "stuck"
            told.append((str(id), kind, state, error))
        return told

    async def finish(self) -> list[str]:
        """Work with handlers that all succeed: the ids of what they finished."""
        global succeeding
        succeeding = True
        await self.work()
        return finished

    async def live(self) -> None:
        for words in STEPS.split("; "):
            step, *values = words.split()
            result = await getattr(self, step)(*values)
        print(json.dumps(result))


def play(opened: Callable[[], Any], made: Callable[[Any], Runner]) -> None:
    """Live with what is *made* of an async context."""

    async def live() -> None:
        async with opened() as resource:
            await made(resource).live()

    asyncio.run(live())
