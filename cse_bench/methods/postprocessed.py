"""Post-processing: the backbone's vectors, whitened or cut short, without any training.

Su, Cao, Liu and Ou 2021, "Whitening Sentence Representations for Better Semantics and Faster Retrieval", arXiv
2103.15316 (PCA whitening, and fewer dimensions); Huang et al. 2021, "WhiteningBERT", arXiv 2104.01767 (on top of
poolings of several layers).
"""

import time
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Unpack

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from cse_bench.config.messages import Problem
from cse_bench.config.schema import RunConfig
from cse_bench.data.corpora import Corpus
from cse_bench.encoders.affine_map import AffineMap, MappedEncoder
from cse_bench.encoders.architecture import architecture_config
from cse_bench.encoders.whitening import SORTED, WHITENINGS, Whitening, moments, rank, rounding, spectrum, whitening_map
from cse_bench.errors import DataError, EncoderError
from cse_bench.evaluation.suite import Evaluator
from cse_bench.methods.method import Shared
from cse_bench.methods.training_free import TrainingFree

Kind = Literal[Whitening, "center", "none"]

_SMALLEST_EPS = 1e-9  # below, rounding in float64 decides


class Postprocessed(TrainingFree):
    r"""The backbone's vectors behind a fixed map, :math:`z = (x - m)\, W_{:, 1..k}`.

    Mean m and matrix W are fitted once, in float64, on sentences of the training corpus, without labels; the sentences
    are embedded in float32 and, as in the evaluation, not cut at data.max_length. Nothing is drawn at random: they
    lie at even distances in the corpus, and there is one result, not one per seed.

    With all dimensions the five kinds of whitening give the same cosines up to rounding (`cse_bench.encoders.whitening`
    says why). With fewer they do not: `pca` and `pca_cor` keep the directions that varied most, `zca`, `zca_cor` and
    `cholesky` whiten with all coordinates and keep the first ones, which for the encoder are as good as any.

    Args:
        kind: of whitening, see `cse_bench.encoders.whitening.whitening_map`; `center`: W = I; `none`: W = I, m = 0, and
            the corpus is not read.
        dimensions: k; None: all.
        sentences: how many the map is fitted on; None: all of the corpus.
        eps: ridge, relative to the mean variance: what is inverted is :math:`\Sigma + \epsilon\, \bar\sigma^2 I`.
            Vectors that come out of a LayerNorm, or means of such, obey one linear equation, so that :math:`\Sigma` has
            rank d - 1, and without a ridge the last direction would be rounding, blown up to variance 1. 0: no ridge;
            such vectors are then refused.
        shared: see `TrainingFree`.

    Raises:
        EncoderError: more dimensions than the vectors have.
    """

    status: ClassVar[str] = "baseline"
    version: ClassVar[int] = 2  # 1: fitted in evaluation.precision
    citation: ClassVar[str] = "Su, Cao, Liu and Ou, 2021, arXiv 2103.15316; Huang et al., 2021, arXiv 2104.01767"

    def __init__(
        self,
        *,
        kind: Kind,
        dimensions: Annotated[int, Field(ge=1)] | None,
        sentences: Annotated[int, Field(ge=1)] | None,
        eps: Annotated[float, Field(ge=0)],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.kind = kind
        self.whitening: Whitening | None = None if kind == "center" or kind == "none" else kind
        self.num_sentences = sentences
        self.eps = eps
        width = self.encoder.width
        if dimensions is not None and dimensions > width:
            raise EncoderError(
                f"method.dimensions={dimensions}, but the vectors have {width} numbers; set at most that"
            )
        self.dimensions = dimensions or width
        # Of the shape that it will have, so that a plan is right about memory; `fit` brings the numbers.
        self.mapped = self._mapped(
            mean=None if kind == "none" else torch.zeros(width),
            matrix=torch.eye(width, self.dimensions) if self.whitening else None,
        )

    @classmethod
    def reads_corpus(cls, config: RunConfig) -> bool:
        """Unless nothing is fitted."""
        return bool(config.method.arguments()["kind"] != "none")

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """Something to do, no more dimensions than there are, and enough sentences for them."""
        given = config.method.arguments()
        kind, dimensions, sentences = given["kind"], given["dimensions"], given["sentences"]
        if 0 < given["eps"] < _SMALLEST_EPS:
            yield Problem(
                "method.eps", f"0 or at least {_SMALLEST_EPS:g}, got {given['eps']:g}: it would be lost in rounding"
            )
        if kind == "none" and dimensions is None:
            yield Problem(
                "method.kind",
                "none, with all dimensions, leaves the vectors as they are; set method.dimensions, or a kind",
            )
        # A model from the Hub without a registry entry: its width is not known yet.
        if config.backbone.source != "local" and config.backbone.architecture is None:
            return
        width = int(architecture_config(config.backbone).hidden_size)
        if dimensions is not None and dimensions > width:
            yield Problem(
                "method.dimensions", f"at most the {width} of backbone={config.backbone.name}, got {dimensions}"
            )
            return
        if kind in WHITENINGS and sentences is not None and sentences < (needed := _needed(kind, dimensions, width)):
            yield Problem(
                "method.sentences", f"{sentences} are fewer than the {needed} that method.kind={kind} needs; raise it"
            )

    @classmethod
    def check_corpus(cls, config: RunConfig, *, name: str, sentences: int) -> None:
        """As many sentences as are asked for.

        Raises:
            DataError: there are fewer.
        """
        asked = config.method.arguments()["sentences"]
        if asked is not None and sentences < asked:
            raise DataError(
                f"the corpus '{name}' has {sentences} sentences, fewer than method.sentences={asked}; set it to at "
                f"most {sentences} (null: all), or give more sentences"
            )

    @property
    def sentence_encoder(self) -> MappedEncoder:
        """The backbone and the map."""
        return self.mapped

    def fit(self, config: RunConfig, corpus: Corpus) -> dict[str, float]:
        """Embeds sentences, and fits mean and matrix.

        In float32 whatever the evaluation computes in: directions of next to no variance are divided by it.

        Raises:
            DataError: the vectors do not vary in as many directions as are to be whitened.
            EncoderError: a vector is not finite.
        """
        start = time.perf_counter()
        sentences, width = evenly_spaced(corpus, self.num_sentences), self.encoder.width
        if self.whitening and (distinct := len(set(sentences))) < (
            needed := _needed(self.kind, self.dimensions, width)
        ):
            raise DataError(
                f"{distinct} different sentences are fewer than the {needed} that method.kind={self.kind} needs; give "
                "more of them (data, method.sentences)"
            )
        vectors = Evaluator(
            module=self.encoder,
            embed=self.encoder,
            tokenizer=self.encoder.tokenizer,
            precision="32-true",
            batch_tokens=config.evaluation.batch_tokens,
        ).encode(sentences)
        _check_finite(vectors, sentences)
        mean, sigma = moments(vectors)
        self.notes["fit"] = {"corpus": corpus.name, "sentences": len(sentences), "dimensions": self.dimensions}
        matrix = self._whitening_map(mean, sigma, self.whitening) if self.whitening else None
        self.mapped = self._mapped(mean, matrix).to(self.device)
        return {"cost/preparation_time_s": time.perf_counter() - start}

    def _whitening_map(self, mean: Tensor, sigma: Tensor, kind: Whitening) -> Tensor:
        width, noise = len(sigma), rounding(mean, sigma)
        varying, divided = rank(sigma, noise=noise), self.dimensions if kind in SORTED else width
        if self.eps == 0 and varying < divided:
            raise DataError(
                f"the vectors vary in {varying} directions of {width}, and method.kind={kind} divides by the "
                f"deviations in {divided} of them; set method.eps, e.g. 1e-6, or method.kind=pca|pca_cor with "
                f"method.dimensions of at most {varying}"
            )
        ridged = sigma + self.eps * sigma.diagonal().mean() * torch.eye(width, dtype=sigma.dtype)
        inverted = spectrum(ridged, kind=kind)[:divided]
        self.notes["fit"] |= {
            "width": width,
            "rank": varying,
            "condition_number": float(inverted[0] / inverted[-1]),
        }
        return whitening_map(ridged, kind=kind, dimensions=self.dimensions, noise=noise)

    def _mapped(self, mean: Tensor | None, matrix: Tensor | None) -> MappedEncoder:
        width = self.encoder.width
        done = "first" if self.kind == "none" else self.kind
        name = f"{done} {self.dimensions}" if self.dimensions < width else done
        affine_map = AffineMap(name=name, width=width, dimensions=self.dimensions, mean=mean, matrix=matrix)
        return MappedEncoder(self.encoder, affine_map)


def _needed(kind: Kind, dimensions: int | None, width: int) -> int:
    """How many sentences make a covariance that varies in all directions which the map divides by.

    A ridge is no help against fewer: what does not vary by chance does so elsewhere, and is blown up.
    """
    return 1 + ((dimensions or width) if kind in SORTED else width)


def evenly_spaced(corpus: Corpus, count: int | None) -> list[str]:
    """Sentences of a corpus at even distances, in its order.

    Args:
        corpus: n sentences.
        count: c of them, number i the one at i n / c, rounded down; None: all.
    """
    if count is None:
        return list(corpus.lines())
    total = sum(1 for _ in corpus.lines())
    chosen = {i * total // count for i in range(count)}
    return [line for i, line in enumerate(corpus.lines()) if i in chosen]


def _check_finite(vectors: np.ndarray, sentences: list[str]) -> None:
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise EncoderError(
            f"the vector of '{sentences[int(bad.argmax())][:60]}' is not finite; the weights are broken, or too large "
            "for the dtype they are kept in (backbone.dtype)"
        )
