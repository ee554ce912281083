"""Readers of the seven transfer tasks in SentEval's form, each file checked against its counts and its sha256.

SentEval (Conneau and Kiela 2018, arXiv 1803.05449) tokenises these texts; other copies give other numbers, and a
damaged copy gives a plausible one (a SUBJ file was once broken for years without anybody noticing). So every file is
asserted whole: examples per class first, because of two true messages about a cut file a reader understands that one,
then the checksum, which also sees a flipped byte or a changed encoding.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cse_bench.errors import DataError
from cse_bench.evaluation.senteval_folder import HUB_FILE, HUB_REPOSITORY, FileSet, SentEvalFolder


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a file must be.

    Attributes:
        counts: Examples by class.
        encoding: As SentEval reads it.
        sha256: Of its bytes.
    """

    counts: Mapping[int, int]
    encoding: str
    sha256: str


# SentEval numbers TREC's coarse classes so; the numbers decide the order of examples within the folds.
TREC_CLASSES = {"ABBR": 0, "DESC": 1, "ENTY": 2, "HUM": 3, "LOC": 4, "NUM": 5}

# Class 1 first, as SentEval joins them; its first class of SUBJ is `objective`.
BINARY = {
    "mr": ("MR/rt-polarity.pos", "MR/rt-polarity.neg"),
    "cr": ("CR/custrev.pos", "CR/custrev.neg"),
    "subj": ("SUBJ/subj.objective", "SUBJ/subj.subjective"),
    "mpqa": ("MPQA/mpqa.pos", "MPQA/mpqa.neg"),
}
SST2 = {split: f"SST/binary/sentiment-{split}" for split in ("train", "dev", "test")}
TREC = {"train": "TREC/train_5500.label", "test": "TREC/TREC_10.label"}
MRPC = {split: f"MRPC/msr_paraphrase_{split}.txt" for split in ("train", "test")}

FILES: dict[str, FileFacts] = {
    "MR/rt-polarity.pos": FileFacts(
        counts={1: 5331},
        encoding="latin-1",
        sha256="34e5b0da2d491e46b700b00afe735aaae0962bcfe4f7f22b2d8077e714fa370f",
    ),
    "MR/rt-polarity.neg": FileFacts(
        counts={0: 5331},
        encoding="latin-1",
        sha256="c4ac36eaa8adc8ee31c31f69594bfbe68d83ef5b6db53f1f19b28c0be52f3999",
    ),
    "CR/custrev.pos": FileFacts(
        counts={1: 2407},
        encoding="latin-1",
        sha256="91a20a4ffeb5d38a39a4087bb247e16538aff21e7d621ae59738379f39f21732",
    ),
    "CR/custrev.neg": FileFacts(
        counts={0: 1368},
        encoding="latin-1",
        sha256="ec94532766f6f962094841ab3bee2ad6f232f996c3756825a91e78bcc294750f",
    ),
    "SUBJ/subj.objective": FileFacts(
        counts={1: 5000},
        encoding="latin-1",
        sha256="d8ccd43f1674f1c17e4ab717564e3561cfb719b0db4cfb19e5677427c68ff8a1",
    ),
    "SUBJ/subj.subjective": FileFacts(
        counts={0: 5000},
        encoding="latin-1",
        sha256="274c2ffe59c204dc4df779848561786f59a98cc20dda3cfdd7d9f76a4f730710",
    ),
    "MPQA/mpqa.pos": FileFacts(
        counts={1: 3312},
        encoding="latin-1",
        sha256="7487dbb74c77383e60b292845495163a9e21fb70a4fdacdda933413e43163f0d",
    ),
    "MPQA/mpqa.neg": FileFacts(
        counts={0: 7294},
        encoding="latin-1",
        sha256="8da6e035fa4cea02f0555091096b29a6b3995ff0adf41fad25008dcee066b79e",
    ),
    "SST/binary/sentiment-train": FileFacts(
        counts={0: 29780, 1: 37569},
        encoding="utf-8",
        sha256="10a92a297ec38e262386e5a2713b4bc70e5d18ced88b7f54bd171a26e5b34ab5",
    ),
    "SST/binary/sentiment-dev": FileFacts(
        counts={0: 428, 1: 444},
        encoding="utf-8",
        sha256="9a6c7403b71a9b762158387afe4431253ae10cdfb2319b5275289f3766f48291",
    ),
    "SST/binary/sentiment-test": FileFacts(
        counts={0: 912, 1: 909},
        encoding="utf-8",
        sha256="4fefd1cd67526cf87ebc7fafc3afc21cc7cfa6ae53b45e74f77f9456e3c62752",
    ),
    "TREC/train_5500.label": FileFacts(
        counts={0: 86, 1: 1162, 2: 1250, 3: 1223, 4: 835, 5: 896},
        encoding="latin-1",  # one byte of it is no UTF-8
        sha256="8bd6e79493f43bbd22c364587366a1dced54e1e31259eaa92721a0f526031116",
    ),
    "TREC/TREC_10.label": FileFacts(
        counts={0: 9, 1: 138, 2: 94, 3: 65, 4: 81, 5: 113},
        encoding="latin-1",
        sha256="86ad53c8fc9d397ab2f4be7c967d8efb470b260140557d3e57afad69d1b88b76",
    ),
    "MRPC/msr_paraphrase_train.txt": FileFacts(
        counts={0: 1323, 1: 2753},
        encoding="utf-8-sig",  # opens with a byte-order mark
        sha256="60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
    ),
    "MRPC/msr_paraphrase_test.txt": FileFacts(
        counts={0: 578, 1: 1147},
        encoding="utf-8-sig",
        sha256="a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
    ),
}

