"""A method that is not shipped: what somebody else would add."""
