"""Where the two towers of a method start: each from a run of its own, or from a saved encoder."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from cse_bench.config.schema import Component, Optimizer, RunConfig, Section


class Tower(Section):
    """One tower: a path, or a method with what its run changes in the config of the run that needs it.

    A string stands for its path.

    Attributes:
        path: of a run, a saved encoder or a sentence-transformers directory, or a Hub id.
        method: trains the tower.
        optimizer: of that run.
        seed_offset: added to the seed.
        global_batch_size: of that run; None: the same.
        gradient_clip_val: of that run, a norm; None: no clipping.
        dropout: of that run's backbone; None: as pretrained, whatever the dropout of the run that needs it.
    """

    path: str | None = None
    method: Component | None = None
    optimizer: Optimizer | None = None
    seed_offset: Annotated[int, Field(ge=0)] = 0
    global_batch_size: Annotated[int, Field(ge=1)] | None = None
    gradient_clip_val: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Tower":
        if self.path is None and (self.method is None or self.optimizer is None):
            raise ValueError("give a method and its optimizer, or the path of a saved encoder or a run")
        return self

    def run(self, config: RunConfig) -> RunConfig | None:
        """The run that trains the tower; None where it is given by its path."""
        if self.path is not None:
            return None
        changes: dict[str, Any] = {
            "method": self.method,
            "optimizer": self.optimizer,
            "seed": config.seed + self.seed_offset,
            "backbone": config.backbone.model_copy(update={"dropout": self.dropout}),
            "trainer": config.trainer.model_copy(update={"gradient_clip_val": self.gradient_clip_val}),
        }
        if self.global_batch_size is not None:
            changes["data"] = config.data.model_copy(update={"global_batch_size": self.global_batch_size})
        return config.model_copy(update=changes)

    def missing_folder(self) -> bool:
        """Whether the path can only be meant as a folder, and there is none."""
        return (
            self.path is not None
            and self.path.startswith(("/", "~", "."))
            and not Path(self.path).expanduser().is_dir()
        )


class Towers(Section):
    """Both of them."""

    first: Tower
    second: Tower

    def by_name(self) -> dict[str, Tower]:
        """`first` and `second`."""
        return {"first": self.first, "second": self.second}
