"""Token counts against a plain loop over the tokenised sentences."""

from collections import Counter
from pathlib import Path

import pytest

from cse_bench.data import token_frequency
from cse_bench.data.corpora import TextFile
from cse_bench.data.token_frequency import token_counts
from cse_bench.data.token_store import token_store
from cse_bench.encoders.tokenization import SentenceTokenizer, byte_tokenizer
from tests.tiny import made_up_sentences


@pytest.mark.parametrize("chunk", [1 << 22, 7])
def test_counts_equal_a_plain_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(token_frequency, "_CHUNK", chunk)
    sentences = made_up_sentences(50)
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(sentences) + "\n")
    tokenizer = SentenceTokenizer(byte_tokenizer(vocab_size=320, decoder=False), prompt=None, max_positions=128)
    store = token_store(TextFile(path=str(path)), tokenizer, max_length=10, cache=tmp_path / "cache")
    expected = Counter(token for sentence in sentences for token in tokenizer([sentence], max_length=10)[0])
    counts = token_counts(store, vocab_size=320)
    assert counts.sum() == store.num_tokens
    assert {token: int(count) for token, count in enumerate(counts) if count} == dict(expected)
    cut = token_counts(store, vocab_size=320, special_ids=[1, 2, 999])
    assert counts[1] == counts[2] == 50
    assert cut[1] == cut[2] == 0
    assert cut.sum() == store.num_tokens - 100
