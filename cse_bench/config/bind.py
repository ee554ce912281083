"""Binding components to signatures: the arguments of every `_target_` are checked before anything is built.

The schema of a component is the signature of its class: names, types and bounds (`Annotated[float, Field(gt=0)]`). A
new method or task therefore needs no entry in any list. Arguments that the framework supplies itself (the encoder, say)
are left out.
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Unpack, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from cse_bench.config.messages import Problem, nearest, problems_of
from cse_bench.config.schema import Component
from cse_bench.errors import ConfigError


def locate(target: str) -> Any:
    """The object at a dotted path, e.g. `cse_bench.methods.simcse.SimCSE`.

    Raises:
        ConfigError: the module or the name in it does not exist.
    """
    module_name, _, attribute = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"'{target}' is not a dotted path; write package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"'{target}': there is no module '{error.name}'") from error
    if not hasattr(module, attribute):
        candidates = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(f"'{target}': {module_name} has no '{attribute}'{nearest(attribute, candidates)}")
    return getattr(module, attribute)


@cache  # a sweep binds the same few classes once a job
def signature_model(target: Any, *, supplied: frozenset[str]) -> type[BaseModel]:
    """A pydantic model with the fields of `target`'s signature, less those the framework supplies."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(target).parameters.values():
        if parameter.name in supplied or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    # `**shared: Unpack[...]` names what the framework supplies; any other `**options` takes what it is given.
    open_ended = any(
        p.kind is p.VAR_KEYWORD and get_origin(hints.get(p.name)) is not Unpack
        for p in inspect.signature(target).parameters.values()
    )
    config = ConfigDict(
        extra="allow" if open_ended else "forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )
    return create_model(f"{getattr(target, '__name__', target)}Arguments", __config__=config, **fields)


def bind(component: Component, *, at: str, supplied: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """Yields what is wrong with the arguments of a component.

    Args:
        component: the `_target_` and its arguments.
        at: config path of the component, e.g. `method`, for the messages.
        supplied: arguments that the framework passes itself and a config may not set.
    """
    try:
        target = locate(component.target)
    except ConfigError as error:
        yield Problem(f"{at}._target_", str(error))
        return
    yield from argument_problems(target, component.arguments(), at=at, supplied=supplied)


def argument_problems(
    target: Any, arguments: Mapping[str, Any], *, at: str, supplied: frozenset[str]
) -> Iterator[Problem]:
    """As `bind`, for what is located already."""
    model = signature_model(target, supplied=supplied)
    try:
        model.model_validate(arguments)
    except ValidationError as error:
        yield from problems_of(error, at=at, known=list(model.model_fields))


def build(component: Component, **supplied: Any) -> Any:
    """Calls the component's `_target_` with its arguments and the supplied ones."""
    return locate(component.target)(**component.arguments(), **supplied)
