"""cse_bench from Python, cell by cell: train, encode, look at a finished run, load any encoder.

Every cell runs on two CPU cores in seconds; `tiny_bert` has random weights, so its numbers mean nothing. Real ones:
`backbone=bert_tiny` (package index) or `backbone=bert_base` (Hub).
"""

# %%
from pathlib import Path

import lightning
import numpy as np

from cse_bench import Encoder, build_training, compose_config, load_run
from cse_bench.run import run

# %% [markdown]
# ## Train with a Lightning Trainer of your own
# `compose_config` is the complete config of a run, with the overrides of the command line; `build_training` makes the
# method and its data of it. Callbacks, loggers, devices and precision are the trainer's.

# %%
animals, verbs, places = (
    ("bird", "fox", "old cat"),
    ("sings", "walks", "sleeps", "waits"),
    ("river", "tower", "harbour"),
)
sentences = [f"A {animal} {verb} near the {place}." for animal in animals for verb in verbs for place in places]
config = compose_config("method=simcse", "backbone=tiny_bert", "data.global_batch_size=16", "optimizer.lr=1e-3")
method, data = build_training(config, sentences)
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.fit(method, data)

# %% [markdown]
# ## Encode
# `encode` takes a list and gives an array; inside, sentences are sorted by length and batched.

# %%
encoder = method.sentence_encoder
vectors = encoder.encode(["A bird sings near the river.", "The fox waits."], normalize=True)
print("cosine:", float(vectors[0] @ vectors[1]))

# %% [markdown]
# ## A run of the command line, and what it left
# `run` with a config is `python -m cse_bench` with its overrides: trained, evaluated, written down, and found again
# when it is asked for a second time.

# %%
Path("sentences.txt").write_text("\n".join(sentences) + "\n")
config = compose_config(
    "method=simcse",
    "backbone=tiny_bert",
    "data=text_file",
    "data.path=sentences.txt",
    "data.global_batch_size=16",
    "evaluation=none",
    "trainer.max_steps=5",
    "paths.output_dir=library_use",  # not outputs: it has no scores that a report could compare
)
done = load_run(run(config)["directory"])
print(done.directory, f"{done.metrics['cost/train_sentences_per_s']:.0f} sentences/s")

# %% [markdown]
# ## Any encoder by one name
# A run, a directory (saved here, of sentence-transformers, of Transformers) or a Hub id; read as it was trained.

# %%
loaded = Encoder.load(done.directory)
print(loaded.pooling, loaded.width)
print("same vectors:", np.allclose(loaded.encode(sentences), done.encoder.encode(sentences), atol=1e-4))
