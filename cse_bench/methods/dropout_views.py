"""What methods with dropout views ask of a backbone."""

from collections.abc import Iterator

from cse_bench.config.messages import Problem
from cse_bench.config.schema import RunConfig
from cse_bench.encoders.architecture import architecture_config, dropout_probabilities, set_dropout


def dropout_problem(config: RunConfig) -> Iterator[Problem]:
    """Views that differ by their dropout masks need dropout somewhere; told from the architecture alone."""
    backbone = config.backbone
    if backbone.adapter is not None and backbone.adapter.dropout > 0:
        return
    if backbone.source != "local" and backbone.architecture is None:
        return  # not known before the download; the first training step checks the views themselves
    model = architecture_config(backbone)
    set_dropout(model, backbone.dropout)
    probabilities = dropout_probabilities(model)
    if not any(probabilities.values()):
        yield Problem(
            "backbone.dropout",
            f"the two views of a sentence would be identical: {backbone.name} has no dropout "
            f"({', '.join(f'{key}={value:g}' for key, value in probabilities.items()) or 'none in its config'}); "
            "set backbone.dropout=0.1, or an adapter with dropout",
        )
