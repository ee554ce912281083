"""Any encoder by one name: a run, a saved encoder, a sentence-transformers or Transformers directory, or a Hub id."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from tokenizers import normalizers

from cse_bench.config.messages import nearest
from cse_bench.config.schema import Backbone
from cse_bench.encoders.artifact import is_saved_encoder, load_encoder
from cse_bench.encoders.encoder import Encoder, SentenceEncoder, build_encoder
from cse_bench.encoders.stock_encoder import EXPORT_FACTS, StockEncoder
from cse_bench.errors import EncoderError, first_line

# How sentence-transformers names what a pooling layer does: in older files flags, in newer ones a word.
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
) -> SentenceEncoder:
    """Opens an encoder the way it was made to be used.

    A directory that says how its vectors are read (a run, a saved encoder, sentence-transformers) decides pooling and
    prompt itself, and a contradicting argument is refused. A plain Transformers model does not say, so `pooling` is
    then required.

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
    directory = Path(model).expanduser()
    if not directory.is_dir():
        directory = _download(model, with_code=trust_remote_code)
    saved = _saved_encoder(directory)
    if saved is not None:
        encoder = load_encoder(saved, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code)
        made = {"pooling": encoder.pooling, "prompt": encoder.tokenizer.prompt}
        if isinstance(encoder, Encoder):
            made["padding_side"] = encoder.padding_side
        _refuse_contradictions(model, made, pooling=pooling, prompt=prompt, padding_side=padding_side)
        return encoder
    facts = directory / EXPORT_FACTS
    if facts.is_file() and StockEncoder.is_needed(_read_json(facts)):
        exported = StockEncoder(directory, dtype=dtype, attention=attention)
        made = {"pooling": exported.pooling, "prompt": exported.tokenizer.prompt}
        _refuse_contradictions(model, made, pooling=pooling, prompt=prompt)
        return exported.eval()
    stated: dict[str, Any] = {}
    if (directory / "modules.json").is_file():
        stated = _sentence_transformers(directory)
        directory = stated.pop("directory")
        _refuse_contradictions(model, stated, pooling=pooling, prompt=prompt)
    if not (directory / "config.json").is_file():
        raise EncoderError(
            f"'{model}' is not a model directory: no config.json, modules.json, results.json or sentence_encoder.json"
        )
    pooling = stated.get("pooling", pooling)
    if pooling is None:
        raise EncoderError(
            f"'{model}' does not say how its sentence vector is read; "
            "add pooling=cls|mean|first_last_mean|last_token, as it was trained"
        )
    encoder = build_encoder(
        Backbone(
            name=directory.resolve().name,
            family=None,
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
    limit = stated.get("max_positions", encoder.tokenizer.max_positions)
    encoder.tokenizer.max_positions = min(limit, encoder.tokenizer.max_positions)
    if stated.get("lower_case"):
        _lower_case(encoder)
    encoder.provenance = {"source": "model", "model": model}
    return encoder.eval()


def _saved_encoder(directory: Path) -> Path | None:
    """The saved encoder that is `directory`, or that the run in it left; None where there is neither.

    Raises:
        EncoderError: a run without a saved encoder.
    """
    for candidate in (directory, directory / "model"):
        if is_saved_encoder(candidate):
            return candidate
    if (directory / "results.json").is_file():
        raise EncoderError(
            f"the run '{directory}' has no saved encoder ({directory / 'model'}): it did not finish or trained nothing"
        )
    return None


def _refuse_contradictions(model: str, stated: dict[str, Any], **given: str | None) -> None:
    for name, value in given.items():
        if value is not None and name in stated and value != stated[name]:
            raise EncoderError(
                f"'{model}' was made with {name}={stated[name]} and is only evaluated so; leave out {name}={value}"
            )


def _download(model: str, *, with_code: bool) -> Path:
    """A Hub model as a local directory; only configs, tokenizers and weights are fetched, and code where asked for."""
    files = ["*.json", "*.txt", "*.jinja", "*.model", "*.safetensors", *(["*.py"] if with_code else [])]
    try:
        directory = Path(snapshot_download(model, allow_patterns=files))
        if not any(directory.rglob("*.safetensors")):
            # Many published SimCSE-like models predate safetensors; Transformers reads these with `weights_only`.
            directory = Path(snapshot_download(model, allow_patterns=[*files, "pytorch_model*.bin"]))
        return directory
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        parent = Path(model).expanduser().parent
        beside = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
        raise EncoderError(
            f"model='{model}' is neither a directory here nor a model that the Hub gives: {first_line(error)}"
            f"{nearest(Path(model).name, beside)}"
        ) from error


def _sentence_transformers(directory: Path) -> dict[str, Any]:
    """Pooling, prompt and length limit of a sentence-transformers directory, and where its Transformers model is.

    Raises:
        EncoderError: it holds a module other than Transformer, Pooling and Normalize, which would change the vectors.
    """
    stated: dict[str, Any] = {"directory": directory}
    for module in _read_json(directory / "modules.json"):
        kind = module["type"].rpartition(".")[2]
        folder = directory / module["path"]
        if kind == "Transformer":
            stated |= {"directory": folder, **_st_transformer(folder)}
        elif kind == "Pooling":
            stated["pooling"] = _st_pooling(folder / "config.json")
        elif kind != "Normalize":  # Normalize scales vectors to length 1, which no cosine sees
            raise EncoderError(
                f"'{directory}' has a sentence-transformers module '{kind}', which cse_bench cannot apply"
            )
    settings = directory / "config_sentence_transformers.json"
    if settings.is_file():
        content = _read_json(settings)
        if name := content.get("default_prompt_name"):
            stated["prompt"] = content["prompts"][name] + "{sentence}"
    return stated


def _st_transformer(folder: Path) -> dict[str, Any]:
    """What a sentence-transformers body says of its texts: where they are cut, and whether they are lower-cased.

    Raises:
        EncoderError: texts are put into a chat first.
    """
    settings: dict[str, Any] = {}
    # sentence_bert_config.json; in the oldest ones sentence_roberta_config.json and so on
    for file in sorted(folder.glob("sentence_*_config.json")):
        settings |= _read_json(file)
    if "message" in (settings.get("modality_config") or {}):
        raise EncoderError(
            f"'{folder}' has sentence-transformers write every text as a turn of a chat (modality_config), which "
            "cse_bench cannot apply"
        )
    stated: dict[str, Any] = {"lower_case": bool(settings.get("do_lower_case"))}
    tokenizer = folder / "tokenizer_config.json"
    # Since sentence-transformers 6 the tokenizer alone says it.
    limit = settings.get("max_seq_length") or (tokenizer.is_file() and _read_json(tokenizer).get("model_max_length"))
    return stated | ({"max_positions": int(limit)} if limit else {})


def _st_pooling(path: Path) -> str:
    content = _read_json(path)
    prefix = "pooling_mode_"
    flags = [key.removeprefix(prefix) for key, value in content.items() if key.startswith(prefix) and value is True]
    stated = content.get("pooling_mode") or flags
    modes = [stated] if isinstance(stated, str) else stated
    if len(modes) != 1 or modes[0] not in _ST_POOLING:
        raise EncoderError(f"{path}: pooling {modes} is not one of {', '.join(sorted(set(_ST_POOLING.values())))}")
    return _ST_POOLING[modes[0]]


def _lower_case(encoder: Encoder) -> None:
    backend = getattr(encoder.tokenizer.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise EncoderError(
            "do_lower_case, which the model's sentence_bert_config.json asks for, needs a fast tokenizer"
        )
    own = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} is missing or damaged: {first_line(error)}") from error
