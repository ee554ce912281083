"""A corpus that is a list of sentences in memory."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from cse_bench.errors import DataError


class SentenceList:
    """Sentences that Python code brings along.

    Args:
        sentences: at least one, none of them empty.
        name: for tables and file names.

    Raises:
        DataError: there is none, or an empty one, or a string instead of a list.
    """

    def __init__(self, sentences: Sequence[str], *, name: str = "sentences") -> None:
        if isinstance(sentences, str):
            raise DataError("sentences: a list of sentences is needed; a string would be read as a list of letters")
        self.name = name
        self._sentences = [sentence.strip() for sentence in sentences]
        if not self._sentences:
            raise DataError("sentences: the list is empty")
        for number, sentence in enumerate(self._sentences):
            if not sentence:
                raise DataError(f"sentences[{number}] is empty; leave it out")

    def lines(self) -> Iterator[str]:
        """The sentences, without surrounding space."""
        yield from self._sentences

    def fingerprint(self) -> str:
        """SHA-256 of the sentences."""
        digest = hashlib.sha256()
        for sentence in self._sentences:
            content = sentence.encode()
            digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Source and checksum."""
        return {"source": "list", "sha256": self.fingerprint()}
