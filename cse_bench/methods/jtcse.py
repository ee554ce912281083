"""JTCSE, and its predecessor TNCSE as `cross_mode=off`: two towers that are trained together and summed.

Zong, Yi, Shi, Wang and Xu: "JTCSE: Joint Tensor-Modulus Constraints and Cross-Attention for Unsupervised Contrastive
Learning of Sentence Embeddings", arXiv 2505.02366; Zong, Shi, Yi and Xu: "TNCSE", AAAI 2025, arXiv 2503.12739.
Official code: github.com/tianyuzong/JTCSE and github.com/tianyuzong/TNCSE.

The losses are those of the official code. How the towers exchange values is our reading, since the modelling code that
does it was not published (see `cse_bench.encoders.cross_stream`); so are the stage-1 towers, which the authors trained
with round-trip translations.
"""

import copy
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Unpack

import torch
from lightning.pytorch.utilities import rank_zero_only
from pydantic import Field
from torch import Tensor, nn

from cse_bench.config.bind import locate
from cse_bench.config.messages import Problem
from cse_bench.config.nested import nested_problems
from cse_bench.config.schema import RunConfig
from cse_bench.config.towers import Tower, Towers
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.architecture import architecture_config, without_pooler
from cse_bench.encoders.cross_stream import CROSSABLE, crossed_layers, twin_states
from cse_bench.encoders.loading import open_encoder
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.transfer import take_weights
from cse_bench.encoders.weights import pretrained_pooler
from cse_bench.errors import EncoderError
from cse_bench.losses.twin_tower import modulus_loss, partner_nce, sentence_by_sentence
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.dropout_views import dropout_problem
from cse_bench.methods.head import TrainingHead
from cse_bench.methods.method import Shared
from cse_bench.methods.preparation import Preparation
from cse_bench.results.tables import print_lines

_POOLING = ("cls", "mean", "last_token")  # what can be read off the last layer


