"""Config: schema, checks before anything is loaded, identity of a run."""
