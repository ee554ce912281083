"""Speed and memory, always as a ratio against something named, measured in one interleaved run: these machines are noisy."""
