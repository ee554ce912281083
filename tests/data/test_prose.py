"""The rules that cut paragraphs into sentences and keep the clean ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cse_bench.data.prose import MAX_CHARACTERS, is_clean, split_sentences

GOOD = "The old bridge was closed after the storm."


@pytest.mark.parametrize(
    "paragraph, expected",
    [
        ("One ends. Two ends! Three ends? Four", ["One ends.", "Two ends!", "Three ends?", "Four"]),
        ("It began in 1920. 30 people came.", ["It began in 1920.", "30 people came."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("It rained (again). We left.", ["It rained (again).", "We left."]),
        ("It ended. (Nobody knew.) We left.", ["It ended.", "(Nobody knew.)", "We left."]),
        ("It costs 3.5 francs. It is cheap.", ["It costs 3.5 francs.", "It is cheap."]),
        ("Seen by Dr. Smith and St. Paul.", ["Seen by Dr. Smith and St. Paul."]),
        ("The U.S. Army came with J. Doe.", ["The U.S. Army came with J. Doe."]),
        ("It came after World War I. Then peace.", ["It came after World War I.", "Then peace."]),
        ("It grew (cf. Brown) a lot.", ["It grew (cf. Brown) a lot."]),
        ("It has a small start. but goes on.", ["It has a small start. but goes on."]),
        ("   ", []),
        ("", []),
    ],
)
def test_cuts_where_a_reader_would(paragraph: str, expected: list[str]) -> None:
    assert split_sentences(paragraph) == expected


@given(st.text(alphabet="aB1.!?\"'() ", max_size=60))
def test_cutting_loses_nothing_but_white_space(paragraph: str) -> None:
    pieces = split_sentences(paragraph)
    assert "".join("".join(pieces).split()) == "".join(paragraph.split())
    assert all(piece and piece == piece.strip() for piece in pieces)


@pytest.mark.parametrize(
    "sentence",
    [
        GOOD,
        "12 people crossed the old bridge that day.",
        "Was the old bridge (built in 1920) ever closed?",
        'They called it "the old bridge" in their letters!',
        "Élan was what the old bridge had lost.",
        "It is six words long exactly.",
    ],
)
def test_keeps_whole_sentences(sentence: str) -> None:
    assert is_clean(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Only five words are here.",
        "Word " * 60 + "end.",
        "The " + "extraordinarilylongword" * 20 + " was closed after the storm.",
        "the old bridge was closed after the storm.",
        '"The old bridge was closed after the storm.',
        "The old bridge was closed after the storm",
        "The old bridge was closed after the storm:",
        "The old bridge (was closed after the storm.",
        "The old bridge) was closed (after the storm.",
        'The old "bridge was closed after the storm.',
        "The old “bridge was closed after the storm.",
        "The old bridge {{was closed after the storm.",
        "The old bridge was [[closed]] after the storm.",
        "The old bridge | was closed after the storm.",
        "The old bridge http://a.b was closed after it.",
        "The old bridge <ref> was closed after the storm.",
        "The old bridge &nbsp; was closed after the storm.",
        "The old bridge ( was closed) after the storm.",
        "The old bridge () was closed after the storm.",
        "The old bridge , was closed after the storm.",
        "The old  bridge was closed after the storm.",
        'The old bridge "" was closed after the storm.',
        "The old bridge was closed.Then it was opened again.",
        "The sums 12 34 56 78 90 12 34 56 78 were used.",
    ],
)
def test_refuses_what_is_not_whole_prose(sentence: str) -> None:
    assert not is_clean(sentence)


def test_limits_are_inclusive() -> None:
    sixty_words = "The " + "a " * 58 + "end."
    assert len(sixty_words.split()) == 60
    assert is_clean(sixty_words)
    longest = "The old bridge was closed after " + "x" * (MAX_CHARACTERS - 33) + "."
    assert len(longest) == MAX_CHARACTERS
    assert is_clean(longest)
    assert not is_clean(longest.replace("xx", "xxx", 1))