HOW_TO_GET = (
    "set paths.data (environment variable CSE_BENCH_DATA) to a folder that holds transfer/MR, CR, SUBJ, MPQA, "
    "SST/binary, TREC and MRPC in SentEval's form (or to SentEval's data/downstream), "
    f"or go online with paths.data=null to fetch {HUB_FILE} of the Hub dataset {HUB_REPOSITORY}"
)
RESTORE = "restore SentEval's tokenised file, or unset paths.data to fetch it from the Hub"

TRANSFER = FileSet(
    what="transfer",
    sha256={file: facts.sha256 for file, facts in FILES.items()},
    parents=("transfer", ""),
    cache="senteval_transfer",
    how_to_get=HOW_TO_GET,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Labelled examples in the order of the files.

    Attributes:
        columns: One list of sentences, or two for a task on pairs.
        labels: `(n,)` classes.
    """

    columns: tuple[list[str], ...]
    labels: npt.NDArray[np.int64]


def parse_sentences(text: str, *, label: int) -> Examples:
    """One sentence a line, all of one class. A blank line is an example with an empty sentence, as in SentEval."""
    sentences = [_rejoined(line) for line in _lines(text)]
    return Examples(columns=(sentences,), labels=np.full(len(sentences), label, dtype=np.int64))


def parse_sst2(text: str, *, file: str) -> Examples:
    """Lines `sentence TAB class`.

    Raises:
        DataError: Names file and line.
    """
    rows = [_fields(line, count=2, where=f"{file}, line {n}") for n, line in enumerate(_lines(text), start=1)]
    return _examples([(label, [sentence]) for sentence, label in rows], {"0": 0, "1": 1}, file=file)


def parse_trec(text: str, *, file: str) -> Examples:
    """Lines `coarse:fine question`; the coarse class is the label.

    Raises:
        DataError: Names file and line.
    """
    rows = []
    for line in _lines(text):
        label, _, question = line.partition(" ")
        rows.append((label.partition(":")[0], [question]))
    return _examples(rows, TREC_CLASSES, file=file)


def parse_mrpc(text: str, *, file: str) -> Examples:
    """A header, then lines `class TAB id TAB id TAB sentence TAB sentence`. Quotes are literal.

    Raises:
        DataError: Names file and line.
    """
    lines = _lines(text)[1:]
    rows = [_fields(line, count=5, where=f"{file}, line {n}") for n, line in enumerate(lines, start=2)]
    return _examples([(row[0], row[3:]) for row in rows], {"0": 0, "1": 1}, file=file, first_line=2)


class TransferFiles:
    """The checked transfer files of one folder; finding and reading happen at the first access."""

    def __init__(self, *, data: str | None, cache: str) -> None:
        """Remembers where to look.

        Args:
            data: Folder that holds `transfer/`, or a SentEval `downstream` folder; None takes the files from the Hub.
            cache: Folder for files from the Hub.
        """
        self._folder = SentEvalFolder(TRANSFER, data=data, cache=cache)

    def binary(self, task: str) -> Examples:
        """`mr`, `cr`, `subj` or `mpqa`: first the examples of class 1, then those of class 0.

        Raises:
            DataError: A file is missing, damaged, or not SentEval's.
        """
        parts = [self._checked(file, label) for file, label in zip(BINARY[task], (1, 0), strict=True)]
        return Examples(
            columns=([sentence for part in parts for sentence in part.columns[0]],),
            labels=np.concatenate([part.labels for part in parts]),
        )

    def split(self, task: str, split: str) -> Examples:
        """A split of `sst2` (train, dev, test), `trec` or `mrpc` (train, test).

        Raises:
            DataError: The file is missing, damaged, or not SentEval's.
        """
        return self._checked({"sst2": SST2, "trec": TREC, "mrpc": MRPC}[task][split])

    def sources(self) -> dict[str, str]:
        """sha256 of every file read so far, by folder and name, the same for every layout of the root."""
        return dict(self._folder.sources)

    def _checked(self, file: str, label: int = -1) -> Examples:
        content, path = self._folder.read(file)
        facts = FILES[file]
        try:
            text = content.decode(facts.encoding)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not {facts.encoding} at byte {error.start}: {RESTORE}") from error
        examples = _parse(text, file=file, path=path, label=label)
        counts = dict(sorted(Counter(examples.labels.tolist()).items()))
        if counts != facts.counts:
            raise DataError(f"{path}: found {_told(counts)}, expected {_told(facts.counts)}: {RESTORE}")
        if (found := self._folder.sources[file]) != facts.sha256:
            raise DataError(
                f"{path}: found sha256 {found}, expected {facts.sha256}: some bytes are not SentEval's (damaged, "
                f"another encoding, or raw text), which gives other numbers than the papers': {RESTORE}"
            )
        return examples


def _parse(text: str, *, file: str, path: Path, label: int) -> Examples:
    if file in SST2.values():
        return parse_sst2(text, file=str(path))
    if file in TREC.values():
        return parse_trec(text, file=str(path))
    if file in MRPC.values():
        return parse_mrpc(text, file=str(path))
    return parse_sentences(text, label=label)


def _lines(text: str) -> list[str]:
    # Not splitlines(): it also splits at characters that may stand inside a sentence.
    return text.removesuffix("\n").split("\n")


def _rejoined(sentence: str) -> str:
    # SentEval splits each sentence at white space and SimCSE's evaluator joins the words with one space.
    return " ".join(sentence.split())


def _fields(line: str, *, count: int, where: str) -> list[str]:
    fields = line.split("\t")
    if len(fields) != count:
        raise DataError(f"{where}: found {len(fields)} tab-separated fields, expected {count}: {RESTORE}")
    return fields


def _examples(
    rows: Sequence[tuple[str, list[str]]], classes: Mapping[str, int], *, file: str, first_line: int = 1
) -> Examples:
    columns: list[list[str]] = [[] for _ in rows[0][1]] if rows else [[]]
    labels = []
    for line, (label, sentences) in enumerate(rows, start=first_line):
        if label not in classes:
            raise DataError(f"{file}, line {line}: found class {label!r}, expected {', '.join(classes)}: {RESTORE}")
        labels.append(classes[label])
        for column, sentence in zip(columns, sentences, strict=True):
            column.append(_rejoined(sentence))
            if not column[-1]:
                raise DataError(f"{file}, line {line}: found an empty sentence: {RESTORE}")
    return Examples(columns=tuple(columns), labels=np.array(labels, dtype=np.int64))


def _told(counts: Mapping[int, int]) -> str:
    by_class = ", ".join(f"{number} of class {label}" for label, number in counts.items())
    return f"{sum(counts.values())} examples ({by_class})"
