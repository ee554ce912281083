"""The model card of an exported encoder: what it is, how it scores over how many seeds, and what is not known of it."""

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined

from cse_bench.config.schema import Backbone
from cse_bench.encoders.stock_directory import Written
from cse_bench.results.collect import collect
from cse_bench.results.report.vocabulary import PLUS_MINUS, metric

_TEMPLATE = "model_card.md.j2"
# What a card shows, in this order; `report` shows everything.
_SHOWN = (
    "sts/test/",
    "sts/test_clean/avg",
    "sts/dev/stsb",
    "transfer/test/",
    "transfer_fast/test/",
    "wiki_sections/test/accuracy",
    "lee/spearman",
)
_LICENCE = (
    "The weights derive from those of the backbone and keep its licence, which cse_bench does not know. What the "
    "licence of the training text allows is not known either. Look both up before you use this model or pass it on."
)
_STATUS = {
    "official code": "defined as the authors' published code defines it",
    "paper": "defined as the paper says",
    "own reading": "an own reading: not the authors' code; numbers that they published may not be reached",
    "baseline": "a baseline",
}


def sister_runs(run: Path) -> list[Mapping[str, Any]]:
    """The results of all finished runs beside a run that differ from it by their seed alone, itself among them.

    Args:
        run: directory of a finished run.
    """
    here = run.resolve()
    for block in collect([str(here.parent)]).blocks:
        for group in block.groups:
            if here in (one.directory.resolve() for one in group.runs):
                return [one.results for one in group.runs]
    # A newer copy of the same run lies beside it, and is the one that counts there.
    return [one.results for block in collect([str(here)]).blocks for group in block.groups for one in group.runs]


def model_card(
    results: Mapping[str, Any],
    sisters: Sequence[Mapping[str, Any]],
    written: Written,
    *,
    backbone: Backbone,
    place: str,
    remarks: Sequence[str],
) -> str:
    """The card as Markdown with the header that the Hub reads.

    Args:
        results: `results.json` of the run.
        sisters: those of all seeds, this one among them.
        written: what was exported.
        backbone: the entry the encoder was built from.
        place: what a reader gives to `SentenceTransformer`.
        remarks: further limits, in sentences.
    """
    method = results["method"]
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 (Markdown, not HTML)
        .from_string((files("cse_bench.results") / _TEMPLATE).read_text())
        .render(
            header=_header(backbone),
            title=f"{method['name']} on {results['backbone']}",
            summary=f"Maps a sentence to {written.width} numbers whose cosines say how similar two sentences are. "
            "Trained and measured with cse_bench.",
            place=place,
            how_read=_how_read(results, written, backbone),
            alone=_alone(written),
            plain=_plain(written, place),
            facts=_facts(results, backbone, written),
            scores=_scores(results, sisters),
            limits=[*written.limits, *remarks, *_general_limits(results, written)],
            licence=_LICENCE,
            made=_made(results, written),
        )
    )


def _header(backbone: Backbone) -> str:
    header: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "cse_bench"],
        "license": "unknown",
    }
    if backbone.source == "hub":
        header["base_model"] = backbone.hub_id
    return str(yaml.safe_dump(header, sort_keys=False))


def _how_read(results: Mapping[str, Any], written: Written, backbone: Backbone) -> str:
    lines = [f"Pooling: `{results['pooling']}`. Longest text: {written.max_tokens} tokens."]
    if backbone.prompt is not None:
        inside = (
            "The tokenizer writes it around every text by itself."
            if written.prompt_is_inside
            else "sentence-transformers puts it before every text by itself (its default prompt); plain Transformers "
            "does not."
        )
        lines.append(f"Prompt: `{backbone.prompt}`. {inside}")
    if backbone.clean_text != "none":
        lines.append(
            "Before that it adds a full stop to a text without an end mark, makes double quotes single, and makes a "
            "final question mark a full stop."
        )
    if written.towers:
        lines.append(
            "Two encoders were trained together. Each is a model of its own, and the vector is the sum of both, not "
            "normalised before: `h = h_1 + h_2`. The root directory computes the sum; a text costs two forwards."
        )
    lines.append(f"Modules, all of them shipped with sentence-transformers: {', '.join(written.modules)}.")
    return "\n".join(lines)


def _alone(written: Written) -> str:
    """What a reader without sentence-transformers has to know: whether the bodies alone are the model."""
    if written.towers:
        return (
            "With plain Transformers each body can be read by itself, which is not this model: its vector is made of "
            "both."
        )
    if _is_read_off(written):
        return "With plain Transformers:"
    behind = ", ".join(dict.fromkeys(written.modules[1:]))
    return (
        "With plain Transformers the body can be read, which alone is not this model: its vector is what the modules "
        f"behind the body ({behind}) make of the states, and those need sentence-transformers."
    )


def _is_read_off(written: Written) -> bool:
    """Whether the vector is a plain function of the body's states, without weights of its own."""
    return not written.towers and set(written.modules) <= {"Transformer", "WeightedLayerPooling", "Pooling"}


