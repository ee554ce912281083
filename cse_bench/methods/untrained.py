"""The backbone as it is: the row that every method has to beat."""

from typing import ClassVar

from cse_bench.methods.training_free import TrainingFree


class Untrained(TrainingFree):
    """No training, the same evaluation."""

    status: ClassVar[str] = "baseline"
    citation: ClassVar[str] = "none: the pretrained backbone"
    is_backbone: ClassVar[bool] = True
