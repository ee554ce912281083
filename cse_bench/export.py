"""`python -m cse_bench.export run=... to=...`: a run's encoder for sentence-transformers, without cse_bench."""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import Backbone, ExportConfig, LoraAdapter, QLoraAdapter
from cse_bench.errors import ConfigError, first_line

_FORMAT = 1


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="export")
def compose_and_export(config: DictConfig) -> None:
    """Composes, checks, exports, prints."""
    from cse_bench.config.validate import validate_export
    from cse_bench.results.tables import print_lines

    with past_hydra():
        settings = validate_export(config)
        facts = export(settings)
        print_lines(
            [
                f"exported: {settings.to} ({', '.join(facts['modules'])})",
                f"read back and compared on {facts['compared_sentences']} sentences: largest difference "
                f"{facts['largest_difference']:.1e} of a vector's length",
                *(f"note: {limit}" for limit in facts["limits"]),
                *([f"pushed: https://huggingface.co/{settings.push_to_hub}"] if settings.push_to_hub else []),
            ]
        )


def export(config: ExportConfig) -> dict[str, Any]:
    """Writes the encoder of a finished run as a directory that needs sentence-transformers alone.

    Returns:
        The content of the export's own record, `cse_bench_export.json`.

    Raises:
        ConfigError: no finished run with an encoder, a directory that must not be replaced, or an upload that failed.
        EncoderError: no stock modules compute its vectors, or the encoder cannot be loaded.
    """
    run, target = Path(config.run).expanduser(), Path(config.to).expanduser()
    results = _finished_run(run)
    _check_target(target, overwrite=config.overwrite)
    _require_sentence_transformers()
    if config.push_to_hub is not None:
        _check_repository(config.push_to_hub)
    from cse_bench.encoders.artifact import load_encoder, read_description, replace_directory
    from cse_bench.encoders.stock_directory import write_stock_directory
    from cse_bench.encoders.stock_encoder import EXPORT_FACTS
    from cse_bench.results.model_card import model_card, sister_runs
    from cse_bench.results.run_directory import cannot_write, write_json

    backbone = Backbone(**read_description(run / "model")["backbone"])
    _check_adapter(backbone, config.adapter_weights)
    quantised = isinstance(backbone.adapter, QLoraAdapter)
    encoder = load_encoder(run / "model", adapter=_whole(backbone.adapter) if quantised else None)
    target = target.resolve()
    temporary = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        written = write_stock_directory(encoder, temporary, backbone=backbone, adapter=config.adapter_weights)
        remarks = list(_remarks(backbone, config.adapter_weights))
        card = model_card(
            results,
            sister_runs(run),
            written,
            backbone=backbone,
            place=config.push_to_hub or target.name,
            remarks=remarks,
        )
        (temporary / "README.md").write_text(card)
        facts = {
            "format": _FORMAT,
            "run": results["name"],
            "identity": results["identity"],
            "method": results["method"]["name"],
            "status": results["method"]["status"],
            "adapter": config.adapter_weights if backbone.adapter else None,
            "modules": written.modules,
            "towers": written.towers,
            "largest_difference": written.difference,
            "compared_sentences": written.sentences,
            "limits": [*written.limits, *remarks],
            "versions": written.versions,
        }
        write_json(temporary / EXPORT_FACTS, facts, key="to")
        replace_directory(temporary, target)
    except OSError as error:
        raise cannot_write(target, error, key="to") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if config.push_to_hub is not None:
        _push(target, config.push_to_hub, config.private)
    return facts


