"""The data of a run as Lightning's DataModule: token store, sampler, loader."""

from dataclasses import replace

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cse_bench.data.rows import TokenRows
from cse_bench.data.sampler import GlobalBatchSampler
from cse_bench.data.token_store import TokenStore
from cse_bench.errors import ConfigError, DataError


class _Batches(Dataset[TokenRows]):
    """Indexed by a whole batch of sentence numbers at once: no per-sentence objects, no collation."""

    def __init__(self, store: TokenStore, width: int | None) -> None:
        self._store = store
        self._width = width

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, batch: tuple[int, np.ndarray]) -> TokenRows:
        epoch, index = batch
        return replace(self._store.rows(index, width=self._width), epoch=epoch)


class SentenceData(lightning.LightningDataModule):
    """Training batches from a token store.

    Args:
        store: the tokenised corpus.
        global_batch_size: sentences per optimiser step over all ranks.
        seed: of the order.
        drop_last: leave out the smaller last batch of an epoch.
        num_workers: worker processes for reading; 0 reads in the training process.
        padding: a batch is padded to its `longest` row, or all are to that of the corpus (`max_length`): constant
            shapes, which a compiled body or a CUDA graph asks for.

    Raises:
        DataError: the corpus holds fewer sentences than one batch.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        global_batch_size: int,
        seed: int,
        drop_last: bool,
        num_workers: int,
        padding: str = "longest",
    ) -> None:
        super().__init__()
        if len(store) < global_batch_size:
            raise DataError(
                f"the corpus '{store.description['name']}' has {len(store)} sentences, fewer than one batch of "
                f"{global_batch_size}; set data.global_batch_size to at most {len(store)}, or give more sentences"
            )
        self.store = store
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.num_workers = num_workers
        self._width = store.longest if padding == "max_length" else None

    def setup(self, stage: str) -> None:
        """Refuses what a trainer of one's own may do to batches: training would go on, on others than it says.

        Raises:
            ConfigError: it accumulates gradients, or replaces the sampler.
        """
        trainer = self.trainer
        assert trainer is not None
        if trainer.accumulate_grad_batches != 1:
            raise ConfigError(
                f"accumulate_grad_batches={trainer.accumulate_grad_batches}: every batch is a step here, since "
                "sentences of another batch would be no negatives; raise data.global_batch_size, and set "
                "data.gradient_cache_rows=64 to have it in little memory"
            )
        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise ConfigError(
                "batches are divided among the devices already; give lightning.Trainer use_distributed_sampler=False"
            )

    def train_dataloader(self) -> DataLoader[TokenRows]:
        """The batches of this rank; a resumed run goes on after its last one: the sampler follows the step count."""
        trainer = self.trainer
        assert trainer is not None
        sampler = GlobalBatchSampler(
            len(self.store),
            global_batch_size=self.global_batch_size,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            drop_last=self.drop_last,
            position=lambda: trainer.global_step,
        )
        return DataLoader(
            _Batches(self.store, self._width),
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # Of its own: the loader draws a worker seed at every pass, which would otherwise shift the dropout masks.
            generator=torch.Generator(),
        )
