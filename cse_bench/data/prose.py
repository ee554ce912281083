"""From a paragraph to clean sentences, by a few fixed rules and no model.

Made for training sentences: a rule may lose a good sentence, but should not let a bad one through. What a wrong cut
leaves behind (unbalanced brackets, a small first letter, three words) is refused by `is_clean`.
"""

import re

MIN_WORDS, MAX_WORDS, MAX_CHARACTERS = 6, 60, 400
MIN_LETTERS = 0.75  # share of letters among the visible characters; tables, formulas and citations have fewer

_ABBREVIATIONS = frozenset(
    "adm al approx apr aug ave brig bros ca capt cf ch co col corp cmdr dec dept dr ed eds eg esp est feb fig figs fl "
    "fr gen gov hon inc jan jr lt ltd maj messrs mr mrs ms mt no nos nov oct op pp pres prof pt rep rev sen sep sept "
    "ser sgt sr st ste supt trans univ viz vol vols vs".split()
)

_BOUNDARY = re.compile(r"[.!?][\"”’')\]]*\s+(?=[\"“‘'(\[]?[A-Z0-9])")
_LAST_WORD = re.compile(r"([^\s(\[\"“‘']+)\.$")
_INITIAL = re.compile(r"[A-HJ-Za-z]")  # without "I": "World War I." ends more sentences than the initial occurs
_DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_MARKUP = re.compile(r"[{}\[\]|<>=*#\\_^~]|https?:|www\.|&\w+;|\bISBN\b")
# Where a template, formula or footnote was cut out of the sentence, it leaves one of these behind.
_HOLE = re.compile(r"\s[,.;:!?)]|\(\s|\([,.;:)]|\s\s|,,|;;|\"\"")
_GLUED = re.compile(r"[a-z]{2}[.!?][A-Z][a-z]")  # two sentences without a blank between them


def split_sentences(paragraph: str) -> list[str]:
    """Cut a paragraph into sentences.

    A sentence ends at `.`, `!` or `?` (with quotes or brackets that close after it) before white space and a capital or
    digit. A full stop does not end one after a known abbreviation, a single letter (an initial, but not `I`) or dotted
    letters (`U.S.`).

    Args:
        paragraph: Plain text without line breaks.

    Returns:
        The pieces in order, without white space around them; joined by blanks they give the paragraph.
    """
    sentences = []
    start = 0
    for boundary in _BOUNDARY.finditer(paragraph):
        candidate = paragraph[start : boundary.end()].strip()
        last = _LAST_WORD.search(candidate)
        if last and _ends_no_sentence(last[1]):
            continue
        sentences.append(candidate)
        start = boundary.end()
    sentences.append(paragraph[start:].strip())
    return [sentence for sentence in sentences if sentence]


def is_clean(sentence: str) -> bool:
    """Whether a sentence is whole prose.

    6 to 60 words and at most 400 characters; from a capital or digit to `.`, `!` or `?`; brackets and double quotes in
    balance; at least three quarters letters; no mark-up and no hole where mark-up was removed.
    """
    if not MIN_WORDS <= len(sentence.split()) <= MAX_WORDS or len(sentence) > MAX_CHARACTERS:
        return False
    if not (sentence[0].isupper() or sentence[0].isdigit()) or sentence[-1] not in ".!?":
        return False
    if any(trace.search(sentence) for trace in (_MARKUP, _HOLE, _GLUED)) or not _balanced(sentence):
        return False
    visible = [character for character in sentence if not character.isspace()]
    return sum(character.isalpha() for character in visible) >= MIN_LETTERS * len(visible)


def _ends_no_sentence(word: str) -> bool:
    return bool(_INITIAL.fullmatch(word) or _DOTTED.fullmatch(word)) or word.lower() in _ABBREVIATIONS


def _balanced(sentence: str) -> bool:
    depth = 0
    for character in sentence:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0 and sentence.count('"') % 2 == 0 and sentence.count("“") == sentence.count("”")
