"""Encoders: registry, weights, pooling, prompts, adapters, saving and loading."""