def _plain(written: Written, place: str) -> str:
    options = "".join(f", {name}={value!r}" for name, value in written.options.items())
    parts = ["from transformers import AutoModel, AutoTokenizer", ""]
    for number, folder in enumerate(written.towers or [""], start=1):
        at = f'"{place}", subfolder="{folder}"' if folder else f'"{place}"'
        name = f"_{number}" if folder else ""
        parts += [
            f"tokenizer{name} = AutoTokenizer.from_pretrained({at})",
            f"body{name} = AutoModel.from_pretrained({at}{options})",
        ]
    first = "_1" if written.towers else ""
    parts.append(f'tokens = tokenizer{first}(["A sentence."], return_tensors="pt")')
    if not _is_read_off(written):
        parts.append(f"states = body{first}(**tokens).last_hidden_state  # of the body alone")
    elif "WeightedLayerPooling" in written.modules:
        parts += [
            "output = body(**tokens, output_hidden_states=True)",
            "states = (output.hidden_states[1] + output.last_hidden_state) / 2",
            "vectors = states.mean(dim=1)  # of sentences of one length; otherwise over the real tokens alone",
        ]
    else:
        parts.append("states = body(**tokens).last_hidden_state  # to be pooled as above")
    return "\n".join(parts)


def _facts(results: Mapping[str, Any], backbone: Backbone, written: Written) -> str:
    method, corpus, selection = results["method"], (results.get("data") or {}).get("corpus"), results.get("selection")
    lines = [
        f"method: `{method['name']}`, {_STATUS.get(method['status'], method['status'])} (status: {method['status']})",
        f"citation: {method['citation'] or 'none'}",
        f"backbone: `{results['backbone']}`{_origin(backbone)}; weights in {written.dtype}",
    ]
    if corpus:
        checksum = corpus.get("sha256", "unknown")
        lines.append(
            f"training text: `{corpus['name']}`, {corpus['sentences']:,} sentences without labels, sha256 `{checksum}`"
        )
    if results["steps"]:
        batch = results["config"]["data"]["global_batch_size"]
        lines.append(
            f"training: {results['steps']:,} steps of {batch} sentences, seed {results['seed']}, precision "
            f"{results['precision']['training']}"
        )
    if selection and selection["value"] is not None:
        lines.append(f"selected by: `{selection['metric']}`, {selection['value']:.2f} at step {selection['step']}")
    return "\n".join(f"* {line}" for line in lines)


def _origin(backbone: Backbone) -> str:
    if backbone.source == "hub":
        return f", `{backbone.hub_id}` on the Hub, revision {backbone.revision or 'main'}"
    if backbone.source == "package":
        assert backbone.package is not None
        return f", from the Python package {backbone.package.name} {backbone.package.version}"
    return ", random weights: a test, not a model" if backbone.source == "random" else ", from a local directory"


def _scores(results: Mapping[str, Any], sisters: Sequence[Mapping[str, Any]]) -> str:
    there = results["metrics"]
    names = [
        name for prefix in _SHOWN for name in sorted(there) if name.startswith(prefix) and math.isfinite(there[name])
    ]
    if not names:
        return "Not evaluated."
    seeds = sorted(int(one["seed"]) for one in sisters)
    is_spread = len(seeds) > 1
    heads = [
        "score",
        f"this model (seed {results['seed']})",
        *([f"mean {PLUS_MINUS} standard deviation, {len(seeds)} seeds"] if is_spread else []),
    ]
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name in names:
        shown = metric(name)
        cells = [shown.title, f"{there[name]:.2f}"]
        values = [one["metrics"][name] for one in sisters if name in one["metrics"]]
        if is_spread:
            cells.append(f"{np.mean(values):.2f} {PLUS_MINUS} {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")
        rows.append(f"| {' | '.join(cells)} |")
    spread = (
        f"Seeds: {', '.join(map(str, seeds))}. A seed is not a result: compare methods by mean and standard deviation "
        "over seeds."
        if is_spread
        else "One seed: how much these numbers change from seed to seed is not known."
    )
    versions = ", ".join(
        f"{name} {version}" for name, version in sorted(results["evaluation"]["task_versions"].items())
    )
    labels = [f"`{prefix}`: {words}" for prefix, words in sorted(results["evaluation"]["labels"].items())]
    footer = f"{spread} Embeddings in {results['precision']['evaluation']}; cse_bench tasks: {versions}."
    return "\n".join(
        [
            *rows,
            "",
            footer,
            "",
            *(f"* {label}" for label in labels if any(name.startswith(label[1:].split("`")[0]) for name in names)),
        ]
    ).rstrip()


def _general_limits(results: Mapping[str, Any], written: Written) -> list[str]:
    limits = [
        f"Compared with the original on {written.sentences} sentences: the vectors differ by at most "
        f"{written.difference:.1e} of their length.",
        "Trained without labels on similarity of sentences. Search with short queries for long documents was neither "
        "trained nor measured.",
        "Languages other than those of the training text, and biases of text and backbone, were not examined.",
    ]
    if (selection := results.get("selection")) and selection["value"] is not None:
        limits.append(f"The checkpoint was chosen by `{selection['metric']}`, so that score is optimistic.")
    return limits


def _made(results: Mapping[str, Any], written: Written) -> str:
    environment = results.get("environment") or {}
    lines = [f"run `{results['name']}`, identity `{results['identity']}`"]
    if revision := environment.get("git", {}).get("commit") if isinstance(environment.get("git"), Mapping) else None:
        lines.append(f"cse_bench at commit {revision}")
    lines.append("written by " + ", ".join(f"{name} {number}" for name, number in written.versions.items()))
    return "\n".join(f"* {line}" for line in lines)
