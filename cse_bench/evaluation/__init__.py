"""Evaluation: tasks, metrics, and the callback that runs them during training."""
