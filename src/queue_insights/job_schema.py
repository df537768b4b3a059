"""A queue of jobs in one database: the roles of its pipeline file, checked, and as templates use
them. A broken expression is an error of one line that names the role."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.errors import InputError
from queue_insights.pipeline import JobPipeline, Step, nearest
from queue_insights.reads import STATES
from queue_insights.sql import Query, escaped, identifier, render, text

_LINE = "\n" + " " * 16  # within a column of a list
KIND = "jobs"  # of queue: the folder of sql/ that holds its relations

_TIMES = ("due_at", "created_at", "started_at", "alive_at", "finished_at", "left_at")
_EXPECTED = (
    (_TIMES, ("timestamp",), "expected a time, with its zone or in UTC"),
    (("attempts", "max_attempts"), ("smallint", "integer", "bigint"), "expected whole numbers"),
)


# SQLSTATEs of what is wrong with an expression, not with the server or this role's rights.
_OF_THE_FILE = ("0A", "21", "22", "3F", "426", "427", "428", "42P")


@dataclass(frozen=True, repr=False)
class Jobs:
    """The jobs of some relations: ``roles`` are SQL, ``types`` those of their values; ``labels``
    are the values that the status can have, None where it can be any text; ``nullable``, whether
    it can be null as well."""

    pipeline: JobPipeline
    relations: Sequence[Markup]
    roles: Mapping[str, Markup]
    types: Mapping[str, str]
    labels: Sequence[str] | None
    nullable: bool

    def is_(self, *words: str) -> Markup:
        """Whether a job's status means one of these *words*: written so that an index serves."""
        return self._in([value for word in words for value in self._values(word)])

    @property
    def open(self) -> Markup:
        """Whether a job is not completed."""
        if self.labels is None:
            return Markup(f"({self.is_('completed')}) IS NOT TRUE")
        over = self._values("completed")
        known = self._in([label for label in self.labels if label not in over])
        null = Markup(f"({known} OR {self.roles['status']} IS NULL)")
        return null if self.nullable else known

    @property
    def said(self) -> Markup:
        """The status in our words."""
        if not self.pipeline.states:
            return Markup(f"coalesce({self.roles['status']}::text, 'other')")
        lines = [
            f"WHEN {self._in(values)} THEN {text(word)}"
            for word in self.pipeline.states
            if (values := self._values(word))
        ]
        return Markup(f"CASE {_LINE.join(lines)} ELSE 'other' END" if lines else "'other'")

    @property
    def unnamed(self) -> list[str]:
        """The values that the status may have, and the file does not name."""
        states = self.pipeline.states
        named = {value.removesuffix("?") for values in states.values() for value in values}
        return [label for label in self.labels or () if states and label not in named]

    def _values(self, word: Any) -> list[str]:
        states = self.pipeline.states or {word: (word,)}
        named = [value.removesuffix("?") for value in states.get(word, ())]
        return [v for v in named if self.labels is None or v in self.labels]

    def _in(self, values: Sequence[str]) -> Markup:
        listed = Markup(f"{self.roles['status']} IN ({', '.join(map(text, values))})")
        return listed if values else Markup("false")

    def time(self, role: str) -> Markup:
        """A role that is a time, with its zone: UTC where it has none."""
        if role not in self.roles:
            return Markup("NULL::timestamptz")
        zoned = self.types[role] == "timestamp with time zone"
        return Markup(f"{self.roles[role]}{'' if zoned else '::timestamptz'}")

    def number(self, role: str) -> Markup:
        return Markup(f"{self.roles[role]}::int" if role in self.roles else "NULL::int")

    @property
    def kind(self) -> Markup:
        return Markup(f"coalesce({self.roles['kind']}::text, '(none)')")

    @property
    def arrived_at(self) -> Markup:
        """When a job came: the later of created and due."""
        known = [self.time(role) for role in ("created_at", "due_at") if role in self.roles]
        return Markup(f"greatest({', '.join(known)})") if known else Markup("NULL::timestamptz")

    @property
    def ended_at(self) -> Markup:
        """When a job ended, if not by being completed."""
        if "left_at" not in self.roles:
            return self.time("finished_at")
        both = ", ".join(self.time(role) for role in ("left_at", "finished_at"))
        return Markup(f"coalesce({both})") if "finished_at" in self.roles else self.time("left_at")

    @property
    def columns(self) -> list[Markup]:
        """What the templates read of each job; ``alive_at`` is now where nobody can tell."""
        alive = [self.time(role) for role in ("alive_at", "started_at") if role in self.roles]
        error = Markup(f"{self.roles['error']}::text" if "error" in self.roles else "NULL::text")
        named = {
            **{"id": self.roles["id"], "task_type": self.kind, "said": self.said},
            **{"status": self.roles["status"] + Markup("::text")},
            **{role: self.number(role) for role in ("attempts", "max_attempts")},
            **{"created_at": self.time("created_at"), "next_retry_at": self.time("due_at")},
            **{"last_attempt_at": self.time("started_at"), "error_message": error},
            **{"alive_at": alive[0] if alive else Markup("now()"), "ended_at": self.ended_at},
            "arrived_at": self.arrived_at,
        }
        return [Markup(f"{sql} AS {name}") for name, sql in named.items()]


