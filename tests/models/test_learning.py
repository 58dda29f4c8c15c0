"""Does each way of training do what it says, and does one that broke off end as if nothing had been?

A real process is killed in tests/server/test_candidate.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import augment, checkpoint, loss, samples, split
from models.curve import Point
from models.data import Labelled
from models.errors import DataError
from models.net import as_one
from models.train import Beside, Net, Settings, fit

Blobs = Callable[..., tuple[np.ndarray, np.ndarray]]
Fashion = tuple[Labelled, Labelled]


def says(net: Net, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return as_one(net.module(torch.tensor(x))[0]).exp().numpy()


# --- going on from a champion ---


def test_distillation_breaks_less_of_what_was_right(clothes_net: Net, fashion: Fashion) -> None:
    train, test = fashion
    parent = clothes_net.weights()
    before = says(clothes_net, test.x).argmax(1) == test.y
    flips, moved = [], []
    for distil in (0.0, 4.0):
        settings = Settings(epochs=2, distil=distil)
        child = says(fit(train.x[1500:], train.y[1500:], classes=10, settings=settings, parent=parent), test.x)
        flips.append((before & (child.argmax(1) != test.y)).mean())
        moved.append(np.abs(child - says(clothes_net, test.x)).mean())
    assert flips[1] < 0.7 * flips[0]
    assert moved[1] < 0.7 * moved[0]


def test_focus_is_on_what_the_parent_has_right_and_not_on_classes_it_does_not_know() -> None:
    logits = torch.tensor([[5.0, 0.0], [5.0, 0.0], [5.0, 0.0]])
    assert loss.focus(logits, torch.tensor([0, 1, 2])).tolist() == pytest.approx([1.0, 1 / 6, 0.0])
    new = torch.tensor([[5.0, 0.0, 9.0]], requires_grad=True)  # of the classes that both know it says the same
    assert loss.change(new, loss.softened(logits[:1]), torch.ones(1)).item() == pytest.approx(0.0, abs=1e-6)
    other = torch.tensor([[0.0, 5.0, 9.0]])
    assert loss.change(other, loss.softened(logits[:1]), torch.ones(1)).item() > 1.0


def test_a_shrunk_start_is_its_share_of_the_parent_and_a_little_of_a_fresh_net(clothes_net: Net) -> None:
    from models.recipes.catalogue import build
    from models.start import PERTURB, shrink

    own = Net.load(clothes_net.weights()).module
    shrink(own, "cnn", (28, 28), keep=0.4, seed=3)
    fresh = build("cnn", (28, 28), classes=10, seed=3)
    for now, was, new in zip(own.parameters(), clothes_net.module.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(now, 0.4 * was + PERTURB * new)
    assert torch.equal(own.prepare.mean, clothes_net.module.prepare.mean)


def test_what_the_champion_knew_comes_as_often_as_it_is_told() -> None:
    y = torch.arange(400) % 4
    known = torch.arange(400) < 300
    for replay in (0.0, 0.25, 1.0):
        wanted = samples.shares(y, known, replay=replay)
        rows = torch.cat(samples.batches(wanted, 1, torch.Generator().manual_seed(0)))
        assert (rows < 300).sum().item() == pytest.approx(300 * replay, abs=2)
        assert (rows >= 300).sum().item() == pytest.approx(100, abs=2)


@pytest.mark.parametrize("part", ["head", "gently"])
def test_a_part_learns_and_the_rest_stays_as_it_is_though_shrinking_is_the_recipe_s(part: str, blobs: Blobs) -> None:
    x, y = blobs((12, 12), "uint8", n=80)
    parent = fit(x, y, classes=3, settings=Settings(epochs=2))
    told = Settings(epochs=2, part=part, shrink=0.4)
    child = fit(x + 7, y, classes=3, settings=told, parent=parent.weights())
    was, now = parent.module.state_dict(), child.module.state_dict()
    assert not torch.equal(was["head.weight"], now["head.weight"])
    same = [name for name in was if "running" in name or "batches" in name or (part == "head" and "head" not in name)]
    assert len(same) > 3
    for name in same:  # figures of batch normalisation scale every weight
        assert torch.equal(was[name], now[name]), name
    if part == "gently":
        apart = [(now[name] - was[name]).norm() / was[name].norm() for name in was if name.endswith("weight")]
        assert 0.0 < max(apart) < 0.2


def test_losses_are_what_their_papers_say() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    y, each = torch.tensor([0, 0]), -logits.log_softmax(1)[:, 0]
    twice = torch.stack([logits, logits.flip(0)], dim=1)  # two heads, the other way round
    for weight, wanted in ((torch.ones(2, 2), each.mean()), (torch.tensor([[3.0, 0.0], [0.0, 1.0]]), each[0])):
        assert loss.truth(twice, y, weight, smoothing=0.0).item() == pytest.approx(wanted.item())
    teacher, own = logits.flip(1), logits
    kl = (teacher / 2).softmax(1) * ((teacher / 2).log_softmax(1) - (own / 2).log_softmax(1))
    change = loss.change(own, loss.softened(teacher), torch.ones(2))
    assert change.item() == pytest.approx(4.0 * kl.sum(1).mean().item(), rel=1e-5)  # gradients as large as at 1


def test_every_head_draws_its_own_samples_and_one_head_takes_all() -> None:
    assert samples.bootstrap(500, 1, seed=0).eq(1.0).all()
    drawn = samples.bootstrap(4000, 3, seed=0)
    assert drawn.mean(0).tolist() == pytest.approx([1.0] * 3, abs=0.06)
    assert drawn.eq(0.0).float().mean().item() == pytest.approx(np.exp(-1.0), abs=0.02)  # Poisson of mean 1
    assert not torch.equal(drawn[:, 0], drawn[:, 1])


def test_rare_classes_come_oftener_by_the_root() -> None:
    shares = samples.shares(torch.tensor([0] * 160 + [1] * 10))
    assert (shares[-1] / shares[0]).item() == pytest.approx(4.0)
    assert shares.mean().item() == pytest.approx(1.0)


# --- weights and pseudo-labels ---


@given(st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=50), st.floats(1.0, 20.0))
@settings(max_examples=50)
def test_importance_grows_as_probability_falls_and_is_clipped(probability: list[float], clip: float) -> None:
    p = np.array(probability)
    weight = samples.importance(p, clip=clip).numpy()
    assert weight.mean() == pytest.approx(1.0, abs=1e-4)
    order = np.argsort(p)
    assert (np.diff(weight[order]) <= 1e-5).all()
    assert weight.max() <= clip * weight.mean() * 1.01  # of the weights as they are used, not as they were before
    below = weight < 0.99 * weight.max()
    assert np.allclose(weight[below] * p[below], (weight[below] * p[below])[:1], rtol=1e-3)


def test_weighted_samples_pull_where_they_are_rare(blobs: Blobs) -> None:
    x, y = blobs((6,), "float32", classes=2, n=200)
    y = np.where(np.arange(200) % 10 == 0, 1 - y, y)  # a tenth says the contrary, and was seldom asked about
    probability = np.where(np.arange(200) % 10 == 0, 0.02, 1.0)
    said = []
    for clip in (0.0, 50.0):
        told = Settings(epochs=6, importance_clip=clip)
        said.append(says(fit(x, y, classes=2, settings=told, beside=Beside(probability=probability)), x))
    contrary = np.flatnonzero(np.arange(200) % 10 == 0)
    assert said[1][contrary, y[contrary]].mean() > said[0][contrary, y[contrary]].mean() + 0.2


def test_unlabelled_samples_teach_where_labels_are_few(blobs: Blobs) -> None:
    x, y = blobs((20, 4), "float32", classes=3, n=300)
    few = np.r_[0:12]
    told = {"epochs": 12, "batch_size": 8, "augment": ("jitter",)}
    plain = fit(x[few], y[few], classes=3, settings=Settings(**told))
    more = fit(
        x[few], y[few], classes=3, settings=Settings(**told, pseudo_labels=0.6), beside=Beside(unlabelled=x[12:])
    )
    truth = y[:, None] == np.arange(3)
    assert says(more, x)[truth].mean() > says(plain, x)[truth].mean() + 0.02


def test_only_what_is_sure_is_learned_from() -> None:
    before, after = torch.tensor([[4.0, 0.0], [0.1, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 4.0]], requires_grad=True)
    loss.consistency(before, after, sure=0.9).backward()
    assert after.grad is not None
    assert after.grad[0].abs().sum() > 0.1
    assert after.grad[1].abs().sum() == 0


# --- augmentation ---


@pytest.mark.parametrize(
    ("layout", "shape", "dtype"),
    [
        ("image", (12, 9), "uint8"),
        ("image", (12, 9, 3), "float32"),
        ("series", (30, 4), "float32"),
        ("vector", (5,), "float32"),
    ],
)
def test_augmented_samples_keep_shape_and_range_and_mostly_their_looks(layout: str, shape: tuple, dtype: str) -> None:
    level = np.linspace(20, 200, 40).reshape(-1, *[1] * len(shape)) * np.ones((40, *shape))
    x = torch.tensor(level.astype(dtype))
    for name, change in augment.BY_LAYOUT[layout].items():
        torch.manual_seed(0)
        made = change(x)
        assert made.shape == x.shape, name
        assert made.min() >= 0, name
        assert made.max() <= 255 if dtype == "uint8" else True, name
        assert torch.corrcoef(torch.stack([made.float().flatten(), x.float().flatten()]))[0, 1] > 0.8, name
        torch.manual_seed(0)
        assert torch.equal(change(x), made), name


def test_images_move_and_mirror_as_images_do() -> None:
    x = torch.zeros(64, 25, 25, dtype=torch.uint8)
    x[:, 12, 5] = 255
    torch.manual_seed(0)
    moved = augment.shift(x)
    places = moved.flatten(1).argmax(1)
    assert moved.flatten(1).max(1).values.eq(255).all()
    assert set((places // 25).tolist()) == {10, 11, 12, 13, 14}
    assert set((places % 25).tolist()) == {3, 4, 5, 6, 7}
    assert set(augment.flip(x).flatten(1).argmax(1).tolist()) == {12 * 25 + 5, 12 * 25 + 19}


def test_an_augmentation_of_another_kind_is_refused(blobs: Blobs) -> None:
    x, y = blobs((20, 4), "float32")
    with pytest.raises(DataError, match=r"augment 'scal' \(did you mean 'scale'\?\): samples are of kind series"):
        fit(x, y, classes=3, settings=Settings(augment=("scal",)))


# --- precision, averages, early stop ---


def test_half_precision_learns_as_well(fashion: Fashion) -> None:
    train, test = fashion
    told = Settings(epochs=2, precision="bf16")
    net = fit(train.x[:1500], train.y[:1500], classes=10, settings=told)
    assert all(weight.dtype == torch.float32 for weight in net.module.parameters())
    assert (says(net, test.x).argmax(1) == test.y).mean() > 0.7


def test_the_average_follows_the_weights_and_is_what_is_kept(blobs: Blobs) -> None:
    x, y = blobs((6,), "float32")
    last = fit(x, y, classes=3, settings=Settings(epochs=3))
    nearly = fit(x, y, classes=3, settings=Settings(epochs=3, ema=1e-9))
    slow = fit(x, y, classes=3, settings=Settings(epochs=3, ema=0.99))
    for one, other in zip(last.module.parameters(), nearly.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert any(
        not torch.allclose(a, b) for a, b in zip(last.module.parameters(), slow.module.parameters(), strict=True)
    )


def test_an_average_over_longer_than_the_training_does_not_keep_where_it_began(blobs: Blobs) -> None:
    x, y = blobs((6,), "float32", n=200)
    slow = fit(x, y, classes=3, settings=Settings(epochs=6, batch_size=16, ema=0.9999))
    assert (says(slow, x).argmax(1) == y).mean() > 0.8


def test_it_stops_when_nothing_is_gained_and_keeps_the_best(blobs: Blobs) -> None:
    x, _ = blobs((6,), "float32", n=200)
    y = np.random.default_rng(0).integers(0, 3, 200)  # nothing to be learned: what is kept back gets worse and worse
    said: list[str] = []
    points: list[Point] = []

    def listen(_share: float, text: str, point: Point | None = None, /) -> None:
        said.append(text)
        points.append(point)

    told = Settings(epochs=60, patience=3, learning_rate=0.02, batch_size=16)
    net = fit(x, y, classes=3, settings=told, progress=listen)
    looks = [float(line.split(", ")[2].split()[0]) for line in said]
    assert [point.held_loss for point in points] == pytest.approx(looks, abs=6e-4)
    assert [point.epoch for point in points] == list(range(1, len(said) + 1))
    best = int(np.argmin(looks))
    assert len(said) == best + 4 < 60
    back = split.kept_back(y, None, None, seed=0)
    nll = -np.log(says(net, x[back])[np.arange(back.sum()), y[back]]).mean()
    assert nll == pytest.approx(looks[best], abs=2e-3)
    right = (says(net, x[back]).argmax(1) == y[back]).mean()
    assert right == pytest.approx(points[best].held_accuracy, abs=1e-6)


@given(st.integers(1, 9), st.integers(10, 60), st.integers(0, 5))
@settings(max_examples=40)
def test_devices_are_kept_back_whole_or_what_came_last(devices: int, each: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    device, order = np.repeat(np.arange(devices), each), rng.permutation(devices * each)
    y = rng.integers(0, 3, len(device))
    back = split.kept_back(y, device, order, seed=seed)
    assert set(y[back]) <= set(y[~back])
    if set(y) != set(y[~back]):
        return
    if devices >= split.DEVICES_MIN:
        assert all(len(set(back[device == one])) == 1 for one in range(devices))
    else:
        for one in range(devices):
            mine = device == one
            assert order[mine & back].min(initial=10**9) > order[mine & ~back].max()
    assert 0.05 < back.mean() < 0.45


@pytest.mark.parametrize("seed", range(8))
def test_a_device_that_has_most_of_the_samples_is_not_kept_back_as_a_whole(seed: int) -> None:
    device = np.r_[np.zeros(800), np.repeat(np.arange(1, 21), 10)]  # imports count as one, too
    back = split.kept_back(np.arange(1000) % 4, device, None, seed=seed)
    assert 0.05 <= back.mean() <= 0.3
    assert not back[device == 0].any()
    alone = np.r_[np.zeros(990), np.arange(1, 11)]  # without it too few are left to see anything by
    back = split.kept_back(np.zeros(1000, int), alone, None, seed=seed)
    assert 0.1 < back[alone == 0].mean() < 0.2


# --- the same, killed or not ---

KINDS = [
    Settings(epochs=3, batch_size=16, ema=0.9, augment=("shift",), distil=1.0, shrink=0.5, heads=2),
    Settings(epochs=4, batch_size=16, patience=4, pseudo_labels=0.5, augment=("shift", "brightness")),
]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("told", KINDS)
@pytest.mark.parametrize("after", [1, 2])
def test_a_training_goes_on_from_its_checkpoint_to_the_same_weights(
    told: Settings, after: int, blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.learn.CHECKPOINT_STEPS", 5)  # within an epoch, too
    x, y = blobs((12, 12), "uint8", n=150)
    parent = fit(x[:60], y[:60], classes=3, settings=Settings(epochs=1)).weights()
    beside = Beside(unlabelled=x[100:])
    whole = fit(x, y, classes=3, settings=told, parent=parent, beside=beside).weights()
    seen: list[float] = []

    def dies(share: float, *_: object) -> None:
        seen.append(share)
        if len(seen) == after:
            raise KilledError

    with pytest.raises(KilledError):
        fit(x, y, classes=3, settings=told, parent=parent, beside=beside, folder=tmp_path, progress=dies)
    seen.clear()
    again = fit(x, y, classes=3, settings=told, parent=parent, beside=beside, folder=tmp_path,
                progress=lambda share, *_: seen.append(share))  # fmt: skip
    assert again.weights() == whole
    assert told.epochs - after <= len(seen) <= told.epochs - after + 1  # it did go on, and did not begin anew


def test_one_killed_after_its_best_still_ends_with_that(blobs: Blobs, tmp_path: Path) -> None:
    x, _ = blobs((6,), "float32", n=400)
    y = np.random.default_rng(0).integers(0, 3, 400)  # it gets worse and worse
    told = Settings(epochs=60, patience=20, learning_rate=0.02, batch_size=16)
    said: list[str] = []
    whole = fit(x, y, classes=3, settings=told, progress=lambda _, text, *_more: said.append(text))
    assert len(said) < 60

    def dies(_share: float, text: str, *_: object) -> None:
        if text == said[-3]:
            raise KilledError

    with pytest.raises(KilledError):
        fit(x, y, classes=3, settings=told, folder=tmp_path, progress=dies)
    again: list[str] = []
    resumed = fit(x, y, classes=3, settings=told, folder=tmp_path, progress=lambda _, text, *_more: again.append(text))
    assert again[-1] == said[-1]
    assert len(again) < 20  # the best was before what was killed
    assert resumed.weights() == whole.weights()


def test_a_checkpoint_of_another_training_or_a_damaged_one_counts_as_none(blobs: Blobs, tmp_path: Path) -> None:
    x, y = blobs((6,), "float32")
    fit(x, y, classes=3, settings=Settings(epochs=2), folder=tmp_path)
    other, file = Settings(epochs=2, seed=1), tmp_path / checkpoint.FILE
    wanted = fit(x, y, classes=3, settings=other).weights()
    whole = file.read_bytes()
    for left in (whole, whole[: len(whole) // 2], b"nothing"):
        file.write_bytes(left)
        said: list[str] = []
        made = fit(
            x, y, classes=3, settings=other, folder=tmp_path, progress=lambda _, text, *_more, to=said: to.append(text)
        )
        assert len(said) == 2
        assert made.weights() == wanted
