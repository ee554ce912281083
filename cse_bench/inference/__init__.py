"""Encoders at work: many sentences in, vectors out, neighbours of a query."""
