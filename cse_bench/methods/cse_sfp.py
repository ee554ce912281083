"""CSE-SFP: two sentence vectors from a single forward pass of a causal model.

Zhang, Song and Li: "CSE-SFP: Enabling Unsupervised Sentence Representation Learning via a Single Forward Pass", SIGIR
2025, arXiv 2505.00389. Official code: github.com/ZBWpro/CSE-SFP.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Unpack

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cse_bench.config.messages import Problem
from cse_bench.config.schema import RunConfig
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.architecture import architecture_config, is_decoder
from cse_bench.encoders.pooling import from_end
from cse_bench.encoders.prompts import tokens_after
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.base import ContrastiveMethod, Representations
from cse_bench.methods.method import Shared


class CSESFP(ContrastiveMethod):
    r"""A two-stage prompt is read twice: where its first stage ends, and at its end.

        This sentence : "X" means in one word, it can be summarized as
                                         Rep1                      Rep2

    In a causal model Rep1 has not seen the second stage, so both are vectors of the sentence, different without dropout
    and for the price of one row. Rep2 is the anchor and the sentence vector at inference, Rep1 its positive:

    .. math::
        \ell_i = -\log \frac{e^{\cos(z_i, z_i^+) / \tau}}{\sum_{j=1}^{b} e^{\cos(z_i, z_j^+) / \tau}},
        \qquad z_i = H_{i, n_i - 1}, \quad z_i^+ = H_{i, n_i - 1 - D}

    with H the states of the last layer after its final norm, n_i the length of row i and D the number of tokens of the
    second stage, a constant of prompt and tokenizer. One direction, no head. As in the official code; the two prompts
    are in `conf/recipe/cse_sfp`.

    Args:
        temperature: :math:`\tau`.
        second_stage: the end of `backbone.prompt`, after Rep1.
        shared: see `ContrastiveMethod`.

    Raises:
        EncoderError: the tokenizer does not keep the two stages apart.
    """

    status: ClassVar[str] = "official code"
    citation: ClassVar[str] = "Zhang, Song and Li, SIGIR 2025, arXiv 2505.00389"

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)],
        second_stage: Annotated[str, Field(min_length=1)],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        self.temperature = temperature
        self.distance = tokens_after(self.encoder.tokenizer, second_stage)
        self.notes["second_stage_tokens"] = self.distance

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """A causal backbone, read at the last token of a prompt that ends with the second stage."""
        backbone = config.backbone
        known = backbone.source == "local" or backbone.architecture is not None
        causal = is_decoder(architecture_config(backbone)) if known else backbone.family != "encoder"
        if not causal:
            yield Problem(
                "backbone",
                f"{backbone.name} is bidirectional: the first reading of the prompt would see its second stage; choose "
                "a decoder, e.g. backbone=smollm2_135m",
            )
        if backbone.pooling != "last_token":
            yield Problem("backbone.pooling", f"the sentence vector is the last token's state, not {backbone.pooling}")
        second_stage = str(config.method.arguments().get("second_stage"))
        if backbone.prompt is None or not backbone.prompt.endswith(second_stage):
            yield Problem(
                "backbone.prompt",
                f"must end with method.second_stage='{second_stage}'; it is {backbone.prompt!r}",
            )
        elif "{sentence}" not in backbone.prompt.removesuffix(second_stage):
            yield Problem("method.second_stage", "holds the sentence, which belongs to the first stage")
        elif backbone.prompt != backbone.prompt.rstrip():
            yield Problem("backbone.prompt", "ends with a space, which would be the token that is read; remove it")

    def views(self, batch: TokenRows) -> TokenRows:
        """Every sentence once."""
        return batch

    def represent(self, rows: TokenRows) -> Representations:
        """Both readings of one forward: `z` (Rep2) and `z_plus` (Rep1)."""
        states, _, mask = self.encoder.states(rows)
        return {"z": from_end(states, mask, 0), "z_plus": from_end(states, mask, self.distance)}

    def objective(self, representations: Representations) -> dict[str, Tensor]:
        """InfoNCE of Rep2 against Rep1; the mean cosines tell whether Rep2 merely copies Rep1."""
        z, z_plus = representations["z"][0], representations["z_plus"][0]
        unit, unit_plus = functional.normalize(z.detach(), dim=-1), functional.normalize(z_plus.detach(), dim=-1)
        same = (unit * unit_plus).sum(dim=1).mean()
        every = unit.sum(dim=0) @ unit_plus.sum(dim=0)  # the sum of all cosines
        pairs = len(z) * (len(z) - 1)
        return {
            "loss": info_nce(z, z_plus, temperature=self.temperature),
            "cosine_same": same,
            "cosine_other": (every - len(z) * same) / max(pairs, 1),
        }
