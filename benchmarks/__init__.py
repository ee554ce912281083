"""Speed and memory, as ratios against something named, measured in one interleaved run: these machines are noisy."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # PyTorch's profiler would write a line for every start and stop
