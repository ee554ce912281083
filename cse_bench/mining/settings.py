"""What decides the candidates of every sentence, and with them the artefact on disk."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cse_bench.config.schema import Section

Surface = Literal["edit", "jaccard", "bigram_dice", "idf_jaccard"]


class MiningSettings(Section):
    """The candidate sets of a sentence. No number here is published; all are ours.

    Attributes:
        semantic: nearest sentences by the teacher's cosine; the candidates for positives, and for negatives too.
        lexical: sentences that share a rare word, by surface similarity; for negatives only.
        uniform: sentences drawn at random; for negatives only.
        surface: the surface similarity, see `cse_bench.mining.surface`.
        min_words: shorter sentences are no candidates.
        rare_words: how many of its rarest words a sentence is looked up by.
        rare_frequency: the fewest and the most sentences that a looked-up word may occur in.
        postings: lexical candidates that are compared; more are thinned out at random.
        search: `exact`, `ivf` (faiss, approximate), or `auto`: exact on a GPU or for small corpora.
        exact_up_to: sentences up to which `auto` is exact on a CPU.
        ivf_lists: cells of the approximate index.
        ivf_probes: cells that are searched.
        seed: of the random candidates; not the seed of the run, so that runs with one teacher share one artefact.
    """

    semantic: Annotated[int, Field(ge=1)]
    lexical: Annotated[int, Field(ge=0)]
    uniform: Annotated[int, Field(ge=0)]
    surface: Surface
    min_words: Annotated[int, Field(ge=1)]
    rare_words: Annotated[int, Field(ge=1)]
    rare_frequency: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]]
    postings: Annotated[int, Field(ge=1)]
    search: Literal["auto", "exact", "ivf"]
    exact_up_to: Annotated[int, Field(ge=1)]
    ivf_lists: Annotated[int, Field(ge=1)]
    ivf_probes: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    @model_validator(mode="after")
    def _frequencies_in_order(self) -> "MiningSettings":
        fewest, most = self.rare_frequency
        if fewest > most:
            raise ValueError(f"rare_frequency is [fewest, most]; {fewest} is more than {most}")
        return self

    @property
    def columns(self) -> int:
        """Candidates of a sentence, at most."""
        return self.semantic + self.lexical + self.uniform