class _Names(dict[str, Markup]):
    """Roles of task rows by the names that they have in ``standing``: as attributes."""

    def __getattr__(self, role: str) -> Markup:
        return self[role]


# What the macros that both kinds of queue use call a row's columns.
_STANDING = _Names(
    {
        **{n: Markup(n) for n in ("id", "attempts", "max_attempts", "next_retry_at")},
        **{"error_message": Markup("error_message"), "status": Markup("said")},
        "last_attempt_at": Markup("alive_at"),
    }
)
_SHOWN = {
    **{"status": "status", "attempts": "attempts", "max_attempts": "max_attempts"},
    **{"due_at": "next_retry_at", "started_at": "last_attempt_at", "alive_at": "alive_at"},
    **{"error": "error_message", "created_at": "created_at"},
}


@dataclass(frozen=True, repr=False)
class JobSchema:
    """A queue of jobs in one database, and what templates must know of it."""

    pipeline: JobPipeline
    jobs: Jobs
    history: Jobs
    variant: ClassVar[Literal["jobs"]] = "jobs"

    def steps(self, connection: sa.Connection, tasks: str | Iterable[str] | None) -> list[Step]:
        """A step for each kind of job that is open, or for those of *tasks*. Raises InputError for
        one that there is none of."""
        wanted = [tasks] if isinstance(tasks, str) else None if tasks is None else list(tasks)

        def kinds(every: bool) -> list[str]:
            return list(Query(self.render("kinds.sql", every=every)).rows(connection).scalars())

        found = kinds(every=False)
        if not {*(wanted or ())} <= {*found}:
            found = sorted({*found, *kinds(every=True)})
        for task in wanted or ():
            if task not in found:
                has = f"{', '.join(found) or 'no jobs'}{nearest(task, found)}"
                raise InputError(
                    f"unknown task {task!r}: the queue {self.pipeline.name!r} has {has}"
                )
        return [self.step(kind) for kind in found if wanted is None or kind in wanted]

    def step(self, task: str) -> Step:
        """The step of one kind of job."""
        return Step.model_construct(
            stage=None, task=task, stuck_after=self.pipeline.stuck_after, max_attempts=1
        )

    @property
    def identity(self) -> str | None:
        """The relation that the jobs stand in, if it is one."""
        name = str(self.jobs.relations[0]).split()[0]
        return name if re.fullmatch(r"[\w.]+", name) else None

    @property
    def retry(self) -> Markup:
        """The vendor's way to retry the jobs of a batch."""
        kind = self.jobs.types["id"]
        ids = f"(SELECT array_agg(id::{kind}) FROM chosen_job)::{kind}[]"  # noqa: S608
        parts = re.split(r"(?<![:\w]):ids\b", self.pipeline.actions["retry"])
        return Markup(escaped(ids).join(escaped(part) for part in parts))

    def check_retry(self, connection: sa.Connection) -> None:
        """Raises InputError where the file's way to retry is no statement that gives ids. A right
        that this role lacks is not said here, as it may look at a plan without."""
        check = Query(self.render("retry_check.sql", retry=self.retry))
        try:
            with connection.begin_nested():
                check.rows(connection)
        except sa.exc.DBAPIError as error:
            if fault := _fault(error):
                at = f"pipeline {self.pipeline.name!r}: actions.retry"
                raise InputError(f"{at}: {fault}") from None
            if getattr(error.orig, "sqlstate", None) != "42501":
                raise

    def context(self, steps: Iterable[Step] | None = None) -> dict[str, Any]:
        """What every template may use: the jobs, and the *steps* (default: found in the data)."""
        named = self.pipeline.jobs.id
        kinds = (
            None
            if steps is None
            else [
                {
                    "position": text(s.task),
                    "stage": None,
                    "task": s.task,
                    "max_attempts": s.max_attempts,
                }
                for s in steps
            ]
        )
        return {
            **{"jobs": self.jobs, "past": self.history, "tasks": _STANDING, "named": _STANDING},
            **{"separate": self.history.relations != self.jobs.relations, "steps": kinds},
            **{"states": STATES, "branching": True},
            "ahead": True,  # it may be enqueued long before it is due
            "stuck_after": self.pipeline.stuck_after,
            "limited": {"attempts", "max_attempts"} <= {*self.jobs.roles},
            "id_column": identifier(named if named.isidentifier() else "id"),
            "track_id_text": Markup("track_id::text"),
            **{"status_text": Markup("said"), "retryable": "retryable"},
            "failed": ("retryable", "exhausted"),
            "is_failed": Markup("said IN ('retryable', 'exhausted')"),
            "as_they_are": ("exhausted", "skipped", "blocked", "missing"),
            "shown_columns": [
                identifier(name) for role, name in _SHOWN.items() if role in self.jobs.roles
            ],
        }

    def render(self, name: str, steps: Iterable[Step] | None = None, **given: Any) -> str:
        """The template *name* for these jobs, with what else it is *given*."""
        return render(KIND, name, self.context(steps) | given)


