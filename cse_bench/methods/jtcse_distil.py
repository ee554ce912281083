"""JTCSE-D: one encoder that predicts the sum of a teacher's towers.

Zong, Yi, Shi, Wang and Xu: "JTCSE: Joint Tensor-Modulus Constraints and Cross-Attention for Unsupervised Contrastive
Learning of Sentence Embeddings", arXiv 2505.02366. Their distillation script was not published. What stands here is our
reading of "predict the ensemble output through a contrastive objective" (Zong and Zhang, AAAI 2023, EDFSE).
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor

from cse_bench.config.bind import build, locate
from cse_bench.config.messages import Problem
from cse_bench.config.nested import nested_problems
from cse_bench.config.schema import Component, Optimizer, RunConfig
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import Encoder, SentenceEncoder
from cse_bench.encoders.loading import open_encoder
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.transfer import take_weights
from cse_bench.errors import EncoderError
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.method import Shared
from cse_bench.methods.preparation import Preparation


class JTCSEDistil(ContrastiveMethod):
    r"""A student, with dropout, finds the teacher's vector of its sentence among those of the batch.

    .. math::
        \ell_i = -\log \frac{e^{\cos(s_i, t_i) / \tau}}{\sum_{j=1}^{b} e^{\cos(s_i, t_j) / \tau}}

    with s the student's pooled vector and t the teacher's sentence vector: the sum of its towers, frozen and without
    dropout. One view per sentence. At inference the teacher is gone: one encoder, one forward.

    Args:
        temperature: :math:`\tau`.
        teacher: a method that trains it on the same corpus and backbone, or the path of a saved encoder or a run.
        teacher_optimizer: of the teacher's run.
        student: starts as the teacher's first tower (`tower_1`) or as the `backbone`.
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "own reading"
    citation: ClassVar[str] = "Zong, Yi, Shi, Wang and Xu, 2025, arXiv 2505.02366"
    not_kept: ClassVar[tuple[str, ...]] = ("teacher.",)

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)],
        teacher: Component | str,
        teacher_optimizer: Optimizer,
        student: Literal["tower_1", "backbone"],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.temperature = temperature
        self.student_start = student
        self.teacher_path = teacher if isinstance(teacher, str) else None
        # Of the shape that it will have, so that a plan is right about memory; `prepare` brings the trained one.
        self.teacher = _frozen(_before_training(_teacher(teacher), self.encoder, shared))

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """A teacher that can be had, and a student whose weights can be copied."""
        adapter = config.backbone.adapter
        if adapter is not None and adapter.type == "qlora":
            yield Problem("backbone.adapter", "four-bit weights cannot be copied to the student; use adapter=lora")
        teacher = _teacher(config.method.arguments()["teacher"])
        if isinstance(teacher, Component):
            yield from nested_problems(_teacher_run(config, teacher), at="method.teacher")
        elif not Path(teacher).expanduser().is_dir():
            yield Problem(
                "method.teacher",
                f"there is no folder '{teacher}'; give that of a run or a saved encoder, or a method: "
                "method@method.teacher=NAME",
            )

    @classmethod
    def prerequisites(cls, config: RunConfig) -> dict[str, RunConfig]:
        """The teacher's run, unless it is given by its path or is the backbone."""
        teacher = _teacher(config.method.arguments()["teacher"])
        if isinstance(teacher, str) or locate(teacher.target).is_backbone:
            return {}
        return {"teacher": _teacher_run(config, teacher)}

    @classmethod
    def encoders_by_path(cls, config: RunConfig) -> dict[str, str]:
        """The teacher, where it is no run of ours."""
        teacher = _teacher(config.method.arguments()["teacher"])
        return {"method.teacher": teacher} if isinstance(teacher, str) else {}

    def prepare(self, preparation: Preparation) -> dict[str, float]:
        """Loads the teacher, and from it the student.

        Raises:
            EncoderError: a teacher that reads other tokens, or has no tower like the student.
        """
        path = preparation.prerequisites.get("teacher", self.teacher_path)
        if path is not None:
            teacher = open_encoder(str(path), attention=preparation.config.backbone.attention)
            if teacher.tokenizer.fingerprint() != self.encoder.tokenizer.fingerprint():
                raise EncoderError(f"the teacher '{path}' has another tokenizer or prompt than the student's backbone")
            if teacher.width != self.encoder.width:
                raise EncoderError(
                    f"the teacher '{path}' gives vectors of {teacher.width} numbers, the student of "
                    f"{self.encoder.width}; choose a backbone of the same width"
                )
            self.teacher = _frozen(teacher)
        if self.student_start == "tower_1":
            first = self.teacher.towers[0] if isinstance(self.teacher, SummedEncoders) else self.teacher
            assert isinstance(first, SentenceEncoder)
            take_weights(self.encoder, first, origin="the teacher's first tower")
        self.notes["teacher"] = self.teacher.provenance
        return {}

    def train(self, mode: bool = True) -> "JTCSEDistil":  # noqa: FBT001, FBT002 (PyTorch's signature)
        """The teacher never drops anything out."""
        super().train(mode)
        self.teacher.eval()
        return self

    def frozen_state(self) -> set[str]:
        """The teacher, too, is read again and not kept in checkpoints."""
        return super().frozen_state() | {f"teacher.{name}" for name in self.teacher.state_dict()}

    def views(self, batch: TokenRows) -> TokenRows:
        """The sentences themselves."""
        return batch

    def represent(self, rows: TokenRows) -> Representations:
        """The student's vectors and the teacher's."""
        with torch.no_grad():
            taught = self.teacher(rows)
        return {"student": self.encoder(rows), "teacher": taught}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """InfoNCE of the student's vectors against the teacher's."""
        student, teacher = representations["student"][0], representations["teacher"][0]
        return {"loss": info_nce(student, teacher, temperature=self.temperature)}


def _teacher(given: Any) -> Component | str:
    return given if isinstance(given, str) else Component.model_validate(given)


def _teacher_run(config: RunConfig, teacher: Component) -> RunConfig:
    optimizer = Optimizer.model_validate(config.method.arguments()["teacher_optimizer"])
    return config.model_copy(update={"method": teacher, "optimizer": optimizer})


def _before_training(teacher: Component | str, encoder: Encoder, shared: Any) -> SentenceEncoder:
    """The teacher's encoder before its training; of a path, which is not opened yet, a single one."""
    copied = copy.deepcopy(encoder, {id(encoder.tokenizer): encoder.tokenizer})
    if isinstance(teacher, str):
        return copied
    made: ContrastiveMethod = build(teacher, **(shared | {"encoder": copied}))
    return made.sentence_encoder


def _frozen(encoder: SentenceEncoder) -> SentenceEncoder:
    return encoder.requires_grad_(requires_grad=False).eval()
