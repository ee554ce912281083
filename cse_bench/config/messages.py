"""Problems with a config, and how they are told: what was given, what is allowed, what to do, all at once."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cse_bench.errors import ConfigError

_SECRET = re.compile(r"(api_?key|token|secret|passw)", re.IGNORECASE)
_TYPE_NAME = re.compile(r"^(str|int|float|bool|list\[.*|tuple\[.*|constrained-.*|function-.*|literal\[.*)$")
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_TYPES = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "string_type": "text",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the config key and the sentence that says what to do."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or an empty string."""
    matches = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def shown(key: str, value: Any) -> str:
    """A value for a message; never the value of something that looks like a secret."""
    return "<hidden>" if _SECRET.search(key) else repr(value)


def problems_of(error: ValidationError, *, at: str, known: Iterable[str] = ()) -> Iterator[Problem]:
    """Translates pydantic's errors into one sentence each: what is allowed, and what was given.

    Args:
        error: of a model's validation.
        at: config path of the model.
        known: its field names, to guess from.
    """
    names = list(known)
    for item in error.errors(include_url=False):
        # Where a value may have one of several types, pydantic tries each and names it in the path: that is no config
        # key.
        location = [str(part) for part in item["loc"] if not _TYPE_NAME.search(str(part))]
        path = ".".join(part for part in (at, *location) if part)
        if item["type"] == "extra_forbidden":
            yield Problem(path, f"unknown key{_instead(location, names)}")
        elif item["type"] == "missing":
            yield Problem(path, "this key is required and was not given")
        else:
            given = "" if isinstance(item["input"], dict) else f", got {shown(path, item['input'])}"
            yield Problem(path, _allowed(item) + given)


def _instead(location: list[str], names: list[str]) -> str:
    siblings = names if len(location) == 1 else []
    if hint := nearest(location[-1], siblings):
        return hint
    return f"; known keys: {', '.join(sorted(siblings))}" if siblings else ""


def _allowed(item: Any) -> str:
    """What a value must be, in words that do not presuppose pydantic."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in _BOUNDS:
        sign, key = _BOUNDS[kind]
        return f"must be {sign} {context[key]}"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def refuse(problems: Iterable[Problem]) -> None:
    """Raises one ConfigError with every problem, or returns when there is none.

    Raises:
        ConfigError: with a line for each distinct problem.
    """
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    if len(lines) == 1:
        raise ConfigError(lines[0])
    if lines:
        raise ConfigError(f"{len(lines)} problems in the config:\n" + "\n".join(f"  - {line}" for line in lines))
