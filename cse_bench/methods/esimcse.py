"""ESimCSE: word repetition and a momentum queue.

Wu, Gao, Zang, Han, Wang and Hu: "ESimCSE: Enhanced Sample Building Method for Contrastive Learning of Unsupervised
Sentence Embedding", COLING 2022, arXiv 2109.04380. Official code: github.com/caskcsg/sentemb, folder ESimCSE.
"""

import copy
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from cse_bench.config.messages import Problem
from cse_bench.config.schema import RunConfig
from cse_bench.data.repetition import most_repetitions, with_repetitions
from cse_bench.data.rows import TokenRows, stacked
from cse_bench.encoders.architecture import architecture_config, max_positions
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.weights import random_body
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.base import ContrastiveMethod, Representations, at_least_float32
from cse_bench.methods.dropout_views import dropout_problem
from cse_bench.methods.head import TrainingHead
from cse_bench.methods.method import Shared
from cse_bench.training.gather import gather


class ESimCSE(ContrastiveMethod):
    r"""SimCSE with two changes: the second view says some tokens twice, and a queue adds negatives.

    .. math::
        \ell_i = -\log \frac{e^{\cos(z_i^1, z_i^2) / \tau}}
            {\sum_{j=1}^{b} e^{\cos(z_i^1, z_j^2) / \tau} + \sum_{k=1}^{m} e^{\cos(z_i^1, q_k) / \tau}}

    (equation 6 of the paper). The queue holds the last M vectors q = g(f_m(x)) of earlier batches: x the sentence as it
    stands, f_m the momentum encoder without dropout, g the head of the online model. Only first views query it.

    One step, in the order of the official code:

    1. both views through the online encoder;
    2. f_m <- lambda f_m + (1 - lambda) f, before the optimiser moves f;
    3. the loss, with the queue as the previous step left it;
    4. the vectors of this batch enter the queue, the oldest leave it. The very first batch enters whole.

    The queue is empty at first and simply shorter until it is full. Over several ranks it is global: every rank holds
    the vectors of all, as one process with the joined batch would (the official code keeps one per rank).

    Args:
        temperature: :math:`\tau`.
        repetition_rate: r, how much is repeated; 0: nothing.
        repetition_rule: `official`: the number of repeated tokens is uniform on 0 .. min(10, int(r n)) - 1, with n all
            tokens of the row, as in the code that made the published numbers. `paper`: uniform on
            0 .. max(2, int(r N)), with N = n - 2, the row without its ends (section 3.1).
        repetition_redraw: `run`: a sentence keeps its repetitions, as in the official code, which draws them when it
            tokenises; `epoch`: they are drawn anew in every epoch.
        queue_size: M; 0: neither queue nor momentum encoder.
        momentum: :math:`\lambda`; 0: the queue is filled by the online encoder itself.
        momentum_init: `copy`: f_m starts as the pretrained f, the scheme of the paper. `random`: from random weights,
            as in the released runs of the official code, whose logs list all momentum weights as newly initialised.
        head: `train_only` or `none`.
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "official code"
    citation: ClassVar[str] = "Wu et al., COLING 2022, arXiv 2109.04380"
    not_kept: ClassVar[tuple[str, ...]] = ("momentum_encoder.", "queue.")

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)],
        repetition_rate: Annotated[float, Field(ge=0, lt=1)],
        repetition_rule: Literal["official", "paper"],
        repetition_redraw: Literal["run", "epoch"],
        queue_size: Annotated[int, Field(ge=0)],
        momentum: Annotated[float, Field(ge=0, lt=1)],
        momentum_init: Literal["copy", "random"],
        head: Literal["train_only", "none"],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.temperature = temperature
        self.repetition_rate = repetition_rate
        self.repetition_rule = repetition_rule
        self.repetition_redraw = repetition_redraw
        self.momentum = momentum
        self.head = TrainingHead(self.encoder) if head == "train_only" else nn.Identity()
        self.queue = NegativeQueue(queue_size, width=self.encoder.width)
        # After the pretrained weights were loaded: a copy made before would be overwritten, as it was in 2022.
        self.momentum_encoder = _momentum_copy(self.encoder, momentum_init) if queue_size else None

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """Dropout where nothing else makes views differ; room for the repeated tokens; no prompt, no random adapter."""
        arguments = config.method.arguments()
        rate, rule = arguments.get("repetition_rate", 0), arguments.get("repetition_rule", "official")
        if rate == 0:
            yield from dropout_problem(config)
        elif config.backbone.prompt is not None:
            yield Problem(
                "method.repetition_rate", "would repeat words of the prompt too; set it to 0, or backbone.prompt=null"
            )
        if config.backbone.architecture is not None or config.backbone.source == "local":
            limit = max_positions(architecture_config(config.backbone))
            longest = config.data.max_length + most_repetitions(config.data.max_length, rate=rate, rule=rule)
            if longest > limit:
                yield Problem(
                    "data.max_length",
                    f"with repeated tokens a row has up to {longest}, and {config.backbone.name} takes {limit}; set at "
                    f"most {config.data.max_length - (longest - limit)}",
                )
        is_half = config.backbone.dtype in ("bfloat16", "float16") and config.backbone.adapter is None
        if is_half and arguments.get("queue_size"):
            yield Problem(
                "backbone.dtype",
                f"{config.backbone.dtype}: the small steps of the momentum encoder would round to nothing; set float32",
            )
        if arguments.get("momentum_init") == "random" and config.backbone.adapter is not None:
            yield Problem(
                "method.momentum_init", "random weights beneath an adapter train nothing; set momentum_init=copy"
            )

    def train(self, mode: bool = True) -> "ESimCSE":  # noqa: FBT001, FBT002 (PyTorch's signature)
        """The momentum encoder never drops anything out."""
        super().train(mode)
        if self.momentum_encoder is not None:
            self.momentum_encoder.eval()
        return self

    def negatives_per_anchor(self, global_batch_size: int) -> int:
        """The rest of the batch and the queue."""
        return super().negatives_per_anchor(global_batch_size) + self.queue.size

    def views(self, batch: TokenRows) -> TokenRows:
        """The sentence, and the sentence with repetitions."""
        epoch = (batch.epoch,) if self.repetition_redraw == "epoch" else ()
        key = (self.seed, *epoch)
        repeated = with_repetitions(batch, rate=self.repetition_rate, rule=self.repetition_rule, key=key)
        return stacked([batch, repeated])

    def represent(self, rows: TokenRows) -> Representations:
        """The training vectors: z = head(pooled vector)."""
        return {"z": self.head(self.encoder(rows))}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """InfoNCE of the first views against the second ones and the queue."""
        z = representations["z"]
        candidates = torch.cat([z[1], self.queue.rows.to(z.dtype)])
        return {"loss": info_nce(z[0], candidates, temperature=self.temperature)}

    def finish_step(self, batch: TokenRows) -> None:
        """The momentum encoder follows, and the sentences of this batch enter the queue."""
        if self.momentum_encoder is None:
            return
        follow(self.momentum_encoder, self.encoder, momentum=self.momentum)
        vectors = self.in_pieces(batch, self._momentum_vectors)["q"]
        self.queue.push(gather(at_least_float32(vectors), dim=0))

    def _momentum_vectors(self, rows: TokenRows) -> Representations:
        assert self.momentum_encoder is not None
        return {"q": self.head(self.momentum_encoder(rows))}


class NegativeQueue(nn.Module):
    """First in, first out: the last vectors, (m, d), m at most `size` after the first batch. In the checkpoint.

    Args:
        size: M.
        width: d.
    """

    rows: Tensor

    def __init__(self, size: int, *, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("rows", torch.empty(0, width))
        self.register_load_state_dict_pre_hook(_as_long_as_saved)

    def push(self, vectors: Tensor) -> None:
        """Adds vectors, (b, d); the oldest leave. Into an empty queue they go whole, as in the official code."""
        joined = torch.cat([self.rows.to(vectors), vectors.detach()])
        self.rows = joined[-self.size :].clone() if len(self.rows) else joined


def _as_long_as_saved(module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    """A queue takes the length that a checkpoint gives it."""
    saved = state.get(prefix + "rows")
    if saved is not None:
        module.rows = module.rows.new_empty(saved.shape)  # type: ignore[operator]


def follow(momentum_encoder: nn.Module, encoder: nn.Module, *, momentum: float) -> None:
    """Moves every parameter that is trained by (1 - momentum) of its way to the encoder's; no buffers."""
    with torch.no_grad():
        for slow, fast in zip(momentum_encoder.parameters(), encoder.parameters(), strict=True):
            if fast.requires_grad:
                slow.lerp_(fast, 1 - momentum)


def _momentum_copy(encoder: Encoder, start: str) -> Encoder:
    # What is not trained, the body beneath an adapter, is shared.
    shared = {id(parameter): parameter for parameter in encoder.parameters() if not parameter.requires_grad}
    copied = copy.deepcopy(encoder, {id(encoder.tokenizer): encoder.tokenizer, **shared})
    if start == "random":
        body = copied.plain_body
        drawn = random_body(body.config, attention=str(body.config._attn_implementation), dtype=encoder.dtype)
        body.load_state_dict(drawn.state_dict())
    return copied.requires_grad_(requires_grad=False).eval()
