"""Human grades of document similarity: 50 short news documents, all 1,225 pairs graded.

Lee, Pincombe and Welsh 2005, "An empirical evaluation of models of text document similarity": each pair was graded by
several people, and the mean grades are published on a scale from 0 to 1. The data travels as test data in gensim. The
documents have 45 to 126 words, so an encoder should be given at least 256 tokens of them.

The pairs share 50 documents and differ little between short trainings: report the number with its spread over seeds.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from cse_bench.data.packages import PackageFile
from cse_bench.errors import DataError
from cse_bench.evaluation.spearman import cosine_of_rows, spearman
from cse_bench.evaluation.task import Encode, Yielded

NUM_DOCUMENTS = 50
NUM_PAIRS = 1225

DOCUMENTS = PackageFile(
    package="gensim",
    version="4.4.0",
    path="gensim/test/test_data/lee.cor",
    sha256="a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
)
GRADES = PackageFile(
    package="gensim",
    version="4.4.0",
    path="gensim/test/test_data/similarities0-1.txt",
    sha256="23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
)


class Lee:
    """The task `lee`: Spearman x 100 between the cosines of 1,225 pairs of documents and their mean human grades."""

    name = "lee"
    version = 1

    @cached_property
    def _data(self) -> tuple[list[str], npt.NDArray[np.float64]]:
        return read_documents(), read_grades()

    def sentences(self) -> list[str]:
        """The 50 documents.

        Raises:
            DataError: The package is missing, or a file is not what it should be.
        """
        return self._data[0]

    def evaluate(self, encode: Encode) -> Yielded:
        """Yields `lee/spearman`, and the arrays `pairs/lee/cosine` and `pairs/lee/gold`, each `(1225,)`."""
        documents, grades = self._data
        embeddings = encode(documents)
        left, right = np.triu_indices(NUM_DOCUMENTS, k=1)
        cosines = cosine_of_rows(embeddings[left], embeddings[right])
        gold = grades[left, right]
        correlation = spearman(cosines, gold)
        yield "lee/spearman", correlation
        if np.isnan(correlation):
            yield "lee/spearman", "collapsed"
        yield "pairs/lee/cosine", cosines
        yield "pairs/lee/gold", gold

    def sources(self) -> dict[str, str]:
        """The two files and their sha256."""
        return {file.source: file.sha256 for file in (DOCUMENTS, GRADES)}

    def labels(self) -> dict[str, str]:
        """What the number means."""
        return {"lee/": "Spearman x 100 with mean human grades of 1,225 pairs of news documents (Lee et al. 2005)"}


def read_documents() -> list[str]:
    """The 50 documents, one per line of the file, in Latin-1.

    Raises:
        DataError: The file is missing or another one, or has another number of documents.
    """
    file = DOCUMENTS.locate()
    documents = file.read_text(encoding="latin-1").split("\n")
    if len(set(documents)) != NUM_DOCUMENTS or len(documents) != NUM_DOCUMENTS or not all(documents):
        raise DataError(
            f"{file} has {len(documents)} lines, {len(set(documents))} of them different; expected {NUM_DOCUMENTS} "
            f"different documents, one per line. Install {DOCUMENTS.package}=={DOCUMENTS.version} again"
        )
    return documents


def read_grades() -> npt.NDArray[np.float64]:
    """Mean grades between 0 and 1, `(50, 50)`; only the entries above the diagonal are filled.

    Raises:
        DataError: The file is missing or another one, or is not such a table.
    """
    file = GRADES.locate()
    try:
        grades = np.loadtxt(file, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{file} is not a table of numbers ({error}); install {GRADES.source} again") from error
    above = grades[np.triu_indices(NUM_DOCUMENTS, k=1)] if grades.shape == (NUM_DOCUMENTS, NUM_DOCUMENTS) else None
    if above is None or len(above) != NUM_PAIRS or not ((above >= 0) & (above <= 1)).all():
        raise DataError(
            f"{file} has shape {grades.shape}; expected {NUM_DOCUMENTS} x {NUM_DOCUMENTS} grades between 0 and 1. "
            f"Install {GRADES.package}=={GRADES.version} again"
        )
    return grades
