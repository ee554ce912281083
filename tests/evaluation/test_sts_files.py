"""Readers of the STS files: parsing on small texts, checks on small folders, exact counts on the real files."""

import hashlib
from pathlib import Path

import pytest

from cse_bench.errors import DataError
from cse_bench.evaluation.sts_files import Pairs, STSFiles, parse_sick, parse_sts, parse_stsb
from cse_bench.evaluation.sts_tables import SHA256, STSB_PAIRS, SUBSETS, TEST_PAIRS

INPUTS = "a  man\u00a0sings .\ta man is singing .\nnot graded\tnobody cared\none \ttwo\n"
GRADES = "4.5\n\n0\n"
STSB_LINE = 'main-news\tMSRpar\t2012test\t12\t2.500\t" open quote\tno end " here\n'
SICK = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n7\tA Man\tThe man\t3.3\tNEUTRAL\n"

DEV_FILE = "STSBenchmark/sts-dev.csv"


def sts(inputs: str, grades: str) -> Pairs:
    return parse_sts(inputs, grades, name="x", inputs_file="in.txt", grades_file="gs.txt")


def stsb(text: str) -> Pairs:
    return parse_stsb(text, name="x", file="dev.csv")


def sick(text: str) -> Pairs:
    return parse_sick(text, name="x", file="sick.txt")


def write(folder: Path, file: str, content: str | bytes) -> str:
    path = folder / "sts" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_blank_grades_are_dropped_and_white_space_is_rejoined() -> None:
    pairs = sts(INPUTS, GRADES)
    assert pairs.left == ["a man sings .", "one"]
    assert pairs.right == ["a man is singing .", "two"]
    assert pairs.gold.tolist() == [4.5, 0.0]


def test_blank_grades_at_the_end_are_lines() -> None:
    pairs = sts("a\tb\nc\td\ne\tf\n", "1\n\n\n")
    assert (pairs.left, pairs.gold.tolist()) == (["a"], [1.0])


def test_line_separators_inside_a_sentence_do_not_split_it() -> None:
    assert sts("a\u2028b\tc\x85d\n", "1\n").left == ["a b"]


def test_quotes_in_stsb_are_literal() -> None:
    pairs = stsb(STSB_LINE * 2)
    assert pairs.left == ['" open quote'] * 2
    assert pairs.right == ['no end " here'] * 2
    assert pairs.gold.tolist() == [2.5, 2.5]


def test_sick_skips_the_header_and_keeps_case() -> None:
    pairs = sick(SICK)
    assert (pairs.left, pairs.right, pairs.gold.tolist()) == (["A Man"], ["The man"], [3.3])


@pytest.mark.parametrize("grade", ["x", "5.1", "-0.5", "nan", "inf"])
def test_bad_grade_names_file_and_line(grade: str) -> None:
    with pytest.raises(DataError, match=f"gs.txt, line 3: found grade '{grade}', expected a number from 0 to 5"):
        sts(INPUTS, f"4.5\n\n{grade}\n")
    with pytest.raises(DataError, match=f"dev.csv, line 2: found grade '{grade}'"):
        stsb(STSB_LINE + STSB_LINE.replace("2.500", grade))


def test_sick_grades_start_at_1() -> None:
    with pytest.raises(DataError, match="sick.txt, line 2: found grade '0.5', expected a number from 1 to 5"):
        sick(SICK.replace("3.3", "0.5"))


def test_malformed_lines_are_named() -> None:
    with pytest.raises(DataError, match=r"in.txt has 3 lines and gs.txt 2"):
        sts(INPUTS, "4.5\n\n")
    with pytest.raises(DataError, match="in.txt, line 2: found 1 tab-separated fields, expected at least 2"):
        sts("a\tb\nno tab\n", "1\n2\n")
    with pytest.raises(DataError, match="dev.csv, line 1: found 6 tab-separated fields, expected at least 7"):
        stsb(STSB_LINE.replace("\t12\t", "\t"))
    with pytest.raises(DataError, match="in.txt, line 2: found an empty sentence"):
        sts("a\tb\n \tb\n", "1\n2\n")


