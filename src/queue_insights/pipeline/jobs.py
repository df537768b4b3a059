"""Pipeline files of jobs, other people's queues among them: the roles that their SQL plays, and
what cannot be asked of such a queue."""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import BeforeValidator, Field

from queue_insights.pipeline.fields import Duration, File, Model, Name

_ROW = "a job is its own row"
_KEPT = "nothing is installed in the tables of another program"
_REFUSED = {
    "audit": f"{_ROW}, so none is hidden from those who count rows",
    "missing": f"{_ROW}, so none is without one",
    "orphans": f"{_ROW}, which does not stay behind when it moves on",
    "end_to_end": "its kinds of job do not lead to one another: ask eta without --end-to-end",
    "backfill": f"{_ROW}, so there is none to insert",
    "requeue": "a completed job is over: enqueue it anew in the application",
    "reset": "what becomes of a job whose worker is gone is for its own queue to say",
    "prune": f"{_ROW}, which does not stay behind when it moves on",
    "undo": "its workers may have taken what was retried: there is no way back",
    "grants": "what its file reads is any SQL: grant SELECT on those tables yourself",
    "trigger": _KEPT,
    "views": _KEPT,
}
_HISTORY = ("throughput", "durations", "flow", "eta", "backtest")


def _no_history(value: object) -> object:
    return {"from": ()} if value == "none" else value


Relations = Annotated[tuple[Name, ...], BeforeValidator(lambda v: (v,) if type(v) is str else v)]


class JobHistory(Model):
    """Where jobs that are over are kept, if not with the others, and which roles of JobRoles differ
    there. Of several relations those count that the database has."""

    relations: Relations = Field(alias="from")
    id: Name | None = None
    kind: Name | None = None
    status: Name | None = None
    attempts: Name | None = None
    max_attempts: Name | None = None
    due_at: Name | None = None
    created_at: Name | None = None
    started_at: Name | None = None
    alive_at: Name | None = None
    finished_at: Name | None = None
    left_at: Name | None = None
    error: Name | None = None


class JobRoles(JobHistory):
    """A relation of jobs, and for each role an SQL expression over it, such as a column's name.

    ``finished_at`` is when a job was completed, ``left_at`` when it ended otherwise; ``alive_at``
    when its worker was last heard of (default ``started_at``). A role left out is not known.
    """

    relations: Relations = Field(alias="from", min_length=1)
    id: Name
    kind: Name
    status: Name


Word = Literal["pending", "retryable", "running", "blocked", "completed", "exhausted", "skipped"]


class JobPipeline(File):
    """A validated pipeline file of jobs, such as another queue's; they are called ``items``.

    ``states`` says which values of the status mean which of our words (one that ends in ``?`` may
    be unknown to the database); without it the status is in our words already. ``actions.retry`` is
    the vendor's own way, as SQL over ``:ids`` that gives the ids of the jobs that it retried;
    ``refused`` says why that, or history, cannot be had."""

    items: Name = "jobs"
    jobs: JobRoles
    history: Annotated[JobHistory | None, BeforeValidator(_no_history)] = None
    states: dict[Word, tuple[Name, ...]] = Field(default={})
    stuck_after: Duration = timedelta(minutes=30)
    actions: dict[Literal["retry"], Name] = Field(default={})
    refused: dict[Literal["retry", "history"], Name] = Field(default={})

    @pydantic.model_validator(mode="after")
    def _each_value_means_one_word(self) -> "JobPipeline":
        values = [value.removesuffix("?") for named in self.states.values() for value in named]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"states: found {twice[0]!r} twice, expected each value once")
        return self

    parts: ClassVar[dict[object, type[Model]]] = {"jobs": JobRoles, "history": JobHistory}

    @property
    def roles(self) -> dict[str, dict[str, str]]:
        """What plays which role, in ``jobs`` and in ``history``, where the former goes on."""
        now = _given(self.jobs)
        return {"jobs": now, "history": now | _given(self.history)}

    def refusal(self, what: str) -> str | None:
        """Why *what* cannot be had of this queue, a read or an action; None where it can."""
        roles = self.roles["history"]
        why = _REFUSED.get(what)
        kept_nowhere = self.history is not None and not self.history.relations
        if what in _HISTORY and (kept_nowhere or "finished_at" not in roles):
            why = self.refused.get("history", "its file names no finished_at: when a job was done")
        elif what == "durations" and "started_at" not in roles:
            why = "it does not keep when a job was started"
        elif what == "failures" and "error" not in self.roles["jobs"]:
            why = "it keeps no error text with a failed job"
        elif what == "retry" and "retry" not in self.actions:
            why = self.refused.get("retry", "its file names no way to retry, under actions")
        elif what == "missing" and "'missing'" in self.jobs.status:
            why = None
        return why and f"{what}: not for the queue {self.name!r}: {why}"


def _given(roles: JobHistory | None) -> dict[str, str]:
    return {} if roles is None else roles.model_dump(exclude_none=True, exclude={"relations"})
