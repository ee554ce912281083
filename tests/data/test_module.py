from types import SimpleNamespace

import pytest
import torch

from cse_bench.data.corpora import TextFile
from cse_bench.data.module import SentenceData
from cse_bench.data.rows import TokenRows
from cse_bench.data.token_store import token_store
from cse_bench.encoders.tokenization import SentenceTokenizer, byte_tokenizer
from cse_bench.errors import DataError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    (folder / "sentences.txt").write_text("".join(f"Sentence {'x' * (index % 7)}{index}.\n" for index in range(22)))
    tokenizer = SentenceTokenizer(byte_tokenizer(vocab_size=320, decoder=False), prompt=None, max_positions=64)
    return token_store(TextFile(path=str(folder / "sentences.txt")), tokenizer, max_length=32, cache=folder)


def data(store, *, rank=0, world_size=1, step=0, **changes):
    options = {"global_batch_size": 8, "seed": 3, "drop_last": False, "num_workers": 0} | changes
    module = SentenceData(store, **options)
    # What it asks of a trainer, and nothing else; whole runs are in tests/training.
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, global_step=step)
    return module


def content(rows: TokenRows):
    return rows.ids.tolist(), rows.lengths.tolist(), rows.sentence.tolist(), rows.view.tolist()


def test_a_batch_is_rows_of_the_store(store):
    loader = data(store).train_dataloader()
    found = list(loader)
    assert [len(rows) for rows in found] == [8, 8, 6]
    assert len(loader) == 3
    assert all(isinstance(rows, TokenRows) for rows in found)
    assert sorted(torch.cat([rows.sentence for rows in found]).tolist()) == list(range(22))
    for rows in found:
        assert content(rows) == content(store.rows(rows.sentence.numpy()))


def test_rows_of_constant_length(store):
    longest, constant = data(store), data(store, padding="max_length")
    widths = [[rows.ids.shape[1] for rows in module.train_dataloader()] for module in (longest, constant)]
    assert widths[1] == [store.longest] * 3
    assert min(widths[0]) < store.longest == max(widths[0])
    for padded, rows in zip(constant.train_dataloader(), longest.train_dataloader(), strict=True):
        width = rows.ids.shape[1]
        assert torch.equal(padded.ids[:, :width], rows.ids)
        assert (padded.ids[:, width:] == 0).all()
        assert torch.equal(padded.lengths, rows.lengths)


def test_ranks_share_a_batch(store):
    alone = [rows.sentence.tolist() for rows in data(store).train_dataloader()]
    ranks = [
        [rows.sentence.tolist() for rows in data(store, rank=rank, world_size=2).train_dataloader()]
        for rank in range(2)
    ]
    assert [a + b for a, b in zip(*ranks, strict=True)] == alone


def test_it_goes_on_at_the_trainers_step(store):
    module = data(store)
    loader = module.train_dataloader()
    first = [content(rows) for rows in loader]
    module.trainer.global_step = 1
    assert [content(rows) for rows in loader] == first[1:]
    module.trainer.global_step = 3
    assert [content(rows) for rows in loader] != first
    assert [len(rows) for rows in data(store, drop_last=True).train_dataloader()] == [8, 8]


def test_a_worker_process_gives_the_same_batches(store):
    here = [content(rows) for rows in data(store).train_dataloader()]
    loader = data(store, num_workers=1).train_dataloader()
    assert [content(rows) for rows in loader] == here
    assert [content(rows) for rows in loader] == here  # the worker stays for the next pass


@pytest.mark.parametrize("num_workers", [0, 1])
def test_reading_draws_no_random_number(store, num_workers):
    """Otherwise the dropout masks of a run would depend on where its passes begin, and a resumed run would differ."""
    loader = data(store, num_workers=num_workers).train_dataloader()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)
    # The canary: a loader left to itself does draw.
    next(iter(torch.utils.data.DataLoader([1, 2, 3])))
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_corpus_smaller_than_a_batch_is_refused(store):
    data(store, global_batch_size=22)
    with pytest.raises(DataError, match=r"'sentences' has 22 sentences, fewer than one batch of 23; set .* at most 22"):
        data(store, global_batch_size=23)
