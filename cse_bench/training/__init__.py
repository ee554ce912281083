"""Training: gather, cost, precision, resume, the ranks of a run."""
