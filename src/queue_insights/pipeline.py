"""The pipeline file: which tables hold the queue, and at which stage which task is due."""

import contextlib
import difflib
import hashlib
import json
import re
import reprlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from queue_insights.errors import InputError

DEFAULT = "karaoke"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)\s*", re.IGNORECASE | re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # Postgres has no text with one of these
_TABLE = re.compile(r'(?:(?P<schema>"(?:[^"]|"")+"|[^".]+)\.)?(?P<name>"(?:[^"]|"")+"|[^".]+)')


def parse_duration(value: object, name: str = "") -> timedelta:
    """A positive duration from text: ``30m``, ``1h30m``, ``7D``, ``90s``, ``2w``.

    Raises InputError, naming the parameter *name*, for anything else, bare numbers included: their
    unit would be a guess. Without a *name* it is a ValueError.
    """
    if isinstance(value, timedelta):
        return value
    text = value if isinstance(value, str) else ""
    parts = _DURATION.findall(text)
    problem = "expected a duration such as 90s, 30m, 1h30m or 7d"
    if parts and not _DURATION.sub("", text).strip():
        problem = "expected a duration above zero and below a hundred years"
        with contextlib.suppress(OverflowError):
            units = ({_UNITS[unit[0].lower()]: float(number)} for number, unit in parts)
            total = sum((timedelta(**unit) for unit in units), timedelta())
            if timedelta() < total <= timedelta(days=36_500):
                return total
    if name:
        raise InputError(f"{name}: found {value!r}, {problem}")
    raise ValueError(problem)


def nearest(value: object, names: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of *names*, or nothing where none is near."""
    close = difflib.get_close_matches(str(value), list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def split_table(name: str) -> tuple[str | None, str]:
    """``schema.table`` or ``table``; a part with a dot in it is written in double quotes."""
    match = _TABLE.fullmatch(name)
    if match is None:
        raise ValueError("expected table or schema.table")

    def plain(part: str) -> str:
        return part[1:-1].replace('""', '"') if part.startswith('"') else part

    schema = match["schema"]
    return (plain(schema) if schema else None), plain(match["name"])


def shipped(name: str) -> Path:
    """The folder ``notebooks`` or ``params``: in the package of a wheel, atop a checkout."""
    package = Path(__file__).parent
    packaged = package / name
    return packaged if packaged.is_dir() else package.parents[1] / name


def _table(value: str) -> str:
    split_table(value)
    return value


def _name(value: str) -> str:
    if not value.strip() or _UNSTORABLE.search(value):
        raise ValueError("expected a name")
    return value


Name = Annotated[str, Field(strict=True), AfterValidator(_name)]
TableName = Annotated[Name, AfterValidator(_table)]
Duration = Annotated[timedelta, BeforeValidator(lambda value: parse_duration(value))]
Attempts = Annotated[int, Field(strict=True, ge=1, le=1000)]


class _Model(BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class TrackColumns(_Model):
    """The table of tracks, and the columns that play a role; a role's default is its own name."""

    table: TableName
    id: Name
    title: Name = "title"
    stage: Name = "stage"
    updated_at: Name = "updated_at"


class TaskColumns(_Model):
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


class Dashboards(_Model):
    """Views of the application that dashboards read; a view that does not exist is left out."""

    task_summary: TableName = "task_summary"
    audio_progress: TableName = "audio_progress"


class Step(_Model):
    """One task, due while a track stands at ``stage``; the limits are the pipeline's if not set."""

    stage: Name
    task: Name
    stuck_after: Duration = timedelta(minutes=30)
    max_attempts: Attempts = 3


class Pipeline(_Model):
    """A validated pipeline file; ``steps`` are in pipeline order."""

    name: Name
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

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change with anything in the file that has a meaning."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of taking the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    twice = f"found the key {key_node.value!r} twice"
                    raise yaml.constructor.ConstructorError(None, None, twice, key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError (one line) if there is none to be had."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except Exception as error:  # of any class: PyYAML's constructors trip over their input
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InputError(f"{path}{where}: not valid YAML: {what}") from error
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise InputError(f"{path}: found {kind}, expected a mapping of keys to values")
    return data


def load(pipeline: str | Path = DEFAULT) -> Pipeline:
    """Read and validate a pipeline file: a path, or the name of one that is shipped.

    Raises InputError with a line per problem: file, key, what was found, what was expected.

    >>> load("karaoke").tasks_due[:2]
    ('download', 'align')
    """
    path = Path(pipeline)
    if not path.suffix and path.name == str(pipeline):
        files = shipped("params") / "pipelines"
        path = files / f"{pipeline}.yaml"
        names = sorted(file.stem for file in files.glob("*.yaml"))
        if pipeline not in names:
            raise InputError(
                f"unknown pipeline {str(pipeline)!r}: shipped are {', '.join(names)}; "
                f"a file is named by its path, such as ./{pipeline}.yaml{nearest(pipeline, names)}"
            )
    try:
        return Pipeline.model_validate(read_yaml(path))
    except pydantic.ValidationError as error:
        problems = "\n".join(f"{path}: {line}" for line in _problems(error))
        raise InputError(problems) from error


def _problems(error: pydantic.ValidationError) -> Iterator[str]:
    """pydantic's findings, a line each, with the nearest of the keys that there are."""
    for problem in error.errors():
        where, (top, *below) = "", problem["loc"] or ("",)
        for part in problem["loc"]:
            name = part if str(part).isprintable() else repr(part)
            where += f"[{part}]" if isinstance(part, int) else f".{name}" if where else str(name)
        said = problem["msg"].removeprefix("Value error, ").splitlines()
        if problem["type"] == "extra_forbidden":
            keys = (_MODELS[top] if below else Pipeline).model_fields
            expected = f"expected one of {', '.join(keys)}{nearest(problem['loc'][-1], keys)}"
            said = [f"unknown key, {expected}"]
        elif problem["type"] != "missing" and where:
            said = [f"found {_short(problem['input'])}, {said[0]}"]
        yield from (f"{where}: {line}" if where else line for line in said)


def _short(value: object) -> str:
    """A repr of modest length: a few aliases in YAML make a value of any size."""
    shortener = reprlib.Repr()
    shortener.maxstring, shortener.maxlevel = 80, 2
    return shortener.repr(value)


_MODELS: dict[object, type[BaseModel]] = {
    "tracks": TrackColumns,
    "tasks": TaskColumns,
    "dashboards": Dashboards,
    "steps": Step,
}
