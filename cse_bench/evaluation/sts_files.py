"""Readers of the seven STS tasks in SentEval's form, each file checked against `sts_tables`.

The `parse_*` functions turn text into pairs and name file and line of an error; `STSFiles` reads real files with them
and asserts the numbers of pairs and the checksums.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cse_bench.errors import DataError
from cse_bench.evaluation.senteval_folder import HUB_FILE, HUB_REPOSITORY, FileSet, SentEvalFolder
from cse_bench.evaluation.sts_tables import SHA256, STSB_PAIRS, SUBSETS, TEST_PAIRS

HOW_TO_GET = (
    "set paths.data (environment variable CSE_BENCH_DATA) to a folder that holds sts/STS12-en-test to "
    "sts/STS16-en-test, sts/STSBenchmark and sts/SICK in SentEval's form (or to SentEval's data/downstream), "
    f"or go online with paths.data=null to fetch {HUB_FILE} of the Hub dataset {HUB_REPOSITORY}"
)


STS = FileSet(
    what="STS",
    sha256=SHA256,
    # Our layout, SentEval's own (where SICK lies beside STS), and the folder of the tasks itself.
    parents=("sts", "STS", ""),
    cache="senteval",
    how_to_get=HOW_TO_GET,
)

RESTORE = "restore SentEval's file (tokenised; STS also lower-cased), or unset paths.data to fetch it from the Hub"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Graded sentence pairs of one sub-set or split: pair i is `left[i]`, `right[i]`, `gold[i]`."""

    name: str
    left: list[str]
    right: list[str]
    gold: npt.NDArray[np.float64]


def parse_sts(inputs: str, grades: str, *, name: str, inputs_file: str, grades_file: str) -> Pairs:
    """Pairs of a `STS.input.X.txt` (two sentences, tab between them) and its `STS.gs.X.txt` (grade 0-5, line for line).

    A blank grade means that nobody graded the pair: it is left out, not scored as 0 (STS15 and STS16 have thousands).

    Raises:
        DataError: Names file and line.
    """
    input_lines, grade_lines = _lines(inputs), _lines(grades)
    if len(input_lines) != len(grade_lines):
        raise DataError(
            f"{inputs_file} has {len(input_lines)} lines and {grades_file} {len(grade_lines)}; "
            f"expected equally many: {RESTORE}"
        )
    rows = []
    for number, (line, grade) in enumerate(zip(input_lines, grade_lines, strict=True), start=1):
        fields = _fields(line, at_least=2, where=f"{inputs_file}, line {number}")
        if grade.strip():
            rows.append((fields[0], fields[1], grade, number))
    return _pairs(rows, name=name, sentences_file=inputs_file, grades_file=grades_file, lowest=0.0)


def parse_stsb(text: str, *, name: str, file: str) -> Pairs:
    """Pairs of a `sts-*.csv`: tab-separated, no header; grade 0-5 in column 5, sentences in columns 6 and 7.

    Quotes are part of the sentences. A reader with CSV quoting would swallow tabs and lines between two of them.

    Raises:
        DataError: Names file and line.
    """
    rows = []
    for number, line in enumerate(_lines(text), start=1):
        fields = _fields(line, at_least=7, where=f"{file}, line {number}")
        rows.append((fields[5], fields[6], fields[4], number))
    return _pairs(rows, name=name, sentences_file=file, grades_file=file, lowest=0.0)


def parse_sick(text: str, *, name: str, file: str) -> Pairs:
    """Pairs of a `SICK_*.txt`: tab-separated, a header line; sentences in columns 2 and 3, relatedness 1-5 in column 4.

    Raises:
        DataError: Names file and line.
    """
    rows = []
    for number, line in enumerate(_lines(text)[1:], start=2):
        fields = _fields(line, at_least=4, where=f"{file}, line {number}")
        rows.append((fields[1], fields[2], fields[3], number))
    return _pairs(rows, name=name, sentences_file=file, grades_file=file, lowest=1.0)


