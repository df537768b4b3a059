"""Parameters of a report: read from the notebook's ``parameters`` cell, checked before it runs.

papermill itself takes anything: a misspelled name is a warning, and ``-p flag false`` sets the
text 'false', which is true. Here both are errors.
"""

import ast
import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, read_yaml, shipped

_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (str, int, float, bool, list, dict)}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)  # JSON has no such numbers
_ANY = "str | int | float | bool | None"
_CREDENTIAL_NAME = re.compile(
    r"(?i)(?:^|_)(?:passw(?:or)?d|passwd|pwd|secret|token|credentials?|api_?key|dsn|(?:db|database)_url)s?$"
)
_CREDENTIAL_VALUE = re.compile(
    r"(?i)[a-z][a-z0-9+.-]*://[^/?#\s]*:[^/?#\s]*@|://\S*[?&](?:ssl)?password=|password\s*=\s*\S"
)


@dataclass(frozen=True)
class Parameter:
    """One assignment of the cell: its type, as it is written and as Python has it, its default."""

    name: str
    annotation: str
    type: Any
    default: Any

    def check(self, value: Any, where: str) -> Any:
        """*value* if it is of the declared type, else InputError: nothing is converted."""
        adapter: TypeAdapter[Any] = TypeAdapter(self.type, config=_STRICT)
        try:
            return adapter.validate_python(value)
        except ValidationError:
            kind = "text" if isinstance(value, str) else type(value).__name__
            found = "nothing" if value is None else f"{value!r} ({kind})"
            is_quoted = isinstance(value, str) and value.lower() in ("true", "false", "yes", "no")
            hint = f": write {value.lower()} without quotes" if is_quoted else ""
            problem = f"found {found}, expected {self.annotation}{hint}"
            raise InputError(f"{where}: {self.name}: {problem}") from None

    def parse(self, text: str, where: str) -> Any:
        """The value that *text* is on a command line, by the declared type."""
        if self.type is str:
            return text
        meant: list[Any] = [text]  # a task may be called 404
        for read in (yaml.safe_load, json.loads):  # YAML takes 1e-3, without a point, for text
            with contextlib.suppress(ValueError, yaml.YAMLError):
                meant.insert(0, read(text))
        for value in meant:
            with contextlib.suppress(InputError):
                return self.check(value, where)
        return self.check(meant[0], where)


def declared(notebook: Mapping[str, Any], name: str) -> dict[str, Parameter]:
    """The parameters of a notebook, by name, in the cell's order; none without such a cell.

    A type is an annotation or a type comment (``task = None  # type: Optional[str] ...``), else
    that of the default. Raises InputError if there is more in the cell than assignments of
    literals; nothing in it is run.
    """
    sources = (
        "".join(cell["source"])  # text, or a list of lines
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])
    )
    where = f"notebook {name!r}: the cell tagged 'parameters'"
    found: dict[str, Parameter] = {}
    line = 0
    # Not by papermill's own inspection of the cell, which goes line by line: it misses a parameter
    # with a second "=" in its line (of a threshold, say) or a "|" in its type, and cuts at a "#".
    try:
        for statement in ast.parse(next(sources, ""), type_comments=True).body:
            line = statement.lineno
            match statement:
                case ast.Expr(value=ast.Constant()):
                    continue
                case ast.AnnAssign(target=ast.Name(id=key), annotation=note, value=ast.expr() as v):
                    kind = ast.unparse(note)
                case ast.Assign(targets=[ast.Name(id=key)], value=v, type_comment=comment):
                    kind = (comment or "").partition(" ")[0]
                case _:
                    raise ValueError
            default = ast.literal_eval(v)
            kind = kind or (_ANY if default is None else type(default).__name__)
            found[key] = Parameter(key, kind, _type(ast.parse(kind, mode="eval").body), default)
            found[key].check(default, where)
    except (SyntaxError, ValueError, TypeError) as error:
        types = f"{', '.join(_TYPES)}, Optional, None and |"
        expected = f"expected only lines such as limit: int = 20, with a type made of {types}"
        at = line or getattr(error, "lineno", 0)
        raise InputError(f"{where}, line {at}: {expected}") from None
    return found


def _type(node: ast.expr) -> Any:
    """The type that an annotation names; nothing in it is run."""
    match node:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type(left) | _type(right)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=item):
            return _type(item) | None
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

    def known(name: Any, value: Any, where: str) -> Parameter:
        # Parameters are written in clear into notebook, page and summary.
        is_named_so = _CREDENTIAL_NAME.search(str(name)) and value not in (None, "")
        if is_named_so or _CREDENTIAL_VALUE.search(str(value)):
            raise InputError(
                f"{where}: {name}: looks like a credential, which a report would write in clear; "
                "connections come from the environment (QUEUE_INSIGHTS_URL)"
            )
        if name in parameters:
            return parameters[name]
        takes = ", ".join(parameters) or "none: it has no cell tagged 'parameters'"
        hint = nearest(name, parameters)
        raise InputError(f"{where}: unknown parameter {name!r}: {report} takes {takes}{hint}")

    checked = {name: known(name, v, source).check(v, source) for name, v in values.items()}
    return checked | {name: known(name, text, "-p").parse(text, "-p") for name, text in given}


def of_file(file: str) -> dict[str, Any]:
    """The values in a parameter file: a path, or a shipped one's bare name. Raises InputError."""
    path = Path(file)
    ours = shipped("params") / f"{path.stem}.yaml"
    if not path.is_file() and file == path.stem:
        path = ours
    if path.is_file():
        return read_yaml(path)
    hint = f"; one is shipped: -f {path.stem}" if ours.is_file() else ""
    raise InputError(f"-f {file}: no such file{hint}")
