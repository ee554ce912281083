"""Problems with a config, and how they are told: what was given, what is allowed, what to do, all at once."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cse_bench.errors import ConfigError

_SECRET = re.compile(r"(api_?key|token|secret|passw)", re.IGNORECASE)


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
    """Translates pydantic's errors into one sentence each."""
    known = list(known)
    for item in error.errors(include_url=False):
        # `Component` members show up under their union or alias names; config keys are the strings and list positions.
        path = ".".join(str(part) for part in (at, *item["loc"]) if str(part))
        last = str(item["loc"][-1]) if item["loc"] else at
        if item["type"] == "extra_forbidden":
            siblings = known if len(item["loc"]) == 1 else []
            allowed = f"{nearest(last, siblings)}" or (f"; known keys: {', '.join(sorted(siblings))}" if siblings else "")
            yield Problem(path, f"unknown key{allowed}")
        elif item["type"] == "missing":
            yield Problem(path, "this key is required and was not given")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = "" if item["type"] == "value_error" and not item["loc"] else f", got {shown(path, item['input'])}"
            if isinstance(item["input"], dict):
                given = ""
            yield Problem(path, message[:1].lower() + message[1:] + given)


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