def reflect_jobs(connection: sa.Connection, pipeline: JobPipeline) -> JobSchema:
    """Check each role of the file against the database, and find the types of what they give.

    Raises InputError in one line that names the role, and what the database says of it.
    """
    roles, history = pipeline.roles, pipeline.history
    jobs = _jobs(connection, pipeline, "jobs", pipeline.jobs.relations, roles["jobs"])
    if history is None or not history.relations:
        return JobSchema(pipeline, jobs, jobs)
    past = _jobs(connection, pipeline, "history", history.relations, roles["history"])
    return JobSchema(pipeline, jobs, past)


def _jobs(
    connection: sa.Connection,
    pipeline: JobPipeline,
    where: str,
    relations: Sequence[str],
    roles: Mapping[str, str],
) -> Jobs:
    here = [name for name in relations if len(relations) == 1 or _is_there(connection, name)]
    at = f"pipeline {pipeline.name!r}: {where}"
    sql = {role: _as_sql(expression) for role, expression in roles.items()}
    types: dict[str, Any] = {}
    nullable = False
    for relation in here or relations:
        described = _described(connection, relation, sql)
        if described is None:  # one of them is broken: which?
            for role, expression in {"from": Markup("NULL"), **sql}.items():
                _described(connection, relation, {role: expression}, at)
            raise InputError(f"{at}: its roles do not fit together")
        types |= described
        nullable |= not described["status"]["never_null"]
    kinds = {role: str(type["type"]) for role, type in types.items()}
    for role, kind in kinds.items():
        for of, start, expected in _EXPECTED:
            if role in of and not kind.startswith(start):
                raise InputError(f"{at}.{role}: is {kind}, {expected}")
    labels = types["status"]["labels"]
    relations_ = [_as_sql(relation, False) for relation in here or relations]
    found = Jobs(pipeline, relations_, sql, kinds, labels, nullable)
    if labels is None:  # do its values compare with those of the file?
        _described(connection, (here or relations)[0], {"status": found.said}, at)
    else:
        _check_labels(pipeline, labels)
    return found


