"""WhitenedCSE: contrastive learning behind a layer that whitens randomly drawn groups of features.

Zhuo, Sun, Wang, Zhu and Yang: "WhitenedCSE: Whitening-based Contrastive Learning of Sentence Embeddings", ACL 2023,
arXiv 2305.17746. Official code: github.com/SupstarZh/WhitenedCSE.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Unpack

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from cse_bench.config.messages import Problem, refuse
from cse_bench.config.schema import RunConfig
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.architecture import architecture_config
from cse_bench.losses.info_nce import info_nce
from cse_bench.losses.whitening import Engine, whiten_groups
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.dropout_views import dropout_problem
from cse_bench.methods.head import TrainingHead
from cse_bench.methods.method import Shared
from cse_bench.methods.preparation import Preparation
from cse_bench.training.gather import world_size


class WhitenedCSE(ContrastiveMethod):
    r"""SimCSE with several positives, each behind its own shuffled group whitening.

    .. math::
        z^v = \tanh(W\, \mathrm{SGW}_{\pi^v}(c^v) + b) \qquad
        L = \sum_{v=2}^{V} \lambda_v \cdot \mathrm{InfoNCE}(z^1, z^v)

    where c is the pooled vector under its own dropout mask, and SGW whitens groups of features that a permutation
    :math:`\pi^v`, new in every step and view, puts together (see `cse_bench.losses.whitening`). View 1 is the anchor of
    every term; the negatives of term v are the other sentences' view v. The sum is not divided by V - 1.

    Whitening and head are used in training only: the embedding is c itself.

    Paper and released code differ. In the code, views are cut from rows that lie sentence by sentence, so that the
    views of a sentence mostly share permutation and covariance; `stats_layout=official_chunks` does the same.
    A step that leaves fewer than 2 g rows for a covariance of g features (a small last batch) has the loss zero and
    gives no gradient; it is marked in the part `skipped`.

    Args:
        num_views: V, the anchor included.
        whiten: False: the same without whitening (with V = 2 that is SimCSE).
        num_groups: the largest divisor of the width up to this number is used.
        shuffle: `per_view`; `shared`: one permutation for all views of a step; `off`: neighbouring features.
        statistics: whose rows make up a covariance: `rank`, those of each device by itself, as in the paper; `global`,
            all rows of the step, so that several devices give what one gives.
        stats_layout: `view`, as in the paper, or `official_chunks`.
        engine: how the covariance is inverted, see `cse_bench.losses.whitening.whitening_matrix`.
        newton_iters: of the engine `newton`.
        detach_whitening: the whitening matrix is a constant in the backward, as in the released code.
        eps: ridge on the covariance, relative to the mean variance.
        pos_weights: :math:`\lambda_v`, one per positive.
        temperature: of InfoNCE.
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "official code"
    citation: ClassVar[str] = "Zhuo, Sun, Wang, Zhu and Yang, ACL 2023, arXiv 2305.17746"

    def __init__(
        self,
        *,
        num_views: Annotated[int, Field(ge=2)],
        whiten: bool,
        num_groups: Annotated[int, Field(ge=1)],
        shuffle: Literal["per_view", "shared", "off"],
        statistics: Literal["rank", "global"],
        stats_layout: Literal["view", "official_chunks"],
        engine: Engine,
        newton_iters: Annotated[int, Field(ge=1)],
        detach_whitening: bool,
        eps: Annotated[float, Field(ge=0)],
        pos_weights: list[Annotated[float, Field(ge=0)]],
        temperature: Annotated[float, Field(gt=0)],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.num_views = num_views
        self.whiten = whiten
        self.num_groups = resolved_groups(self.encoder.width, num_groups)
        self.shuffle = shuffle
        self.statistics = statistics
        self.stats_layout = stats_layout
        self.engine: Engine = engine
        self.newton_iters = newton_iters
        self.detach_whitening = detach_whitening
        self.eps = eps
        self.pos_weights = pos_weights
        self.temperature = temperature
        self.head = TrainingHead(self.encoder)
        if stats_layout == "view":
            self.notes["definition"] = "statistics and permutations per view: paper; the released code: official_chunks"
        if whiten:
            self.notes["whitening"] = {"groups": self.num_groups, "features_per_group": self.group_size}

    @property
    def group_size(self) -> int:
        """Features that are whitened together, g."""
        return self.encoder.width // self.num_groups

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """Dropout views need dropout, every positive a weight, and a covariance enough rows."""
        yield from dropout_problem(config)
        arguments = config.method.arguments()
        positives = arguments["num_views"] - 1
        if len(arguments["pos_weights"]) != positives:
            yield Problem(
                "method.pos_weights",
                f"has {len(arguments['pos_weights'])} weights, one per positive are {positives} "
                f"(method.num_views={arguments['num_views']} counts the anchor)",
            )
        # A model from the Hub without a registry entry: its width is not known yet, see `prepare`.
        if config.backbone.source == "local" or config.backbone.architecture is not None:
            yield from _batch_problem(config, width=int(architecture_config(config.backbone).hidden_size))

    def prepare(self, preparation: Preparation) -> dict[str, float]:
        """Refuses batches that are too small, now that the width is known for certain."""
        refuse(_batch_problem(preparation.config, width=self.encoder.width))
        return {}

    def negatives_per_anchor(self, global_batch_size: int) -> int:
        """The other sentences' views, in each of the terms."""
        return (self.num_views - 1) * (global_batch_size - 1)

    def views(self, batch: TokenRows) -> TokenRows:
        """Copies of every sentence; dropout makes them differ."""
        return batch.repeat(self.num_views)

    def represent(self, rows: TokenRows) -> Representations:
        """The pooled vectors, and which device they are from."""
        rank = dist.get_rank() if world_size() > 1 else 0
        return {"pooled": self.encoder(rows), "rank": torch.full((len(rows),), rank, device=rows.ids.device)}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """The weighted sum of one InfoNCE term per positive, and the terms."""
        pooled = representations["pooled"]
        sizes = self._block_sizes(representations["rank"])
        skipped = self.whiten and min(sizes) < 2 * self.group_size
        mark = {"skipped": pooled.new_tensor(float(skipped))} if self.whiten else {}
        if skipped:
            # Through the head: with several devices every parameter has to take part in every step.
            return {"loss": 0.0 * self.head(pooled).sum(), **mark}
        if self.whiten:
            pooled = torch.cat([self._whitened(block, n) for n, block in enumerate(pooled.split(sizes, dim=1))], dim=1)
        z = self.head(pooled)
        terms = [info_nce(z[0], positive, temperature=self.temperature) for positive in z[1:]]
        loss = torch.stack([weight * term for weight, term in zip(self.pos_weights, terms, strict=True)]).sum()
        return {"loss": loss, **{f"positive_{number}": term for number, term in enumerate(terms, start=1)}, **mark}

    def _block_sizes(self, rank: Tensor) -> list[int]:
        """Sentences whose rows share their statistics: blocks of the step, in its order, (v, b) -> sizes that sum to b.

        Gathered rows lie rank by rank. With one process there is one block, whatever the tensor holds (in a plan it
        holds nothing).
        """
        if self.statistics == "global" or world_size() == 1:
            return [rank.shape[1]]
        return [int(size) for size in rank[0].bincount(minlength=world_size())]

    def _whitened(self, block: Tensor, number: int) -> Tensor:
        """Shuffled group whitening of the views of a block, (v, b, d), each view with its own statistics."""
        parts = as_sentence_major_chunks(block) if self.stats_layout == "official_chunks" else block
        white = torch.stack(
            [
                whiten_groups(
                    part,
                    self._order(part, view, number),
                    num_groups=self.num_groups,
                    engine=self.engine,
                    newton_iters=self.newton_iters,
                    detach=self.detach_whitening,
                    eps=self.eps,
                )
                for view, part in enumerate(parts)
            ]
        )
        return from_sentence_major_chunks(white) if self.stats_layout == "official_chunks" else white

    def _order(self, part: Tensor, view: int, block: int) -> Tensor:
        """The features in the order in which they are grouped, (d,): known to every rank, drawn anew in each step."""
        width = part.shape[1]
        if self.shuffle == "off":
            return torch.arange(width, device=part.device)
        generator = self.generator(self.global_step, view if self.shuffle == "per_view" else 0, block)
        return torch.randperm(width, generator=generator).to(part.device)


def resolved_groups(width: int, num_groups: int) -> int:
    """The largest number of equal groups, up to `num_groups`, that `width` features can be cut into."""
    return next(groups for groups in range(min(num_groups, width), 0, -1) if width % groups == 0)


def as_sentence_major_chunks(views: Tensor) -> Tensor:
    """Rows in the order sentence 1 view 1, sentence 1 view 2, ..., cut into v chunks of b: (v, b, d) -> (v, b, d)."""
    return views.transpose(0, 1).reshape(views.shape)


def from_sentence_major_chunks(chunks: Tensor) -> Tensor:
    """The inverse of `as_sentence_major_chunks`."""
    num_views, sentences, width = chunks.shape
    return chunks.reshape(sentences, num_views, width).transpose(0, 1)


def _batch_problem(config: RunConfig, *, width: int) -> Iterator[Problem]:
    """Fewer than 2 g rows make no covariance of g features that is worth inverting."""
    arguments = config.method.arguments()
    if not arguments["whiten"]:
        return
    devices = 1
    if arguments["statistics"] == "rank":
        trainer = config.trainer.arguments()
        counts = (trainer.get("devices", 1), trainer.get("num_nodes", 1))
        devices = counts[0] * counts[1] if all(isinstance(count, int) and count > 0 for count in counts) else 1
    rows = config.data.global_batch_size // devices
    group_size = width // resolved_groups(width, arguments["num_groups"])
    if group_size <= rows // 2:
        return
    enough = [groups for groups in range(1, width + 1) if width % groups == 0 and width // groups <= rows // 2]
    advice = f"set method.num_groups={enough[0]}" if enough else "raise data.global_batch_size"
    yield Problem(
        "method.num_groups",
        f"groups of {group_size} of the {width} features are whitened with {rows} sentences"
        f"{f' on each of {devices} devices' if devices > 1 else ''}, and need {2 * group_size}; {advice}",
    )