class STSFiles:
    """The checked STS files of one folder; finding and reading happen at the first access."""

    def __init__(self, *, data: str | None, cache: str) -> None:
        """Remembers where to look.

        Args:
            data: Folder that holds `sts/`, or a SentEval `downstream` folder; None takes the files from the Hub.
            cache: Folder for files from the Hub.
        """
        self._folder = SentEvalFolder(STS, data=data, cache=cache)

    def test(self, task: str) -> list[Pairs]:
        """Sub-sets of a test task, a single one for `stsb` and `sickr`.

        Args:
            task: A key of `TEST_PAIRS`.

        Raises:
            DataError: A file is missing, damaged, or not SentEval's.
        """
        if task == "stsb":
            return [self.benchmark("test")]
        if task == "sickr":
            file = "SICK/SICK_test_annotated.txt"
            text, path = self._read(file)
            return [self._checked(parse_sick(text, name="sickr", file=str(path)), TEST_PAIRS["sickr"], files=[file])]
        if task not in SUBSETS:
            raise ValueError(f"{task!r} is no STS test task; expected one of {', '.join(TEST_PAIRS)}")
        folder = f"STS{task.removeprefix('sts')}-en-test"
        return [self._subset(folder, subset, pairs) for subset, pairs in SUBSETS[task].items()]

    def benchmark(self, split: str) -> Pairs:
        """STS-B `train`, `dev` or `test`.

        Raises:
            DataError: The file is missing, damaged, or not SentEval's.
        """
        if split not in STSB_PAIRS:
            raise ValueError(f"{split!r} is no split of STS-B; expected one of {', '.join(STSB_PAIRS)}")
        file = f"STSBenchmark/sts-{split}.csv"
        text, path = self._read(file)
        return self._checked(parse_stsb(text, name=f"stsb-{split}", file=str(path)), STSB_PAIRS[split], files=[file])

    def sources(self) -> dict[str, str]:
        """sha256 of every file read so far, by folder and name, the same for every layout of the root."""
        return dict(self._folder.sources)

    def _subset(self, folder: str, name: str, expected: int) -> Pairs:
        inputs_file, grades_file = f"{folder}/STS.input.{name}.txt", f"{folder}/STS.gs.{name}.txt"
        inputs, inputs_path = self._read(inputs_file)
        grades, grades_path = self._read(grades_file)
        pairs = parse_sts(inputs, grades, name=name, inputs_file=str(inputs_path), grades_file=str(grades_path))
        return self._checked(pairs, expected, files=[inputs_file, grades_file])

    def _read(self, file: str) -> tuple[str, Path]:
        content, path = self._folder.read(file)
        try:
            return content.decode("utf-8"), path
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 at byte {error.start}: {RESTORE}") from error

    def _checked(self, pairs: Pairs, expected: int, *, files: list[str]) -> Pairs:
        """Counts first: of two true messages about a cut file, the number of pairs is the one a reader understands."""
        if len(pairs.gold) != expected:
            raise DataError(f"{', '.join(files)}: found {len(pairs.gold)} graded pairs, expected {expected}: {RESTORE}")
        for file in files:
            if (found := self._folder.sources[file]) != SHA256[file]:
                raise DataError(
                    f"{file}: found sha256 {found}, expected {SHA256[file]}. Another form of the text "
                    f"(raw, cased) gives other numbers than the papers': {RESTORE}"
                )
        return pairs


def _lines(text: str) -> list[str]:
    # Not splitlines(): it also splits at characters that may stand inside a sentence. And only one line end is
    # removed, because blank grades at the end of a file are lines too.
    return text.removesuffix("\n").split("\n")


def _fields(line: str, *, at_least: int, where: str) -> list[str]:
    fields = line.split("\t")
    if len(fields) < at_least:
        raise DataError(f"{where}: found {len(fields)} tab-separated fields, expected at least {at_least}: {RESTORE}")
    return fields


def _pairs(
    rows: list[tuple[str, str, str, int]], *, name: str, sentences_file: str, grades_file: str, lowest: float
) -> Pairs:
    # SentEval splits each sentence at white space and SimCSE's evaluator joins the words with one space.
    left = [" ".join(row[0].split()) for row in rows]
    right = [" ".join(row[1].split()) for row in rows]
    gold = [_grade(row[2], lowest=lowest, where=f"{grades_file}, line {row[3]}") for row in rows]
    for row, one, two in zip(rows, left, right, strict=True):
        if not one or not two:
            raise DataError(f"{sentences_file}, line {row[3]}: found an empty sentence, expected two: {RESTORE}")
    return Pairs(name=name, left=left, right=right, gold=np.array(gold, dtype=np.float64))


def _grade(text: str, *, lowest: float, where: str) -> float:
    try:
        grade = float(text)
    except ValueError:
        grade = float("nan")
    if not lowest <= grade <= 5.0:  # also true for NaN
        raise DataError(f"{where}: found grade {text.strip()!r}, expected a number from {lowest:g} to 5: {RESTORE}")
    return grade
