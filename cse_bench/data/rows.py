"""Token rows: what travels from the corpus through the views of a method into its encoder."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenRows:
    """Tokenised sentences, or several views of them, padded on the right to the longest row.

    Shapes: n rows, l tokens. After `views`, n = v * b with view-major order: rows `[k * b, (k + 1) * b)` are view k of
    the b sentences.

    Attributes:
        ids: token ids, (n, l); the content beyond a row's length is padding.
        lengths: number of real tokens of each row, (n,). Stays on the CPU, where the work is planned: reading it back
            from a GPU would make every step wait.
        sentence: index of each row's sentence in the corpus, (n,).
        view: which view each row is, (n,).
        num_views: number of views, v.
    """

    ids: Tensor
    lengths: Tensor
    sentence: Tensor
    view: Tensor
    num_views: int = 1

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenRows":  # noqa: FBT001, FBT002 (Lightning's call)
        """The rows on another device (Lightning moves batches by this method)."""
        ids, sentence, view = (t.to(device, non_blocking=non_blocking) for t in (self.ids, self.sentence, self.view))
        return replace(self, ids=ids, sentence=sentence, view=view)

    def repeat(self, views: int) -> "TokenRows":
        """The same rows `views` times, view-major."""
        return TokenRows(
            ids=self.ids.repeat(views, 1),
            lengths=self.lengths.repeat(views),
            sentence=self.sentence.repeat(views),
            view=torch.arange(views, device=self.view.device).repeat_interleave(len(self)),
            num_views=views,
        )

    def take(self, index: Tensor, *, length: int) -> "TokenRows":
        """The rows at `index` (on the CPU), cut to `length` columns (which must cover the longest of them)."""
        there = index.to(self.ids.device)
        return replace(
            self,
            ids=self.ids[there, :length],
            lengths=self.lengths[index],
            sentence=self.sentence[there],
            view=self.view[there],
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


def rows_of(token_lists: list[list[int]]) -> TokenRows:
    """Token lists as rows of one view; sentence i is row i."""
    lengths = torch.tensor([len(tokens) for tokens in token_lists], dtype=torch.long)
    ids = torch.zeros(len(token_lists), int(lengths.max()), dtype=torch.long)
    for row, tokens in enumerate(token_lists):
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    count = len(token_lists)
    return TokenRows(ids=ids, lengths=lengths, sentence=torch.arange(count), view=torch.zeros(count, dtype=torch.long))