class JTCSE(ContrastiveMethod):
    r"""Two towers, each contrasted with itself and with the other, and pulled to vectors of the same length.

    .. math::
        L = \underbrace{N(h_1, h_1) + N(h_2, h_2)}_\text{nce} + \underbrace{N(h_a, h_b) + N(c_a, c_b)}_\text{icnce}
            + \underbrace{M(1, 2) + M(2, 1)}_\text{ictm}

    with h the pooled vectors of both towers and c those of the crossed stream, in which every so many layers the
    attention of a tower weighs the values of the other one. N is InfoNCE over all 2 b rows of a batch, where the other
    view of a sentence is the positive and both views of all others are negatives (`partner_nce`). (a, b) is (1, 2) or
    (2, 1) by one coin per step, the same for both terms. M(a, b) compares view 1 of tower a with view 2 of tower b, in
    direction by h and in length by p, a pooler's output (`modulus_loss`). All weights are 1.

    At inference there is no exchange: the embedding is :math:`h_1 + h_2`, not normalised before.

    Both towers start from finished runs, trained first (`prerequisites`) or given by path. From equal weights the
    crossed stream equals the plain one, and the towers differ by dropout alone.

    Args:
        temperature: :math:`\tau`.
        cross_mode: `dual`: c beside h. `inline`: there is one stream, and it is crossed: h is c, and training and
            inference differ; an ablation. `off`: no c and none of its terms; with `direction=first_to_second`, TNCSE.
        cross_every: layers k, 2 k, ..., the last one, are crossed.
        modulus_source: what lengths are compared of: `pooler` (Linear and tanh on h, training only) or `cls`, h itself,
            which layer norm has made almost equally long.
        modulus_scale: of the length part.
        pooler: where poolers start: the checkpoint's own (`pretrained`) or drawn anew for each tower (`fresh`).
        direction: `coin`, or `first_to_second` in every step.
        towers: where they start; None: both from the backbone, with a warning.
        shared: see `ContrastiveMethod`.
    """

    status: ClassVar[str] = "own reading"
    citation: ClassVar[str] = "Zong, Yi, Shi, Wang and Xu, 2025, arXiv 2505.02366"

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)],
        cross_mode: Literal["dual", "inline", "off"],
        cross_every: Annotated[int, Field(ge=1)],
        modulus_source: Literal["pooler", "cls"],
        modulus_scale: Annotated[float, Field(ge=0)],
        pooler: Literal["pretrained", "fresh"],
        direction: Literal["coin", "first_to_second"],
        towers: Towers | None,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.temperature = temperature
        self.cross_mode = cross_mode
        self.modulus_source = modulus_source
        self.modulus_scale = modulus_scale
        self.pooler_start = pooler
        self.direction = direction
        self.towers = None if towers is None else Towers.model_validate(towers)
        self.crossed: frozenset[int] = frozenset()
        if cross_mode != "off":
            self.crossed = crossed_layers(self.encoder.config.num_hidden_layers, every=cross_every)
        self.second_encoder = copy.deepcopy(self.encoder, {id(self.encoder.tokenizer): self.encoder.tokenizer})
        has_poolers = modulus_source == "pooler"
        self.poolers = nn.ModuleList(TrainingHead(self.encoder) for _ in range(2 if has_poolers else 0))

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """Towers that can be crossed, that have what is asked for, and whose own runs can be had."""
        yield from dropout_problem(config)
        if config.backbone.adapter is not None:
            yield Problem("backbone.adapter", "two whole towers are trained here; set backbone.adapter=null")
        if config.backbone.gradient_checkpointing and config.method.arguments().get("cross_mode") != "off":
            yield Problem(
                "backbone.gradient_checkpointing",
                "a crossed layer computed again in the backward would not see the other tower's values; set it to "
                "false, data.gradient_cache_rows=32 to save memory, or method.cross_mode=off",
            )
        if config.backbone.compile is not None and config.method.arguments().get("cross_mode") != "off":
            yield Problem(
                "backbone.compile",
                "the layers of crossed towers are called one by one, past what is compiled; set it to null, or "
                "method.cross_mode=off",
            )
        yield from _architecture_problems(config)
        towers = _towers(config)
        for name, tower in towers.items():
            yield from _tower_problems(config, tower, at=f"method.towers.{name}")
        runs = [tower.run(config) for tower in towers.values()]
        if runs and runs[0] is not None and runs[0] == runs[1]:
            yield Problem(
                "method.towers", "both towers are the same run, and would be equal; give another seed_offset to one"
            )

    @classmethod
    def prerequisites(cls, config: RunConfig) -> dict[str, RunConfig]:
        """The runs of the towers, `first` and `second`, except those given by path."""
        runs = {name: tower.run(config) for name, tower in _towers(config).items()}
        return {name: run for name, run in runs.items() if run is not None}

    @classmethod
    def encoders_by_path(cls, config: RunConfig) -> dict[str, str]:
        """The towers that are given so."""
        towers = _towers(config).items()
        return {f"method.towers.{name}": tower.path for name, tower in towers if tower.path is not None}

    def prepare(self, preparation: Preparation) -> dict[str, float]:
        """Loads towers and poolers.

        Raises:
            EncoderError: a tower of another kind than the backbone, or a pretrained pooler that does not exist.
        """
        self.notes["definition"] = "losses: official code; cross stream and stage-1 towers: own reading"
        if self.towers is not None:
            encoders = {"first": self.encoder, "second": self.second_encoder}
            for name, tower in self.towers.by_name().items():
                path = str(preparation.prerequisites.get(name, tower.path))
                attention = preparation.config.backbone.attention
                source = open_encoder(
                    path, pooling=None if tower.path is None else self.encoder.pooling, attention=attention
                )
                take_weights(encoders[name], source, origin=f"method.towers.{name} ('{path}')")
                self.notes[f"{name}_tower"] = source.provenance
        pairs = zip(self.encoder.parameters(), self.second_encoder.parameters(), strict=True)
        if all(torch.equal(first, second) for first, second in pairs):
            self._warn_of_equal_towers()
        if self.poolers:
            self.notes["pooler"] = self.pooler_start
            if self.pooler_start == "pretrained":
                self._load_poolers(preparation.config)
        return {}

    def _warn_of_equal_towers(self) -> None:
        message = (
            "method.towers: both towers start from the same weights, so the crossed stream equals the plain one "
            "and little is gained by their sum"
        )
        self.notes["warning"] = message
        rank_zero_only(print_lines)([f"warning: {message}"])

    def _load_poolers(self, config: RunConfig) -> None:
        weights = pretrained_pooler(config.backbone)
        if weights is None:
            raise EncoderError(
                f"method.pooler=pretrained, but the checkpoint of backbone={config.backbone.name} has no pooler; set "
                "method.pooler=fresh, or method.modulus_source=cls"
            )
        for pooler in self.poolers:
            assert isinstance(pooler, TrainingHead)
            pooler[0].load_state_dict(weights)

    @property
    def sentence_encoder(self) -> SummedEncoders:
        """The sum of both towers, made on the fly: as a submodule it would save every weight twice."""
        return SummedEncoders([self.encoder, self.second_encoder])

    def negatives_per_anchor(self, global_batch_size: int) -> int:
        """Both views of all other sentences."""
        return 2 * (global_batch_size - 1)

    def views(self, batch: TokenRows) -> TokenRows:
        """Two copies of every sentence; their dropout masks differ."""
        return batch.repeat(2)

    def packs(self, rows: TokenRows) -> bool:
        """Not where layers of two towers are run side by side."""
        return not self.crossed and super().packs(rows)

    def represent(self, rows: TokenRows) -> Representations:
        """Of both towers: h, and c of the crossed stream and p of the pooler where they are used."""
        if self.crossed:
            ids, mask = rows.padded(pad_token_id=self.encoder.tokenizer.pad_token_id, side="right")
            bodies = self.encoder.plain_body, self.second_encoder.plain_body
            streams = twin_states(*bodies, ids, mask, crossed=self.crossed, inline=self.cross_mode == "inline")
            names = zip("hc", streams, strict=True)
            found = {
                f"{name}{tower}": self.encoder.pooled(states, None, mask)
                for name, pair in names
                for tower, states in enumerate(pair, start=1)
            }
        else:
            found = {"h1": self.encoder(rows), "h2": self.second_encoder(rows)}
        for tower, pooler in enumerate(self.poolers, start=1):
            found[f"p{tower}"] = pooler(found[f"h{tower}"])
        return found

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """The loss and its three parts."""
        rows = {name: sentence_by_sentence(views) for name, views in representations.items()}
        first, second = self._towers_in_order()
        nce = self._nce(rows["h1"], rows["h1"]) + self._nce(rows["h2"], rows["h2"])
        icnce = self._nce(rows[f"h{first}"], rows[f"h{second}"])
        if self.crossed:
            icnce = icnce + self._nce(rows[f"c{first}"], rows[f"c{second}"])
        ictm = self._modulus(representations, 1, 2) + self._modulus(representations, 2, 1)
        return {"loss": nce + icnce + ictm, "nce": nce, "icnce": icnce, "ictm": ictm}

    def _towers_in_order(self) -> tuple[int, int]:
        """Whose rows are anchors in this step, and whose candidates. The coin is a bit of the step's own seed."""
        if self.direction == "coin" and self.generator(self.global_step).initial_seed() & 1:
            return 2, 1
        return 1, 2

    def _nce(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        return partner_nce(anchors, candidates, temperature=self.temperature)

    def _modulus(self, representations: Representations, first: int, second: int) -> Tensor:
        h, p = "h", "p" if self.poolers else "h"
        return modulus_loss(
            representations[f"{h}{first}"][0],
            representations[f"{h}{second}"][1],
            representations[f"{p}{first}"][0],
            representations[f"{p}{second}"][1],
            scale=self.modulus_scale,
        )


def _towers(config: RunConfig) -> dict[str, Tower]:
    given = config.method.arguments()["towers"]
    return {} if given is None else Towers.model_validate(given).by_name()


def _tower_problems(config: RunConfig, tower: Tower, *, at: str) -> Iterator[Problem]:
    run = tower.run(config)
    if tower.missing_folder():
        yield Problem(at, f"there is no folder '{tower.path}'; give that of a run or a saved encoder")
    if run is None:
        return
    if run.seed >= 2**32:
        yield Problem(f"{at}.seed_offset", f"seed + seed_offset must be less than 2**32, got {run.seed}")
    unbound = list(nested_problems(run, at=f"{at}.method"))
    yield from unbound
    if not unbound and not locate(run.method.target).trains:
        yield Problem(
            f"{at}.method", "trains nothing; towers that start from the backbone as it is: method.towers=null"
        )


def _architecture_problems(config: RunConfig) -> Iterator[Problem]:
    given, backbone = config.method.arguments(), config.backbone
    is_crossed = given["cross_mode"] != "off"
    if is_crossed and backbone.pooling not in _POOLING:
        yield Problem("backbone.pooling", f"with crossed towers one of {', '.join(_POOLING)}, got {backbone.pooling}")
    if backbone.source != "local" and backbone.architecture is None:
        return  # not known before the download; then the constructor and `prepare` say it
    model = architecture_config(backbone)
    if is_crossed and model.model_type not in CROSSABLE:
        yield Problem(
            "method.cross_mode",
            f"towers of '{model.model_type}' cannot exchange values, only those of {', '.join(sorted(CROSSABLE))}; "
            "set method.cross_mode=off",
        )
    elif is_crossed:
        try:
            crossed_layers(model.num_hidden_layers, every=given["cross_every"])
        except EncoderError as error:
            yield Problem("method.cross_every", f"{error}, got {given['cross_every']}")
    is_pretrained = given["modulus_source"] == "pooler" and given["pooler"] == "pretrained"
    if is_pretrained and (backbone.source == "random" or not without_pooler(model)):
        yield Problem("method.pooler", f"backbone={backbone.name} has no pretrained pooler; set method.pooler=fresh")
