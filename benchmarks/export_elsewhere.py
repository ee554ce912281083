"""Do exported encoders give the same vectors where cse_bench is not installed?

    python -m venv /tmp/elsewhere && /tmp/elsewhere/bin/pip install sentence-transformers
    python -m benchmarks.export_elsewhere /tmp/elsewhere/bin/python outputs

Exports one finished run of every method found below the folders, opens each with that interpreter, and prints the
largest distance between a vector there and here, over the length of the one here.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cse_bench.config.schema import ExportConfig
from cse_bench.encoders.loading import open_encoder
from cse_bench.export import export
from cse_bench.results.collect import collect

SENTENCES = [
    "A man is playing a guitar.",
    "Someone plays an instrument",
    "Why not?",
    'He said "no", naturally.',
    "naïve café, 日本",
    "In 1920 the committee decided that the bridge over the river should be repaired before winter came.",
    " ",
]
_ELSEWHERE = """
import importlib.util, sys
assert importlib.util.find_spec("cse_bench") is None, "cse_bench is installed there"
import numpy, sentence_transformers
model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")
numpy.save(sys.argv[2], model.encode(sys.argv[3:], show_progress_bar=False))
print(sentence_transformers.__version__, len(model))
"""


def main() -> None:
    """One line per method."""
    if len(sys.argv) < 3:
        sys.exit("usage: python -m benchmarks.export_elsewhere PYTHON FOLDER_OF_RUNS ...")
    python, *folders = sys.argv[1:]
    first = {
        group.label: group.runs[0].directory
        for block in collect(folders).blocks
        for group in block.groups
        if not group.is_backbone
    }
    worst = 0.0
    for label, directory in first.items():
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "exported")
            export(
                ExportConfig(
                    run=str(directory),
                    to=str(target),
                    adapter_weights="merge",
                    overwrite=False,
                    push_to_hub=None,
                    private=True,
                )
            )
            here = open_encoder(str(directory)).encode(SENTENCES)
            command = [python, "-I", "-c", _ELSEWHERE, str(target), f"{folder}/there.npy", *SENTENCES]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{label}: {done.stderr}")
            there = np.load(f"{folder}/there.npy")
        difference = float(np.max(np.linalg.norm(there - here, axis=1) / np.linalg.norm(here, axis=1)))
        worst = max(worst, difference)
        version, modules = done.stdout.split()[-2:]
        print(f"{label}: {difference:.1e} (sentence-transformers {version}, {modules} modules)", flush=True)
    print(f"largest: {worst:.1e}")


if __name__ == "__main__":
    main()
