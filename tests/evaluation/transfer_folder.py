"""A small folder in the layout of the transfer tasks, with its own table of what the files must be."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cse_bench.evaluation import transfer_files
from cse_bench.evaluation.transfer_files import BINARY, FILES, MRPC, SST2, TREC, TREC_CLASSES, FileFacts

WORDS = ("good bad plot film acting tedious fresh dull witty slow who where when how many city river year actor song "
         "the a of and in is was it this that with for on as by from at an be has").split()  # fmt: skip


def invent(generator: np.random.Generator, label: int, length: int) -> str:
    """Words at random, a quarter of them typical of the class."""
    typical = WORDS[3 * label : 3 * label + 3]
    return " ".join(str(generator.choice(typical if generator.random() < 0.25 else WORDS)) for _ in range(length))


def contents(*, per_class: int, seed: int = 0) -> dict[str, str]:
    """Text of each file. No two sentences of a file have the same number of words."""
    generator = np.random.default_rng(seed)
    texts: dict[str, str] = {}
    for files in BINARY.values():
        for label, file in zip((1, 0), files, strict=True):
            lengths = 3 + 2 * generator.permutation(per_class) + label
            texts[file] = "".join(invent(generator, label, length) + " \n" for length in lengths)
    for file in (*SST2.values(), *TREC.values(), *MRPC.values()):
        is_trec = file in TREC.values()
        count = (6 if is_trec else 2) * per_class
        labels = generator.permutation(np.arange(count) % (6 if is_trec else 2))
        lines = []
        for label, length in zip(labels.tolist(), 3 + generator.permutation(count), strict=True):
            sentence = invent(generator, label, length)
            if is_trec:
                lines.append(f"{list(TREC_CLASSES)[label]}:fine {sentence}")
            elif file in SST2.values():
                lines.append(f"{sentence} \t{label}")
            else:
                lines.append(f"{label}\t1\t2\t{sentence}\t{sentence if label else invent(generator, 0, 4)}")
        texts[file] = "\n".join(lines) + "\n"
    for file in MRPC.values():
        texts[file] = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + texts[file]
    return texts


def write(folder: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes the files below `folder/transfer`, and makes them what is expected."""
    for file, text in texts.items():
        content = text.encode("latin-1" if FILES[file].encoding == "latin-1" else "utf-8")
        path = folder / "transfer" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expect(file, content, monkeypatch)
    return folder


def expect(file: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this content the right one."""
    facts = FILES[file]
    label = next((label for files in BINARY.values() for label, f in zip((1, 0), files, strict=True) if f == file), -1)
    text = content.decode(facts.encoding)
    examples = transfer_files._parse(text, file=file, path=Path(file), label=label)
    monkeypatch.setitem(
        FILES,
        file,
        FileFacts(
            counts=dict(Counter(examples.labels.tolist())),
            encoding=facts.encoding,
            sha256=hashlib.sha256(content).hexdigest(),
        ),
    )