def _finished_run(run: Path) -> Mapping[str, Any]:
    """The results of a run that is complete and kept an encoder."""
    from cse_bench.encoders.artifact import is_saved_encoder
    from cse_bench.results.run_directory import read_results

    results = read_results(run)
    if not results:
        if not run.is_dir():
            what = "there is no such directory"
        elif (run / "results.json").exists():
            what = "its results.json is damaged"
        elif (run.parent / "results.json").is_file():
            what = f"that is a part of a run; give run={run.parent}"
        else:
            what = "it has no results.json; give the directory that python -m cse_bench printed"
        raise ConfigError(f"run: '{run}' is not a run: {what}")
    status = results.get("status")
    if status != "complete":
        reason = f" ({results['error']})" if status == "failed" and "error" in results else ""
        raise ConfigError(f"run: '{run}' is {status}{reason}; finish it first: the command that started it goes on")
    if not is_saved_encoder(run / "model"):
        if results["method"].get("is_backbone"):
            raise ConfigError(
                f"run: '{run}' kept no encoder: {results['method']['name']} is the backbone {results['backbone']} as "
                "it is; use that, or export a run of a method"
            )
        raise ConfigError(f"run: the encoder of '{run}' is gone ({run / 'model'}); overwrite=true runs it again")
    return results


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConfigError(f"to: '{target}' is a {'link' if target.is_symlink() else 'file'}; give another directory")
    if not target.exists() or not any(target.iterdir()):
        return
    from cse_bench.encoders.stock_encoder import EXPORT_FACTS

    if not (target / EXPORT_FACTS).is_file():
        raise ConfigError(
            f"to: '{target}' holds something that is not an export, and is not replaced; give another one"
        )
    if not overwrite:
        raise ConfigError(f"to: '{target}' holds an earlier export; give another one, or overwrite=true")


def _require_sentence_transformers() -> None:
    try:
        import sentence_transformers  # noqa: F401
    except ImportError as error:
        raise ConfigError("export needs sentence-transformers: pip install 'cse_bench[export]'") from error


def _check_adapter(backbone: Backbone, choice: str) -> None:
    if choice == "merge":
        return
    if backbone.adapter is None:
        raise ConfigError("adapter=keep: this run trained all weights, there is no adapter; leave adapter=merge")
    if backbone.source not in ("hub", "local"):
        raise ConfigError(
            f"adapter=keep names the body instead of copying it, which needs one from the Hub or a local directory; "
            f"this one has source={backbone.source}; use adapter=merge"
        )


def _whole(adapter: LoraAdapter | None) -> LoraAdapter:
    """The same updates on a body that is not kept in four bits."""
    assert adapter is not None
    return LoraAdapter(
        type="lora", **{name: getattr(adapter, name) for name in ("r", "alpha", "dropout", "target_modules")}
    )


def _remarks(backbone: Backbone, choice: str) -> list[str]:
    remarks = []
    if isinstance(backbone.adapter, QLoraAdapter):
        remarks.append(
            "Trained, and measured above, on a body in four bits; the body here has its whole weights. Evaluate again."
        )
    if backbone.adapter is not None and choice == "merge" and backbone.dtype in ("bfloat16", "float16"):
        remarks.append(
            f"The low-rank updates were merged into weights in {backbone.dtype}, which rounds them. Evaluate again."
        )
    if backbone.adapter is not None and choice == "keep":
        body = backbone.hub_id if backbone.source == "hub" else backbone.path
        remarks.append(f"Holds low-rank updates alone: needs the package peft and the body `{body}`.")
    return remarks


def _check_repository(repository: str) -> None:
    """Told before anything is written: a name that cannot be, or nobody to push as."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"push_to_hub: {first_line(error)}; give ORGANISATION/NAME") from error
    if get_token() is None:
        raise ConfigError("push_to_hub: nobody is logged in to the Hub; run `hf auth login`, or set HF_TOKEN")


def _push(directory: Path, repository: str, private: bool) -> None:  # noqa: FBT001 (a config value)
    """One commit after which the repository holds the export and nothing else: a file of an earlier one would be read.

    Raises:
        ConfigError: the Hub cannot be reached, or the repository holds something that is not an export.
    """
    from huggingface_hub import HfApi

    from cse_bench.encoders.stock_encoder import EXPORT_FACTS

    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        there = set(api.list_repo_files(repository)) - {".gitattributes", "README.md"}
        if there and EXPORT_FACTS not in there:
            raise ValueError("it holds something that is not an export, and is not replaced; give another name")
        api.upload_folder(
            folder_path=directory, repo_id=repository, commit_message="Exported by cse_bench", delete_patterns="*"
        )
    except (OSError, ValueError) as error:  # of the Hub: HfHubHTTPError is an OSError
        raise ConfigError(
            f"push_to_hub: the export is whole in '{directory}', but '{repository}' did not take it: "
            f"{first_line(error)}"
        ) from error


def main() -> None:
    """The command line. Hydra takes `adapter=` for the group of that name, which only training has."""
    # Every choice, a wrong one too: the message then names merge and keep, and not the group's lora and qlora.
    sys.argv = [re.sub(r"\Aadapter=", "adapter_weights=", argument) for argument in sys.argv]
    command_line(compose_and_export, config_name="export")


if __name__ == "__main__":
    main()
