"""DebCSE, as read here: the paper's body and code were not to be had.

Miao, Du and Zhang: "DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing
Perspective", CIKM 2023, arXiv 2309.07396. Its abstract says that positives and negatives are sampled with inverse
propensity weights from surface and semantic similarity. How is our decision, and so is every number.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cse_bench.config.bind import locate
from cse_bench.config.messages import Problem
from cse_bench.config.nested import nested_problems
from cse_bench.config.schema import Component, RunConfig
from cse_bench.data.rows import TokenRows, stacked
from cse_bench.data.token_store import TokenStore
from cse_bench.encoders.encoder import SentenceEncoder, build_encoder
from cse_bench.encoders.loading import open_encoder
from cse_bench.errors import TrainingError
from cse_bench.losses.masked_info_nce import masked_info_nce
from cse_bench.losses.row_blocks import row_blocks
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.dropout_views import dropout_problem
from cse_bench.methods.head import TrainingHead
from cse_bench.methods.method import Shared
from cse_bench.methods.preparation import Preparation
from cse_bench.mining.calibration import summary
from cse_bench.mining.method import MinesPairs
from cse_bench.mining.pairs import Pairs, mine_pairs
from cse_bench.mining.propensity import Propensity
from cse_bench.mining.sampling import draw_negatives, draw_positives
from cse_bench.mining.settings import MiningSettings
from cse_bench.mining.teacher import Teacher
from cse_bench.training.precision import device_type


class DebCSE(ContrastiveMethod, MinesPairs):
    r"""SimCSE with mined pairs: every epoch draws another positive and hard negatives for every sentence.

    .. math::
        \ell_i = -\log \frac{e^{\cos(z_i, z_i^+) / \tau}}
            {\sum_j m_{ij} e^{\cos(z_i, z_j^+) / \tau}
             + \sum_j \sum_q n_{ijq} e^{\cos(z_i, z^-_{jq}) / \tau + \beta [i = j]}}

    Before training a frozen teacher embeds the corpus, and every sentence is given candidates near in meaning, alike in
    wording and at random (`cse_bench.mining`). Positives are drawn among those the teacher calls the same, the less
    alike in wording the likelier; hard negatives among those it calls different, the more alike the likelier
    (`Propensity`). In the batch, what the teacher calls the same as the anchor is left out (m, n): by the teacher and
    not by the model in training, which would learn to leave out everything.

    Two passes over the same sentence remain possible positives: a sentence without any other has these.

    Args:
        temperature: :math:`\tau`.
        head: as in SimCSE: `train_only` or `none`.
        teacher: a method that trains it on the same corpus and backbone, or the path of a saved encoder or a run.
        positives: `mined`, or `self`: dropout views only, an ablation.
        hard_negatives: Q, hard negatives of an anchor; 0: an ablation.
        own_negative_log_weight: :math:`\beta`.
        mask_false_negatives: leave out what the teacher calls the same; false: an ablation.
        positive_threshold: teacher cosine from which a candidate is the same.
        negative_threshold: teacher cosine up to which it is something else.
        relevance_temperature: how fast the worth of a positive falls with its cosine.
        gamma: strength of the propensity correction; 0: an ablation.
        epsilon: bounds the correction by 1 / epsilon.
        semantic_filter: false: the teacher proposes candidates and judges none, an ablation.
        mining: the candidates, see `MiningSettings`.
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "own reading"
    citation: ClassVar[str] = "Miao, Du and Zhang, CIKM 2023, arXiv 2309.07396 (abstract only; the rest is ours)"

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)],
        head: Literal["train_only", "none"],
        teacher: Component | str,
        positives: Literal["mined", "self"],
        hard_negatives: Annotated[int, Field(ge=0)],
        own_negative_log_weight: float,
        mask_false_negatives: bool,
        positive_threshold: Annotated[float, Field(ge=-1, le=1)],
        negative_threshold: Annotated[float, Field(ge=-1, le=1)],
        relevance_temperature: Annotated[float, Field(gt=0)],
        gamma: Annotated[float, Field(ge=0)],
        epsilon: Annotated[float, Field(gt=0, le=1)],
        semantic_filter: bool,
        mining: MiningSettings,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.temperature = temperature
        self.head = TrainingHead(self.encoder) if head == "train_only" else nn.Identity()
        self.teacher = teacher
        self.positives = positives
        self.hard_negatives = hard_negatives
        self.own_negative_log_weight = own_negative_log_weight
        self.mask_false_negatives = mask_false_negatives
        self.propensity = Propensity(
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            temperature=relevance_temperature,
            gamma=gamma,
            epsilon=epsilon,
            semantic_filter=semantic_filter,
        )
        self.mining = MiningSettings.model_validate(mining)
        self.store: TokenStore | None = None

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """Dropout for sentences that are their own positive; thresholds in order; a teacher that can be had."""
        yield from dropout_problem(config)
        given = config.method.arguments()
        if given["semantic_filter"] and given["negative_threshold"] >= given["positive_threshold"]:
            yield Problem(
                "method.negative_threshold",
                f"must be less than method.positive_threshold={given['positive_threshold']}, got "
                f"{given['negative_threshold']}: a sentence would be positive and negative at once",
            )
        columns = MiningSettings.model_validate(given["mining"]).columns
        if given["hard_negatives"] > columns:
            yield Problem(
                "method.hard_negatives",
                f"at most as many as there are candidates (semantic + lexical + uniform = {columns}), got "
                f"{given['hard_negatives']}",
            )
        if _needs_pairs(given):
            yield from _teacher_problems(config, _teacher(given["teacher"]))

    @classmethod
    def prerequisites(cls, config: RunConfig) -> dict[str, RunConfig]:
        """The teacher's run, unless it is given by its path or is the backbone. All but the method is this run's."""
        given = config.method.arguments()
        teacher = _teacher(given["teacher"])
        if isinstance(teacher, str) or not _needs_pairs(given) or locate(teacher.target).is_backbone:
            return {}
        return {"teacher": config.model_copy(update={"method": teacher})}

    @classmethod
    def encoders_by_path(cls, config: RunConfig) -> dict[str, str]:
        """The teacher, where it is no run of ours."""
        teacher = _teacher(config.method.arguments()["teacher"])
        return {"method.teacher": teacher} if isinstance(teacher, str) else {}

    def mine(self, preparation: Preparation) -> Pairs | None:
        """The pairs, mined or found; None where the settings use none."""
        if self.positives == "self" and not self.hard_negatives and not self.mask_false_negatives:
            return None
        config = preparation.config
        teacher = Teacher(
            self._teacher_encoder(preparation),
            max_length=config.data.max_length,
            batch_tokens=config.evaluation.batch_tokens,
            device=device_type(config.trainer.arguments().get("accelerator", "auto")),
        )
        self.store = preparation.store
        self.pairs = mine_pairs(
            preparation.corpus, teacher, self.mining, sentences=len(self.store), cache=preparation.cache
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what was searched is not needed in training
        return self.pairs

    def prepare(self, preparation: Preparation) -> dict[str, float]:
        """Mines the pairs or finds them; the time is that of the mining either way.

        Raises:
            TrainingError: the teacher calls most sentences the same as most others; there is nothing to learn from.
        """
        pairs = self.mine(preparation)
        if pairs is None:
            return {}
        metrics, self.notes["mining"] = summary(pairs, self.propensity)
        quantiles = pairs.manifest["calibration"]["random pairs"]
        if self.mask_false_negatives and quantiles["0.5"] > self.propensity.positive_threshold:
            raise TrainingError(
                f"method.positive_threshold={self.propensity.positive_threshold:g} calls most random pairs of "
                f"sentences the same, and they would all be left out of the loss: their median cosine is "
                f"{quantiles['0.5']:.3f}, the 99.9 % quantile {quantiles['0.999']:.3f}. Raise both thresholds; "
                "python -m cse_bench.mine with the same overrides shows where to"
            )
        return {"cost/preparation_time_s": pairs.manifest["time_s"], **metrics}

    def _teacher_encoder(self, preparation: Preparation) -> SentenceEncoder:
        path = preparation.prerequisites.get("teacher")
        if isinstance(self.teacher, str) or path is not None:
            return open_encoder(str(path or self.teacher), attention=preparation.config.backbone.attention)
        # Random weights are drawn as those of the run are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(preparation.config.seed)
            return build_encoder(preparation.config.backbone)

    def negatives_per_anchor(self, global_batch_size: int) -> int:
        """The other positives and all hard negatives; less what is left out."""
        return global_batch_size - 1 + self.hard_negatives * global_batch_size

    def views(self, batch: TokenRows) -> TokenRows:
        """The sentence, its positive and its hard negatives of this epoch: other sentences, of other lengths.

        A hard negative that there is none of is marked by the sentence number -1 and left out of the loss.
        """
        if self.store is None or self.pairs is None:
            return batch.repeat(2 + self.hard_negatives)
        anchors, key = batch.sentence.numpy(), {"seed": self.seed, "epoch": batch.epoch}
        views = [batch]
        if self.positives == "self":
            views.append(batch)
        else:
            views.append(self.store.rows(draw_positives(self.pairs, anchors, self.propensity, **key)))
        if self.hard_negatives:
            drawn = draw_negatives(self.pairs, anchors, self.propensity, count=self.hard_negatives, **key)
            for column in drawn.T:
                rows = self.store.rows(column.clip(min=0))
                views.append(replace(rows, sentence=torch.from_numpy(column.copy())))
        return stacked([replace(view.to(batch.ids.device), epoch=batch.epoch) for view in views])

    def represent(self, rows: TokenRows) -> Representations:
        """Training vectors, teacher vectors and sentence numbers."""
        z = self.head(self.encoder(rows))
        found: Representations = {"z": z, "sentence": _numbers(rows.sentence, rows.ids)}
        if self.mask_false_negatives:
            if self.pairs is None:
                found["teacher"] = torch.zeros_like(z)
            else:
                vectors = self.pairs.vectors[rows.sentence.clamp(min=0).numpy()]
                found["teacher"] = torch.from_numpy(vectors).to(z.device).float()
        return found

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """The masked loss; shares of positives that are other sentences, and of logits left out."""
        z, sentence = representations["z"], representations["sentence"]
        size, count = sentence.shape[1], sentence.shape[0] - 2
        teacher = representations.get("teacher")

        def left_out(rows: slice) -> Tensor:
            return self._left_out(sentence, teacher, rows)

        candidates = size * (1 + count)
        hidden = torch.stack([left_out(rows).sum() for rows in row_blocks(size, columns=candidates)]).sum()
        loss = masked_info_nce(
            z[0],
            z[1],
            z[2:].transpose(0, 1),
            temperature=self.temperature,
            left_out=left_out,
            own_negative_log_weight=self.own_negative_log_weight,
        )
        return {
            "loss": loss,
            "positives_not_self": (sentence[1] != sentence[0]).float().mean(),
            "left_out": hidden.float() / max(1, size * candidates - size),
        }

    def _left_out(self, sentence: Tensor, teacher: Tensor | None, rows: slice) -> Tensor:
        """Which candidates these anchors do not see, (rows, b + b * Q): positives, then the hard negatives of all.

        Those that do not exist; and, if asked, those the teacher calls the same and those that are the same sentence as
        the anchor or its positive. An anchor's own hard negatives were chosen by the teacher already.
        """
        size, count = sentence.shape[1], sentence.shape[0] - 2
        candidates = torch.cat([sentence[1], sentence[2:].T.flatten()])
        numbers = torch.arange(size, device=sentence.device)
        own = numbers[rows].unsqueeze(1) == numbers
        left_out = (candidates < 0).expand(len(own), -1)
        if teacher is not None:
            vectors = functional.normalize(torch.cat([teacher[1], teacher[2:].transpose(0, 1).flatten(0, 1)]), dim=-1)
            same = functional.normalize(teacher[0, rows], dim=-1) @ vectors.T > self.propensity.positive_threshold
            same = same & ~torch.cat([own, own.repeat_interleave(count, dim=1)], dim=1)
            anchors, positives = sentence[0, rows], sentence[1, rows]
            identical = (anchors.unsqueeze(1) == candidates) | (positives.unsqueeze(1) == candidates)
            left_out = left_out | same | identical
        return left_out & ~torch.cat([own, torch.zeros_like(own).repeat_interleave(count, dim=1)], dim=1)


def _numbers(sentence: Tensor, ids: Tensor) -> Tensor:
    """Sentence numbers beside the token ids; in a plan, where the ids have no content, made so too."""
    return ids.new_tensor(sentence.tolist())


def _needs_pairs(given: dict[str, Any]) -> bool:
    return given["positives"] == "mined" or given["hard_negatives"] > 0 or given["mask_false_negatives"]


def _teacher(given: Any) -> Component | str:
    return given if isinstance(given, str) else Component.model_validate(given)


def _teacher_problems(config: RunConfig, teacher: Component | str) -> Iterator[Problem]:
    if isinstance(teacher, str):
        if not Path(teacher).expanduser().is_dir():
            yield Problem(
                "method.teacher",
                f"there is no folder '{teacher}'; give that of a run or a saved encoder, or a method: "
                "method@method.teacher=NAME",
            )
        return
    yield from nested_problems(config.model_copy(update={"method": teacher}), at="method.teacher")