def _check_labels(pipeline: JobPipeline, labels: Sequence[str]) -> None:
    for word, values in pipeline.states.items():
        for value in values:
            if value not in labels and not value.endswith("?"):
                raise InputError(
                    f"pipeline {pipeline.name!r}: states.{word}: the status cannot be {value!r}, "
                    f"expected one of {', '.join(labels)}{nearest(value, labels)}"
                )


def _as_sql(expression: str, alone: bool = True) -> Markup:
    """What the file says, as part of a statement: in parentheses, unless it is a name."""
    stripped = expression.strip()
    plain = not alone or re.fullmatch(r"[\w.]+", stripped)
    whole = stripped + "\n" * ("--" in stripped)  # a comment ends with its line
    return escaped(whole if plain else f"({whole})")


def _is_there(connection: sa.Connection, relation: str) -> bool:
    """Whether there are the tables that it is made of; of what else is wrong others speak."""
    about = {"roles": {"nothing": Markup("NULL")}, "relation": escaped(relation)}
    try:
        with connection.begin_nested():
            Query(render(KIND, "check.sql", about), {"never": False}).rows(connection)
    except sa.exc.DBAPIError as error:
        return getattr(error.orig, "sqlstate", None) not in ("42P01", "3F000")
    return True


def _fault(error: sa.exc.DBAPIError | ValueError) -> str | None:
    """What is wrong with the SQL of a file; None where it is the server or a right that lacks."""
    if isinstance(error, ValueError):
        return str(error)
    state, diag = getattr(error.orig, "sqlstate", None), getattr(error.orig, "diag", None)
    return str(diag.message_primary) if diag and (state or "").startswith(_OF_THE_FILE) else None


def _described(
    connection: sa.Connection,
    relation: str,
    roles: Mapping[str, Markup],
    at: str | None = None,
) -> dict[str, Any] | None:
    """The type of each role, and its labels. With a parameter, so that Postgres takes nothing but
    one statement. None, or InputError if it is told what these are roles of, where it refuses."""
    about = {"roles": roles, "relation": escaped(relation)}
    check = Query(render(KIND, "check.sql", about), {"never": False})
    savepoint = connection.begin_nested()
    try:
        result = check.rows(connection)
        names, given = list(result.keys()), cast(Any, result.cursor).pgresult
        columns = [(given.ftype(n), given.ftable(n), given.ftablecol(n)) for n in range(len(names))]
        savepoint.commit()
        if names != list(roles):
            raise ValueError("expected one expression")
    except (sa.exc.DBAPIError, ValueError) as error:
        if savepoint.is_active:
            savepoint.rollback()
        fault = _fault(error)
        if fault is None:
            raise
        if at is None:
            return None
        (role,) = roles
        raise InputError(f"{at}.{role}: {fault}") from None
    parts = map(list, zip(*columns, strict=True))
    of = dict(zip(("types", "relations", "numbers"), parts, strict=True))
    found = Query(render(KIND, "types.sql", {}), of).rows(connection).mappings().all()
    if any(row["type"] == "record" for row in found):
        if at is None:
            return None
        raise InputError(f"{at}.{next(iter(roles))}: expected one expression")
    return dict(zip(roles, found, strict=True))
