"""A method of one's own: what differs from SimCSE and nothing else.

Here both views are anchors in turn. Views, length-sorted pieces, gradient caching, several devices and the optimiser
come from the base class. To have it on the command line, too: CONTRIBUTING.md, "Add a method".
"""

# %%
import lightning
from torch import Tensor

from cse_bench import build_training, compose_config
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.simcse import SimCSE


# %%
class SymmetricSimCSE(SimCSE):
    """SimCSE with anchors from both views."""

    def objective(self, representations: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean of both directions."""
        first, second = representations["z"]
        there = info_nce(first, second, temperature=self.temperature)
        back = info_nce(second, first, temperature=self.temperature)
        return {"loss": (there + back) / 2}


# %%
sentences = [f"Sentence number {number} of a small corpus." for number in range(64)]
config = compose_config("method=simcse", "backbone=tiny_bert", "data.global_batch_size=16", "method.temperature=0.1")
method, data = build_training(config, sentences, method=SymmetricSimCSE)
lightning.Trainer(max_steps=8, accelerator="cpu", logger=False, enable_checkpointing=False).fit(method, data)
print(method.sentence_encoder.encode(sentences).shape)
