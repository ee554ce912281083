"""The report of collected runs: one page that explains itself, its tables and figures as files."""
