"""Parameters of a report: read from the notebook's ``parameters`` cell, checked before it runs.

papermill takes anything: a misspelled name is a warning, ``-p flag false`` the true text 'false'.
"""

import ast
import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from queue_insights.errors import InputError
from queue_insights.pipeline import nearest

# Every type that a parameter may have, as it is written in the cell.
_TYPES: dict[str, Any] = {
    **{"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict},
    **{"list[str]": list[str], "list[int]": list[int], "list[float]": list[float]},
}
_TYPES |= {f"Optional[{name}]": kind | None for name, kind in _TYPES.items()}
_ANY = "str | int | float | bool | None"  # of a default None without a type
_TYPES[_ANY] = str | int | float | bool | None
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)  # JSON has no such numbers
_CREDENTIAL_NAME = re.compile(
    r"(?i)(^|_)(password|passwd|pwd|secret|token|credential|api_?key|dsn|(db|database)_url)s?$"
)
_CREDENTIAL_VALUE = re.compile(r"(?i)://[^/?#\s]*:[^/?#\s]*@|password\s*=\s*\S")


@dataclass(frozen=True)
class Parameter:
    """One assignment of the cell: its type, as it is written there, and its default."""

    name: str
    annotation: str
    default: Any

    def check(self, value: Any, where: str) -> Any:
        """*value* if it is of the declared type, else InputError: nothing is converted."""
        try:
            adapter = TypeAdapter[Any](_TYPES[self.annotation], config=_STRICT)
            return adapter.validate_python(value)
        except ValidationError:
            kind = "text" if isinstance(value, str) else type(value).__name__
            hint = " without quotes" if kind == "text" and value in ("true", "false") else ""
            problem = f"found {value!r} ({kind}), expected {self.annotation}{hint}"
            raise InputError(f"{where}: {self.name}: {problem}") from None

    def parse(self, text: str) -> Any:
        """What *text* is on a command line: itself where the type is text, else YAML."""
        if self.annotation == "str" or (self.annotation == "Optional[str]" and text != "null"):
            return text
        with contextlib.suppress(ValueError, yaml.YAMLError):
            return yaml.safe_load(text)
        return text


def declared(notebook: Mapping[str, Any], name: str) -> dict[str, Parameter]:
    """The parameters of a notebook, by name, in the cell's order; none without such a cell.

    A type is an annotation or a type comment (``task = None  # type: Optional[str] ...``), else
    that of the default. Raises InputError for more than assignments of literals; nothing is run.
    """
    cells = notebook["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    source = "".join(tagged[0]["source"]) if tagged else ""  # text, or a list of lines
    where = f"notebook {name!r}: the cell tagged 'parameters'"
    found: dict[str, Parameter] = {}
    try:
        for statement in ast.parse(source, type_comments=True).body:
            match statement:
                case ast.Expr(value=ast.Constant()):
                    continue
                case ast.AnnAssign(target=ast.Name(id=key), annotation=note, value=ast.expr() as v):
                    kind = re.sub(r"^(\S+) \| None$", r"Optional[\1]", ast.unparse(note))
                case ast.Assign(targets=[ast.Name(id=key)], value=v, type_comment=comment):
                    kind = (comment or "").partition(" ")[0]
                case _:
                    raise ValueError
            default = ast.literal_eval(v)
            kind = kind or (_ANY if default is None else type(default).__name__)
            found[key] = Parameter(key, kind, default)
            found[key].check(default, where)
    except (SyntaxError, ValueError, TypeError, KeyError):
        expected = f"expected only lines such as limit: int = 20, of the types {', '.join(_TYPES)}"
        raise InputError(f"{where}: {expected}") from None
    return found


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
    texts = [(name, parameters[name].parse(v) if name in parameters else v) for name, v in given]
    checked = {}
    for where, pairs in ((source, [*values.items()]), ("-p", texts)):
        for name, value in pairs:
            is_named_so = _CREDENTIAL_NAME.search(str(name)) and value not in (None, "")
            if is_named_so or _CREDENTIAL_VALUE.search(str(value)):
                problem = "looks like a credential, which a report would write in clear"
                instead = "connections come from the environment (QUEUE_INSIGHTS_URL)"
                raise InputError(f"{where}: {name}: {problem}; {instead}")
            if name not in parameters:
                takes = f"{', '.join(parameters) or 'none'}{nearest(name, parameters)}"
                raise InputError(f"{where}: unknown parameter {name!r}: {report} takes {takes}")
            checked[name] = parameters[name].check(value, where)
    return checked
