"""The pipeline file: which tables hold the queue, and what in them means what."""

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import yaml

from queue_insights.errors import InputError
from queue_insights.pipeline.fields import nearest, parse_duration, split_table
from queue_insights.pipeline.jobs import JobPipeline
from queue_insights.pipeline.stages import Pipeline, Step

__all__ = [
    "DEFAULT",
    "AnyPipeline",
    "JobPipeline",
    "Pipeline",
    "Step",
    "load",
    "nearest",
    "parse_duration",
    "read_yaml",
    "shipped",
    "shipped_pipelines",
    "split_table",
]

DEFAULT = "karaoke"
AnyPipeline = Pipeline | JobPipeline


def shipped(name: str) -> Path:
    """The folder ``notebooks`` or ``params``: in the package of a wheel, atop a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / name
    return packaged if packaged.is_dir() else package.parents[1] / name


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


def shipped_pipelines() -> list[str]:
    """The names of the pipeline files that come with the package."""
    return sorted(file.stem for file in (shipped("params") / "pipelines").glob("*.yaml"))


def load(pipeline: str | Path = DEFAULT) -> AnyPipeline:
    """Read and validate a pipeline file: a path, or the name of one that is shipped.

    Raises InputError with a line per problem: file, key, what was found, what was expected.

    >>> load("karaoke").tasks_due[:2]
    ('download', 'align')
    """
    path = Path(pipeline)
    if not path.suffix and path.name == str(pipeline):
        path = shipped("params") / "pipelines" / f"{pipeline}.yaml"
        names = shipped_pipelines()
        if pipeline not in names:
            raise InputError(
                f"unknown pipeline {str(pipeline)!r}: shipped are {', '.join(names)}; "
                f"a file is named by its path, such as ./{pipeline}.yaml{nearest(pipeline, names)}"
            )
    data = read_yaml(path)
    kind = JobPipeline if "jobs" in data else Pipeline
    try:
        return kind.model_validate(data)
    except pydantic.ValidationError as error:
        problems = "\n".join(f"{path}: {line}" for line in _problems(error, kind))
        raise InputError(problems) from error


def _problems(error: pydantic.ValidationError, kind: type[AnyPipeline]) -> Iterator[str]:
    """pydantic's findings, a line each, with the nearest of the keys that there are."""
    for problem in error.errors():
        where, (top, *below) = "", problem["loc"] or ("",)
        for part in problem["loc"]:
            name = part if str(part).isprintable() else repr(part)
            where += f"[{part}]" if isinstance(part, int) else f".{name}" if where else str(name)
        said = problem["msg"].removeprefix("Value error, ").splitlines()
        if problem["type"] == "extra_forbidden":
            fields = (kind.parts[top] if below else kind).model_fields
            keys = [field.alias or name for name, field in fields.items()]
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
