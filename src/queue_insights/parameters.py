"""Parameters of a report: read from the notebook's ``parameters`` cell, checked before it runs.

papermill itself takes anything: a misspelled name is a warning, and ``-p flag false`` sets the
text 'false', which is true. Here both are errors.
"""

import ast
import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from queue_insights import resources
from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, read_yaml

_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (str, int, float, bool, list, dict)}
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_CREDENTIAL_NAME = re.compile(
    r"(?:^|_)(?:passw(?:or)?d|passwd|pwd|secret|token|credentials?|api_?key|dsn|(?:db|database)_url)s?$",
    re.IGNORECASE,
)
_CREDENTIAL_VALUE = re.compile(
    r"[a-z][a-z0-9+.-]*://[^/?#\s]*:[^/?#\s]*@|://\S*[?&](?:ssl)?password=|\bpassword\s*=\s*\S",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Parameter:
    """One assignment of the cell: its annotation (or its default's type) and its default."""

    name: str
    annotation: str
    default: Any
    type: Any

    def check(self, value: Any, where: str) -> Any:
        """*value* if it is of the declared type, else InputError: nothing is converted."""
        adapter: TypeAdapter[Any] = TypeAdapter(self.type, config=ConfigDict(strict=True))
        try:
            return adapter.validate_python(value)
        except ValidationError:
            found = "nothing" if value is None else f"{value!r} ({_kind(value)})"
            hint = ""
            if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
                hint = f": write {value.lower()} without quotes"
            raise InputError(
                f"{where}: {self.name}: found {found}, expected {self.annotation}{hint}"
            ) from None

    def parse(self, text: str, where: str) -> Any:
        """The value that *text* is on a command line, by the declared type."""
        if self.type is str:
            return text
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            value = text
        # YAML takes 1e-3, without a point, for text, and a task that is called 404 for a number.
        likely = [float(text)] if _FLOAT.fullmatch(text) else []
        for meant in (*likely, value, text):
            with contextlib.suppress(InputError):
                return self.check(meant, where)
        return self.check(value, where)


def declared(notebook: Mapping[str, Any], name: str) -> dict[str, Parameter]:
    """The parameters of a notebook, by name, in the cell's order; none without such a cell.

    Raises InputError if the cell holds more than assignments of literals.
    """
    sources = (
        "".join(cell["source"])  # text, or a list of lines
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])
    )
    where = f"notebook {name!r}: the cell tagged 'parameters'"
    try:
        statements = ast.parse(next(sources, "")).body
    except SyntaxError as error:
        raise InputError(f"{where}, line {error.lineno}: {error.msg}") from None
    found = [
        _parameter(statement, where)
        for statement in statements
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]
    return {parameter.name: parameter for parameter in found}


def _parameter(statement: ast.stmt, where: str) -> Parameter:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=note, value=ast.expr() as value):
            pass
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            note = None  # type: ignore[assignment]
        case _:
            raise InputError(
                f"{where}, line {statement.lineno}: expected only lines such as limit: int = 20"
            )
    try:
        default = ast.literal_eval(value)
        unsaid = str | int | float | bool | None if default is None else type(default)
        kind = _type(note) if note is not None else unsaid
    except ValueError:
        raise InputError(
            f"{where}: {name}: expected a literal default and a type made of "
            f"{', '.join(_TYPES)}, None and |"
        ) from None
    annotation = ast.unparse(note) if note is not None else _kind(default)
    parameter = Parameter(name, annotation, default, kind)
    parameter.check(default, where)
    return parameter


def _type(node: ast.expr) -> Any:
    """The type that an annotation names; nothing in it is run."""
    match node:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type(left) | _type(right)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_type(item)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return dict[_type(key), _type(value)]  # type: ignore[misc]
    raise ValueError(ast.unparse(node))


def validated(
    parameters: Mapping[str, Parameter],
    values: Mapping[str, Any],
    given: Iterable[tuple[str, str]],
    report: str,
    source: str,
) -> dict[str, Any]:
    """What a run gets: *values* (of the file *source*), and over them *given* (command line text).

    Raises InputError for an unknown name, a value of another type, or a credential.
    """
    checked = {
        name: _known(parameters, name, value, report, source).check(value, source)
        for name, value in values.items()
    }
    return checked | {
        name: _known(parameters, name, text, report, "-p").parse(text, "-p") for name, text in given
    }


def _known(
    parameters: Mapping[str, Parameter], name: Any, value: Any, report: str, where: str
) -> Parameter:
    # Parameters are written in clear into notebook, page and summary.
    if (_CREDENTIAL_NAME.search(str(name)) and value not in (None, "")) or any(
        _CREDENTIAL_VALUE.search(text) for text in _texts(value)
    ):
        raise InputError(
            f"{where}: {name}: looks like a credential, which a report would write in clear; "
            "connections come from the environment (QUEUE_INSIGHTS_URL)"
        )
    if name in parameters:
        return parameters[name]
    expected = ", ".join(parameters) or "none: it has no cell tagged 'parameters'"
    raise InputError(
        f"{where}: unknown parameter {name!r}: {report} takes {expected}{nearest(name, parameters)}"
    )


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if not isinstance(value, list):
        return [str(value)]
    return [text for item in value for text in _texts(item)]


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else type(value).__name__


def of_file(file: str) -> dict[str, Any]:
    """The values in a parameter file: a path, or a shipped one's bare name. Raises InputError."""
    path = Path(file)
    shipped = resources.folder("params") / f"{path.stem}.yaml"
    if path.is_file():
        return read_yaml(path)
    if path.name == file and not path.suffix and shipped.is_file():
        return read_yaml(shipped)
    hint = f"; one is shipped: -f {path.stem}" if shipped.is_file() else ""
    raise InputError(f"-f {file}: no such file{hint}")
