"""cse_bench: unsupervised contrastive sentence embedding methods, compared honestly."""

__version__ = "0.1.0"
