"""Speed and memory, as ratios against something named, measured in one interleaved run: these machines are noisy."""
