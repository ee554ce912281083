"""Results: run directories, the metrics log, tables."""
