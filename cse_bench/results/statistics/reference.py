"""What a table of comparisons compares with."""

from collections import Counter
from collections.abc import Sequence

from cse_bench.config.messages import nearest
from cse_bench.errors import ConfigError
from cse_bench.results.collect import Block, Group


def find_group(block: Block, name: str) -> Group:
    """The group of a block with a label, or the only one of a method.

    Args:
        block: where to look.
        name: label or method.

    Raises:
        ConfigError: none has it, or several groups are of that method.
    """
    labels = [group.label for group in block.groups]
    found = [group for group in block.groups if group.label == name]
    found = found or [group for group in block.groups if group.method == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"against: '{name}' is the method of {len(found)} groups; give the label of one: "
            f"{', '.join(repr(group.label) for group in found)}"
        )
    allowed = list(dict.fromkeys([*labels, *(group.method for group in block.groups)]))
    raise ConfigError(f"against: no group '{name}'{nearest(name, allowed)} (there are: {', '.join(allowed)})")


def default_reference(groups: Sequence[Group]) -> Group | None:
    """The backbone as it is, which everything has to beat; without one, the group with the most runs.

    Of several, the one that is read with the pooling that most other groups have.

    Args:
        groups: with a score, in the order of their block.
    """
    poolings = Counter(_pooling(group) for group in groups if not group.is_backbone)
    backbones = [group for group in groups if group.is_backbone]
    if backbones:
        return max(backbones, key=lambda group: poolings[_pooling(group)])
    return max(groups, key=lambda group: len(group.runs), default=None)


def _pooling(group: Group) -> str | None:
    return group.runs[0].results.get("pooling")