def test_checked_file_is_read_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = write(tmp_path, DEV_FILE, STSB_LINE * 3)
    monkeypatch.setitem(SHA256, DEV_FILE, digest)
    monkeypatch.setitem(STSB_PAIRS, "dev", 3)
    files = STSFiles(data=str(tmp_path), cache="unused")
    assert files.sources() == {}
    assert len(files.benchmark("dev").left) == 3
    assert files.sources() == {DEV_FILE: digest}


def test_wrong_count_names_file_expected_and_found(tmp_path: Path) -> None:
    write(tmp_path, DEV_FILE, STSB_LINE * 3)
    with pytest.raises(DataError, match=f"{DEV_FILE}: found 3 graded pairs, expected 1500"):
        STSFiles(data=str(tmp_path), cache="unused").benchmark("dev")


def test_wrong_count_of_a_subset_names_both_files(tmp_path: Path) -> None:
    write(tmp_path, "STS13-en-test/STS.input.FNWN.txt", INPUTS)
    write(tmp_path, "STS13-en-test/STS.gs.FNWN.txt", GRADES)
    with pytest.raises(
        DataError, match=r"STS.input.FNWN.txt, STS13.*STS.gs.FNWN.txt: found 2 graded pairs, expected 189"
    ):
        STSFiles(data=str(tmp_path), cache="unused").test("sts13")


def test_wrong_checksum_names_file_expected_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = write(tmp_path, DEV_FILE, STSB_LINE * 3)
    monkeypatch.setitem(STSB_PAIRS, "dev", 3)
    with pytest.raises(DataError, match=f"{DEV_FILE}: found sha256 {digest}, expected {SHA256[DEV_FILE]}"):
        STSFiles(data=str(tmp_path), cache="unused").benchmark("dev")


def test_other_encoding_is_named(tmp_path: Path) -> None:
    write(tmp_path, DEV_FILE, "caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="sts-dev.csv is not UTF-8 at byte 3"):
        STSFiles(data=str(tmp_path), cache="unused").benchmark("dev")


def test_unknown_task_and_split_are_refused() -> None:
    files = STSFiles(data="unused", cache="unused")
    with pytest.raises(ValueError, match="'sts17' is no STS test task; expected one of sts12, "):
        files.test("sts17")
    with pytest.raises(ValueError, match="'trial' is no split of STS-B; expected one of train, dev, test"):
        files.benchmark("trial")


def test_tables_are_complete() -> None:
    assert dict(sts12=3108, sts13=1500, sts14=3750, sts15=3000, sts16=1186, stsb=1379, sickr=4927) == TEST_PAIRS
    assert len(SHA256) == 2 * sum(len(subsets) for subsets in SUBSETS.values()) + 3 + 1
    assert len(set(SHA256.values())) == len(SHA256)


@pytest.mark.parametrize("task", TEST_PAIRS)
def test_real_test_tasks_have_the_exact_counts(shared_data: Path, task: str) -> None:
    subsets = STSFiles(data=str(shared_data), cache="unused").test(task)
    assert sum(len(pairs.gold) for pairs in subsets) == TEST_PAIRS[task]
    if task in SUBSETS:
        assert {pairs.name: len(pairs.gold) for pairs in subsets} == SUBSETS[task]
    for pairs in subsets:
        assert len(pairs.left) == len(pairs.right) == len(pairs.gold)
        # SentEval lower-cases everything but SICK; raw copies of these files do not.
        lower = all(sentence == sentence.lower() for sentence in pairs.left + pairs.right)
        assert lower == (task != "sickr")


@pytest.mark.parametrize(
    ("split", "pairs", "positives", "at_least_4", "distinct"),
    [("train", 5749, 1052, 1406, 10518), ("dev", 1500, 208, 264, 2909), ("test", 1379, 231, 338, 2551)],
)
def test_real_stsb_splits(
    shared_data: Path, split: str, pairs: int, positives: int, at_least_4: int, distinct: int
) -> None:
    read = STSFiles(data=str(shared_data), cache="unused").benchmark(split)
    assert len(read.gold) == pairs
    assert (read.gold > 4).sum() == positives
    assert (read.gold >= 4).sum() == at_least_4
    assert len(set(read.left + read.right)) == distinct
