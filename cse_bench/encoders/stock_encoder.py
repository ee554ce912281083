"""A sentence-transformers model as an encoder of ours, for those whose modules are not a body and a pooling alone."""

from pathlib import Path
from typing import Any

from torch import Tensor

from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.errors import ConfigError, EncoderError, first_line

EXPORT_FACTS = "cse_bench_export.json"
"""What an export says of itself; nothing that lacks it is ever replaced by another one."""


class StockEncoder(SentenceEncoder):
    """Runs the modules of a sentence-transformers directory, of that package's own classes only.

    Args:
        directory: with `modules.json`.
        dtype: of the body; None: as saved.
        attention: kernel.

    Raises:
        ConfigError: sentence-transformers is not installed.
        EncoderError: it cannot be loaded, or not with this dtype.
    """

    def __init__(self, directory: Path, *, dtype: str | None = None, attention: str = "sdpa") -> None:
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(f"'{directory}' needs sentence-transformers: pip install 'cse_bench[export]'") from error
        options: dict[str, Any] = {"attn_implementation": attention} | ({"dtype": dtype} if dtype else {})
        try:
            self.model = SentenceTransformer(str(directory), device="cpu", model_kwargs=options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            raise EncoderError(f"'{directory}' cannot be loaded: {first_line(error)}") from error
        prefix = self.model.prompts.get(self.model.default_prompt_name or "", "")
        limit = self.model.max_seq_length
        if limit is None:
            raise EncoderError(f"'{directory}' does not say how many tokens it takes; set max_seq_length in it")
        self.tokenizer = SentenceTokenizer(
            self.model.tokenizer, prompt=prefix + "{sentence}" if prefix else None, max_positions=limit
        )
        self.pooling = " + ".join(type(module).__name__ for module in self.model)
        self.provenance = {"source": "sentence-transformers", "model": str(directory)}
        if dtype is None:
            return
        try:
            self.encode(["Tea"])
        except RuntimeError as error:  # layers behind the body that compute in float32, and take nothing else
            raise EncoderError(
                f"'{directory}' ({self.pooling}) cannot be used with dtype={dtype}, leave it out: {first_line(error)}"
            ) from error

    @property
    def width(self) -> int:
        """Length of a sentence vector."""
        return int(self.model.get_embedding_dimension() or 0)

    @staticmethod
    def is_needed(facts: dict[str, Any]) -> bool:
        """Whether an export, going by what it says, is more than a body and a pooling."""
        return (
            bool(facts["towers"]) or facts["adapter"] == "keep" or not {*facts["modules"]} <= {"Transformer", "Pooling"}
        )

    def forward(self, rows: TokenRows) -> Tensor:
        """(n, d)."""
        ids, mask = rows.padded(pad_token_id=self.tokenizer.pad_token_id, side="right")
        vectors: Tensor = self.model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        return vectors
