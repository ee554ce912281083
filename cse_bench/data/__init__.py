"""Data: corpora, token store, batches."""
