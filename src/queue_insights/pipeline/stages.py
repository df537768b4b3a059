"""A pipeline file of tracks at stages: their tables, and at which stage which task is due."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import ClassVar

import pydantic

from queue_insights.errors import InputError
from queue_insights.pipeline.fields import Attempts, Duration, File, Model, Name, TableName, nearest


class TrackColumns(Model):
    """The table of tracks, and the columns that play a role; a role's default is its own name."""

    table: TableName
    id: Name
    title: Name = "title"
    stage: Name = "stage"
    updated_at: Name = "updated_at"


class TaskColumns(Model):
    """The table of task rows, and the columns that play a role, named as TrackColumns does."""

    table: TableName
    id: Name = "id"
    track_id: Name
    task_type: Name = "task_type"
    status: Name = "status"
    attempts: Name = "attempts"
    max_attempts: Name = "max_attempts"
    last_attempt_at: Name = "last_attempt_at"
    next_retry_at: Name = "next_retry_at"
    error_message: Name = "error_message"
    processing_duration_ms: Name = "processing_duration_ms"
    created_at: Name = "created_at"
    updated_at: Name = "updated_at"
    completed_at: Name = "completed_at"
    subject_type: Name = "subject_type"
    subject_id: Name = "subject_id"
    subject: Name = "track"


class Dashboards(Model):
    """Views of the application that dashboards read; a view that does not exist is left out."""

    task_summary: TableName = "task_summary"
    audio_progress: TableName = "audio_progress"


class Step(Model):
    """One task, due while a track stands at ``stage``; the limits are the pipeline's if not set."""

    stage: Name
    task: Name
    stuck_after: Duration = timedelta(minutes=30)
    max_attempts: Attempts = 3


class Pipeline(File):
    """A validated pipeline file of tracks at stages; ``steps`` are in pipeline order."""

    parts: ClassVar[dict[object, type[Model]]] = {
        **{"tracks": TrackColumns, "tasks": TaskColumns, "dashboards": Dashboards, "steps": Step}
    }
    items: ClassVar[str] = "tracks"  # what stands in the queue
    tracks: TrackColumns
    tasks: TaskColumns
    dashboards: Dashboards = Dashboards()
    stages: tuple[Name, ...]
    terminal: tuple[Name, ...]
    stuck_after: Duration = timedelta(minutes=30)
    max_attempts: Attempts = 3
    steps: tuple[Step, ...]

    @pydantic.model_validator(mode="after")
    def _steps_fit_stages(self) -> "Pipeline":
        if problems := "\n".join(self._misfits()):
            raise ValueError(problems)
        limits = {"stuck_after": self.stuck_after, "max_attempts": self.max_attempts}
        steps = [
            step.model_copy(update=limits | step.model_dump(exclude_unset=True))
            for step in self.steps
        ]
        steps.sort(key=lambda step: self.stages.index(step.stage))
        object.__setattr__(self, "steps", tuple(steps))
        return self

    def _misfits(self) -> Iterator[str]:
        if not self.steps:
            yield "steps: found none, expected at least one"
        for stage in sorted({stage for stage in self.stages if self.stages.count(stage) > 1}):
            yield f"stages: found {stage!r} twice, expected each stage once"
        named = {f"terminal[{i}]": stage for i, stage in enumerate(self.terminal)}
        named |= {f"steps[{i}].stage": step.stage for i, step in enumerate(self.steps)}
        for where, stage in named.items():
            if stage not in self.stages:
                hint = nearest(stage, self.stages)
                yield f"{where}: found {stage!r}, expected one of `stages`{hint}"
        for i, step in enumerate(self.steps):
            first = self.tasks_due.index(step.task)
            if first < i:
                again = f"found {step.task!r} again after steps[{first}]"
                yield f"steps[{i}].task: {again}, expected each task once"
            if step.stage in self.terminal:
                terminal = f"found the terminal stage {step.stage!r}"
                yield f"steps[{i}].stage: {terminal}, expected a stage at which work is due"

    def refusal(self, what: str) -> str | None:
        """Why *what* cannot be had of this queue, a read or an action; None where it can."""
        return None

    @property
    def tasks_due(self) -> tuple[str, ...]:
        """The task types, in pipeline order."""
        return tuple(step.task for step in self.steps)

    def select(self, tasks: str | Iterable[str] | None = None) -> tuple[Step, ...]:
        """The steps of *tasks* (one, several, or all for None), in pipeline order.

        Raises InputError for a task that the pipeline does not have.
        """
        if tasks is None:
            return self.steps
        wanted = [tasks] if isinstance(tasks, str) else list(tasks)
        for task in wanted:
            if task not in self.tasks_due:
                has = f"{', '.join(self.tasks_due)}{nearest(task, self.tasks_due)}"
                raise InputError(f"unknown task {task!r}: pipeline {self.name!r} has {has}")
        return tuple(step for step in self.steps if step.task in wanted)

    def previous(self, step: Step) -> tuple[str, ...]:
        """The tasks whose completion leads to *step*'s stage (empty for the first)."""
        before = self.stages[: self.stages.index(step.stage)]
        earlier = [each for each in self.steps if each.stage in before]
        return tuple(each.task for each in earlier if each.stage == earlier[-1].stage)
