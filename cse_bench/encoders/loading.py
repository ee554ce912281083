"""Any encoder by one name: a run directory, a saved encoder, a sentence-transformers or Transformers directory, or a Hub id."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from cse_bench.config.schema import Backbone
from cse_bench.encoders.architecture import is_decoder, load_config
from cse_bench.encoders.artifact import is_saved_encoder, load_encoder
from cse_bench.encoders.encoder import Encoder, build_encoder
from cse_bench.errors import EncoderError

_ST_POOLING = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean", "lasttoken": "last_token"}


def open_encoder(
    model: str,
    *,
    pooling: str | None = None,
    prompt: str | None = None,
    padding_side: str | None = None,
    dtype: str | None = None,
    attention: str = "sdpa",
    trust_remote_code: bool = False,
) -> Encoder:
    """Opens an encoder the way it was made to be used.

    A directory that says how its vectors are read (a run, a saved encoder, sentence-transformers) decides pooling and prompt itself, and a
    contradicting argument is refused. A plain Transformers model does not say, so `pooling` is then required.

    Args:
        model: run directory, local directory or Hub id.
        pooling: only for models that do not state theirs.
        prompt: likewise.
        padding_side: likewise.
        dtype: of the weights; None: as saved by a run, else float32.
        attention: kernel.
        trust_remote_code: run code that comes with the model.

    Raises:
        EncoderError: nothing there, or asked for in a way it was not trained.
    """
    directory = Path(model)
    if (directory / "results.json").is_file() and not is_saved_encoder(directory):
        if not is_saved_encoder(directory / "model"):
            raise EncoderError(f"the run '{model}' has no saved encoder in {directory / 'model'}: it did not finish, or trained nothing")
        directory = directory / "model"
    if is_saved_encoder(directory):
        encoder = load_encoder(directory)
        for name, given, saved in (
            ("pooling", pooling, encoder.pooling),
            ("prompt", prompt, encoder.tokenizer.prompt),
            ("padding_side", padding_side, encoder.padding_side),
        ):
            if given is not None and given != saved:
                raise EncoderError(f"'{model}' was trained with {name}={saved} and is only evaluated so; leave out {name}={given}")
        return encoder
    if not directory.is_dir():
        directory = _download(model)
    stated: dict[str, Any] = {}
    if (directory / "modules.json").is_file():
        stated = _sentence_transformers(directory)
        directory = stated.pop("directory")
    if not (directory / "config.json").is_file():
        raise EncoderError(f"'{model}' is not a model directory: no config.json, modules.json, results.json or sentence_encoder.json")
    for name, given in (("pooling", pooling), ("prompt", prompt)):
        if given is not None and name in stated and given != stated[name]:
            raise EncoderError(f"'{model}' states {name}={stated[name]} itself; leave out {name}={given}")
    pooling = stated.get("pooling", pooling)
    if pooling is None:
        raise EncoderError(f"'{model}' does not say how its sentence vector is read; add pooling=cls|mean|first_last_mean|last_token")
    config = load_config(str(directory), trust_remote_code=trust_remote_code)
    family = "decoder" if is_decoder(config) else "encoder"
    encoder = build_encoder(
        Backbone(
            name=Path(model).name,
            family=family,
            source="local",
            hub_id=None,
            revision=None,
            path=str(directory),
            package=None,
            pooling=pooling,
            prompt=stated.get("prompt", prompt),
            adapter=None,
            dtype=dtype or "float32",
            attention=attention,
            padding_side=padding_side or "right",
            dropout=None,
            trust_remote_code=trust_remote_code,
            architecture=None,
        )
    )
    if limit := stated.get("max_positions"):
        encoder.tokenizer.max_positions = min(limit, encoder.tokenizer.max_positions)
    encoder.provenance = {"source": "model", "model": model}
    return encoder.eval()


def _download(model: str) -> Path:
    """A Hub model as a local directory; only configs, tokenizers and weights are fetched."""
    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(
            f"model='{model}' is neither a directory here nor a model that the Hub gives: {str(error).strip().splitlines()[0]}"
        ) from error


def _sentence_transformers(directory: Path) -> dict[str, Any]:
    """Pooling, prompt and length limit of a sentence-transformers directory.

    Raises:
        EncoderError: it holds a module other than Transformer, Pooling and Normalize, which would change the vectors.
    """
    stated: dict[str, Any] = {"directory": directory}
    for module in json.loads((directory / "modules.json").read_text()):
        kind = module["type"].rpartition(".")[2]
        folder = directory / module["path"]
        if kind == "Transformer":
            stated["directory"] = folder
            for name in ("sentence_bert_config.json", "config.json"):
                limit = json.loads((folder / name).read_text()).get("max_seq_length") if (folder / name).is_file() else None
                if limit:
                    stated["max_positions"] = int(limit)
                    break
        elif kind == "Pooling":
            stated["pooling"] = _st_pooling(folder / "config.json")
        elif kind != "Normalize":  # Normalize scales vectors to length 1, which no cosine sees
            raise EncoderError(f"'{directory}' has a sentence-transformers module '{kind}', which cse_bench cannot apply")
    settings = directory / "config_sentence_transformers.json"
    if settings.is_file():
        content = json.loads(settings.read_text())
        if name := content.get("default_prompt_name"):
            stated["prompt"] = content["prompts"][name] + "{sentence}"
    return stated


def _st_pooling(path: Path) -> str:
    content = json.loads(path.read_text())
    modes = content.get("pooling_mode") or [
        key.removeprefix("pooling_mode_") for key, value in content.items() if key.startswith("pooling_mode_") and value is True
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in _ST_POOLING:
        raise EncoderError(f"{path}: pooling {modes} is not one of {', '.join(sorted(set(_ST_POOLING.values())))}")
    return _ST_POOLING[modes[0]]
