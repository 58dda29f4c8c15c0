"""Which net learns from short texts?

As fastText does (Joulin et al., EACL 2017): hashed n-grams of bytes, each with a vector of its own, and their mean.
Hashing happens inside the graph, so that a device needs no tokenizer and no vocabulary: it sends UTF-8 bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.errors import DataError
from models.net import EMBEDDING, Parts, Prepare, Shape

BUCKETS = 2048  # fewer let n-grams share a vector, more make the file larger: 128 bytes each
WIDTH = 32
FACTORS = ((1, 0, 0), (31, 1031, 0), (131, 8191, 524287))  # of a byte and the next two: 1-, 2- and 3-grams


def text(shape: Shape) -> Parts:
    """UTF-8 bytes (L,) uint8, cut to L and filled up with zeros; 75k parameters."""
    if shape[0] < 3:
        raise DataError(f"recipe 'text' takes (L,) bytes of text, L at least 3, got {shape}")
    return Parts(Prepare("text", shape), _Bag(shape[0]), EMBEDDING)


class _Bag(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.vectors = nn.Embedding(len(FACTORS) * BUCKETS, WIDTH)
        self.dense = nn.Sequential(nn.Linear(WIDTH, EMBEDDING), nn.ReLU())
        nn.init.normal_(self.vectors.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, L) int64, 0 where there is no text -> (N, D)."""
        total = count = torch.zeros(1, 1, device=x.device)
        for number, factors in enumerate(FACTORS):
            last = self.length - number
            code = torch.zeros_like(x[:, :last])
            for place, factor in enumerate(factors[: number + 1]):
                code = code + x[:, place : place + last] * factor
            here = (x[:, number:] > 0).to(torch.float32).unsqueeze(2)
            total = total + (self.vectors(code % BUCKETS + number * BUCKETS) * here).sum(dim=1)
            count = count + here.sum(dim=1)
        # Not the mean but the sum over the root: a long text keeps the spread of a short one.
        embedding: Tensor = self.dense(total / (count + 1.0).sqrt())
        return embedding
