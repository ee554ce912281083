"""cse_bench: unsupervised contrastive sentence embedding methods, compared honestly.

From Python: `Encoder` and `load_run` for what is trained, `compose_config` and `build_training` to train with a
Lightning Trainer of one's own. Each is imported when it is first asked for: `import cse_bench` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cse_bench.encoders.encoder import Encoder as Encoder
    from cse_bench.library import Run as Run
    from cse_bench.library import build_training as build_training
    from cse_bench.library import compose_config as compose_config
    from cse_bench.library import load_run as load_run

__version__ = "0.1.0"

_PUBLIC = {
    "Encoder": "cse_bench.encoders.encoder",
    "Run": "cse_bench.library",
    "build_training": "cse_bench.library",
    "compose_config": "cse_bench.library",
    "load_run": "cse_bench.library",
}
__all__ = ["Encoder", "Run", "__version__", "build_training", "compose_config", "load_run"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'cse_bench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
