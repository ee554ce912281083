"""A run that another run needs first: what is wrong with it is told before either starts."""

from collections.abc import Iterator

from cse_bench.config.bind import bind, locate
from cse_bench.config.messages import Problem
from cse_bench.config.schema import RunConfig


def nested_problems(config: RunConfig, *, at: str) -> Iterator[Problem]:
    """What is wrong with the method of a prerequisite, by itself and with the rest of its config.

    Args:
        config: of the prerequisite.
        at: config path, in the run that needs it, of the prerequisite's method.
    """
    unbound = list(bind(config.method, at=at))
    yield from unbound
    if not unbound:
        for problem in locate(config.method.target).problems(config):
            key = problem.key.removeprefix("method.")
            yield problem if key == problem.key else Problem(f"{at}.{key}", problem.message)
