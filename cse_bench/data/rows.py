"""Token rows: what travels from the corpus through the views of a method into its encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class TokenRows:
    """Tokenised sentences, or several views of them, padded on the right to the longest row.

    Shapes: n rows, l tokens. After `views`, n = v * b with view-major order: rows `[k * b, (k + 1) * b)` are view k of
    the b sentences.

    Attributes:
        ids: token ids, (n, l); the content beyond a row's length is padding.
        lengths: number of real tokens of each row, (n,). Stays on the CPU, where the work is planned: reading it back
            from a GPU would make every step wait.
        sentence: index of each row's sentence in the corpus, (n,). On the CPU, for lookups.
        view: which view each row is, (n,). On the CPU.
        num_views: number of views, v.
        epoch: how often the corpus was read whole before these rows.
    """

    ids: Tensor
    lengths: Tensor
    sentence: Tensor
    view: Tensor
    num_views: int = 1
    epoch: int = 0

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def is_full(self) -> bool:
        """Whether there is no padding."""
        return int(self.lengths.sum()) == self.ids.numel()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenRows":  # noqa: FBT001, FBT002 (Lightning's call)
        """The rows on another device (Lightning moves batches by this method)."""
        return replace(self, ids=self.ids.to(device, non_blocking=non_blocking))

    def repeat(self, views: int) -> "TokenRows":
        """The same rows `views` times, view-major."""
        return stacked([self] * views)

    def take(self, index: Tensor, *, length: int) -> "TokenRows":
        """The rows at `index` (on the CPU), cut to `length` columns (which must cover the longest of them)."""
        return replace(
            self,
            ids=self.ids[index.to(self.ids.device), :length],
            lengths=self.lengths[index],
            sentence=self.sentence[index],
            view=self.view[index],
        )

    def mask(self) -> Tensor:
        """1 for real tokens, 0 for padding, (n, l)."""
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (columns < self.lengths.to(columns.device, non_blocking=True).unsqueeze(1)).long()

    def padded(self, *, pad_token_id: int, side: str) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, both (n, l), padded on the `left` or the `right` side."""
        mask = self.mask()
        ids = self.ids.masked_fill(mask == 0, pad_token_id)
        if side == "left":
            width = ids.shape[1]
            columns = torch.arange(width, device=ids.device)
            padding = width - mask.sum(dim=1, keepdim=True)
            source = (columns - padding) % width  # the padding rotates to the front
            ids, mask = ids.gather(1, source), mask.gather(1, source)
        return ids, mask


def stacked(views: Sequence[TokenRows]) -> TokenRows:
    """Blocks of b rows each as the views of one step, view-major, padded to the longest row of all."""
    first = views[0]
    width = max(view.ids.shape[1] for view in views)
    return TokenRows(
        ids=torch.cat([functional.pad(view.ids, (0, width - view.ids.shape[1])) for view in views]),
        lengths=torch.cat([view.lengths for view in views]),
        sentence=torch.cat([view.sentence for view in views]),
        view=torch.arange(len(views)).repeat_interleave(len(first)),
        num_views=len(views),
        epoch=first.epoch,
    )


def rows_of(token_lists: list[list[int]]) -> TokenRows:
    """Token lists as rows of one view; sentence i is row i."""
    count = len(token_lists)
    lengths = np.fromiter(map(len, token_lists), dtype=np.int64, count=count)
    ids = np.zeros((count, int(lengths.max())), dtype=np.int64)
    places = np.arange(ids.shape[1]) < lengths[:, None]
    ids[places] = np.fromiter(chain.from_iterable(token_lists), dtype=np.int64, count=int(lengths.sum()))
    return TokenRows(
        ids=torch.from_numpy(ids),
        lengths=torch.from_numpy(lengths),
        sentence=torch.arange(count),
        view=torch.zeros(count, dtype=torch.long),
    )
