from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.strategy import check
from edge_agent.config import load_config as load_agent
from models import train
from models.data import Labelled
from models.package import package
from models.train import fit
from server.__main__ import main
from server.backtest import drift, grid, report, strategies
from server.backtest.advice import TOML, advise
from server.backtest.material import Material, split
from server.backtest.replay import Cell, Reference, Settings, overdraft, play, teach
from server.backtest.summary import Line, lines
from server.config import load_config as load_server
from server.errors import ServerConfigError
from server.teach import portfolio

LENGTH = 4000


def blobs(count: int, *, seed: int = 0, ordered: bool = False) -> Labelled:
    """Four classes of points in eight dimensions that overlap."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    x = rng.normal(size=(4, 8))[y] + 0.7 * rng.normal(size=(count, 8))
    return Labelled(x.astype(np.float32), y, ("a", "b", "c", "d"), t=np.arange(count)[::-1] if ordered else None)


def save(data: Labelled, path: Path) -> Path:
    np.savez(path, x=data.x, y=data.y, names=np.array(data.names))
    return path


def cell(strategy: str, seed: int, accuracy: list[float], *, used: int = 200) -> Cell:
    """A run with two models after the first, and a budget of 5 %."""
    rows = list(range(0, LENGTH, LENGTH // used))
    return Cell(
        strategy=strategy, budget=0.05, seed=seed, length=LENGTH, labels=[0, used // 2, used], accuracy=accuracy,
        online=[0.5, 0.6], rows=rows, overdraft=overdraft(rows, 0.05),
    )  # fmt: skip


def at_random(labels: float) -> float:
    """Accuracy that random reaches, up to 800 labels."""
    return 0.5 + 0.1 * math.log1p(labels / 25.0)


def results(ours: list[list[float]]) -> grid.Results:
    sizes = [50, 200, 800]
    references = [Reference(seed=s, labels=sizes, accuracy=[*map(at_random, sizes)]) for s in range(len(ours))]
    random = [cell("random", s, [0.5, at_random(100), at_random(200)]) for s in range(len(ours))]
    return grid.Results([*random, *(cell("winnow", s, curve) for s, curve in enumerate(ours))], references)


def ours(found: list[Line]) -> Line:
    return next(line for line in found if line.strategy == "winnow")


# --- what is replayed ---


@pytest.mark.parametrize("ordered", [False, True])
def test_first_labels_stream_and_test_never_overlap(ordered: bool) -> None:
    data = blobs(2000, ordered=ordered)
    parts = split(data, base=50, samples=500, rng=np.random.default_rng(0))
    rows = [tuple(row) for part in parts[:3] for row in part.x.tolist()]
    assert len(rows) == len(set(rows))
    assert len(parts.base.y) == 50
    assert len(parts.stream.y) == 500


def test_data_with_an_order_keep_it() -> None:
    parts = split(blobs(2000, ordered=True), base=50, samples=0, rng=np.random.default_rng(0))
    times = [*parts.base.t, *parts.stream.t]  # type: ignore[misc]
    assert times == sorted(times)


def test_too_little_data_are_refused() -> None:
    with pytest.raises(ServerConfigError, match="give more data"):
        split(blobs(300), base=200, samples=0, rng=np.random.default_rng(0))


def test_a_beginning_of_one_class_asks_for_a_longer_one() -> None:
    """A smaller one would hold no more classes."""
    data = blobs(900)
    alike = Labelled(data.x, np.sort(data.y), data.names, t=np.arange(900))
    with pytest.raises(ServerConfigError, match="all of class a.*a larger --base"):
        split(alike, base=40, samples=0, rng=np.random.default_rng(0))


# --- who chooses ---


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
def test_every_strategy_spends_about_its_budget(name: str) -> None:
    rng = np.random.default_rng(1)
    logits = (3.0 * rng.normal(size=(LENGTH, 4))).astype(np.float32)
    embedding = rng.normal(size=(LENGTH, 8)).astype(np.float32)
    chooser = strategies.find(name)(0.05, np.random.default_rng(2))
    halves = [chooser.choose(logits[i : i + LENGTH // 2], embedding[i : i + LENGTH // 2]) for i in (0, LENGTH // 2)]
    rows = [*halves[0], *(LENGTH // 2 + row for row in halves[1])]
    assert rows == sorted(set(rows))
    assert (0.04 if name != "fixed" else 0.0) < len(rows) / LENGTH < 0.06  # `fixed` rarely finds one so unsure
    if name not in strategies.PUBLISHED:
        assert overdraft(rows, 0.05) <= strategies.DEPTH


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(ServerConfigError, match="did you mean 'margin'"):
        strategies.find("margins")


@settings(deadline=None, max_examples=50)
@given(st.sets(st.integers(0, 60), max_size=30), st.sampled_from([0.1, 0.25, 0.5]))
def test_the_overdraft_is_that_of_the_worst_window(rows: set[int], budget: float) -> None:
    windows = [
        sum(begin <= row < end for row in rows) - budget * (end - begin)
        for begin in range(61)
        for end in range(begin + 1, 62)
    ]
    assert overdraft(list(rows), budget) == pytest.approx(max(0.0, *windows))


def test_every_device_has_a_budget_of_its_own() -> None:
    """Two devices, one after the other in time: the second still has its own tokens, and its windows are its own."""
    data = blobs(3000)
    data = Labelled(data.x, data.y, data.names, device=np.repeat(["one", "two"], 1500), t=np.arange(3000))
    material = split(data, base=40, samples=0, rng=np.random.default_rng(0))
    how = Settings(rounds=2, delay=0, epochs=1, steps=1)
    made = play(
        material, teach(material, [], seed=0, settings=how), strategy="winnow", budget=0.05, seed=0, settings=how
    )
    two = np.flatnonzero(material.stream.device == "two")
    spent = np.isin(made.rows, two).sum() / len(two)
    assert 0.03 < spent < 0.07
    assert 0 < made.overdraft <= strategies.DEPTH


# --- what it says ---


def test_the_saving_is_what_random_would_have_needed() -> None:
    found, curve = lines(results([[0.5, at_random(200), at_random(300)]] * 3))
    line = ours(found)
    assert curve.needs(0.5) == pytest.approx(0)
    assert curve.needs(at_random(300)) == pytest.approx(300)
    assert curve.reaches(300) == pytest.approx(at_random(300))
    assert line.saving.value == pytest.approx(300 / 200)
    assert line.gain.value == pytest.approx(at_random(300) - at_random(200))
    assert [level.random_needs for level in line.levels] == pytest.approx([50, 25 * (9**0.75 - 1), 200])
    assert [level.used for level in line.levels] == pytest.approx([50, 75, 100])
    assert sum(line.by_part) / len(line.by_part) == pytest.approx(0.05)


def test_random_against_itself_saves_nothing() -> None:
    found, _ = lines(results([[0.5, at_random(100), at_random(200)]] * 3))
    assert all(line.saving.value == pytest.approx(1.0) for line in found)


def test_a_level_that_is_not_reached_has_no_figure() -> None:
    found, _ = lines(results([[0.5, at_random(50), at_random(100)]] * 3))
    assert [level.used is None for level in ours(found).levels] == [False, True, True]
    assert ours(found).saving.value == pytest.approx(0.5)


def test_a_saving_past_the_end_of_the_reference_is_a_lower_bound() -> None:
    found, _ = lines(results([[0.5, 0.7, 1.4]] * 3))
    assert ours(found).lower_bound
    assert ours(found).saving.value == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("curves", "said", "to_paste"),
    [
        ([[0.5, 0.7, 0.8], [0.5, 0.7, 0.81]], "use it", True),
        ([[0.5, 0.7, 0.6], [0.5, 0.7, 0.8]], "no difference shown", True),
        ([[0.5, 0.6, 0.6], [0.5, 0.6, 0.601]], "does not pay", False),
        ([[0.5, 0.7, 0.8]], "one seed tells nothing", True),
    ],
)
def test_the_advice_claims_no_more_than_the_interval(curves: list[list[float]], said: str, to_paste: bool) -> None:
    found, _ = lines(results(curves))
    (advice,) = advise(found)
    assert said in advice.words
    assert ("label_share = 0.05" in advice.toml) == to_paste
    assert bool(advice.toml) == to_paste  # what is advised against is not there to be pasted


@pytest.mark.parametrize("strategy", TOML)
def test_what_is_advised_can_be_pasted(tmp_path: Path, strategy: str) -> None:
    told = TOML[strategy].format(budget=1e-05)
    parts = {one.split("; ")[0]: one for one in told.split("# into ")[1:]}
    assert set(parts) == {"agent.toml"} | ({"server.toml"} if strategy == "portfolio" else set())
    for file, part in parts.items():
        head = "[device]\nname = 'cam-1'\n" if file == "agent.toml" else ""
        (tmp_path / file).write_text(f"{head}# into {part}")
    assert load_agent(tmp_path / "agent.toml").budget.label_share == 1e-05
    if strategy == "portfolio":
        assert len(portfolio.parse(load_server(tmp_path / "server.toml").choose.portfolio)) == 3
    else:
        check(load_agent(tmp_path / "agent.toml").choose.strategy)


# --- the whole of it ---

ARGUMENTS = (
    "--strategies margin,winnow --budgets 0.05 --seeds 2 --base 20 --samples 400 "
    "--rounds 2 --delay 50 --epochs 2 --steps 20"
)


def test_the_command_writes_the_report_and_goes_on_from_what_is_done(tmp_path: Path) -> None:
    data, out = save(blobs(900), tmp_path / "blobs.npz"), tmp_path / "out"
    command = ["backtest", "--data", str(data), "--out", str(out), *ARGUMENTS.split()]
    assert main(command) == 0
    first = (out / "backtest.json").read_text()
    cells = sorted((out / "cells").glob("*.json"))
    assert len(cells) == 2 * (1 + 3)
    page = (out / "backtest.html").read_text()
    assert [one["budget"] for one in json.loads(first)["advice"]] == [0.05]
    assert 'src="data:image/png' in page
    assert "http" not in page
    kept = {path: path.stat().st_mtime_ns for path in cells[1:]}
    cells[0].unlink()
    assert main(command) == 0
    assert (out / "backtest.json").read_text() == first
    assert {path: path.stat().st_mtime_ns for path in cells[1:]} == kept


def test_a_given_model_runs_first(tmp_path: Path) -> None:
    """One that was taught the wrong names shows it."""
    own = blobs(500)
    net = fit(own.x, (own.y + 1) % 4, classes=4, settings=train.Settings())
    made = package(net, name="own", names=own.names, version=1, calibration=own.x, holdout=(own.x, own.y), int8=False)
    (tmp_path / "own.onnx").write_bytes(made.onnx)
    data = save(blobs(900), tmp_path / "blobs.npz")
    common = ["backtest", "--data", str(data), *ARGUMENTS.split(), "--seeds", "1", "--strategies", "random"]
    starts = []
    for name, more in (("without", []), ("with", ["--model", str(tmp_path / "own.onnx")])):
        assert main([*common, "--out", str(tmp_path / name), *more]) == 0
        line = json.loads((tmp_path / name / "backtest.json").read_text())["lines"][0]
        starts.append(line["accuracy"][0]["value"])
    assert starts[1] < 0.3 < starts[0]


def test_a_given_model_that_cannot_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = save(blobs(900), tmp_path / "blobs.npz")
    (tmp_path / "no.onnx").write_bytes(b"no model")
    model = ["--model", str(tmp_path / "no.onnx"), "--out", str(tmp_path / "out")]
    assert main(["backtest", "--data", str(data), *ARGUMENTS.split(), *model]) == 1
    assert f"--model {tmp_path / 'no.onnx'}: " in capsys.readouterr().err


def test_other_data_or_settings_start_afresh(tmp_path: Path) -> None:
    small = Settings(rounds=1, epochs=1, steps=1)

    def run(data: Labelled, how: Settings) -> int:
        what = grid.make(["random"], [0.1], 1, how)
        grid.run(
            what,
            lambda _: split(data, base=20, samples=200, rng=np.random.default_rng(0)),
            folder=tmp_path,
            digest=grid.digest_of(data),
            done=lambda _: None,
        )
        return len(list(tmp_path.glob("*.json")))

    assert [run(blobs(500), small), run(blobs(500), small)] == [2, 2]
    assert run(blobs(500, seed=1), small) == 4
    assert run(blobs(500), Settings(rounds=1, epochs=2, steps=1)) == 6
    as_images = blobs(500)
    assert run(Labelled(as_images.x.reshape(-1, 2, 4), as_images.y, as_images.names), small) == 8


def test_samples_that_are_left_out_are_counted(tmp_path: Path) -> None:
    data = blobs(900)
    data.x[::9] = np.nan
    command = ["backtest", "--data", str(save(data, tmp_path / "blobs.npz")), *ARGUMENTS.split(), "--seeds", "1"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    said = "100 of 900 samples hold NaN or infinity and were left out."
    assert said in json.loads((tmp_path / "backtest.json").read_text())["notes"]


AT_ONCE = """
import sys
from pathlib import Path

from server.backtest.grid import _once
from server.backtest.replay import Reference

print(flush=True)
sys.stdin.readline()
for cell in range(2000):
    _once(Path(sys.argv[1]) / f"{cell}.json", Reference, lambda: Reference(seed=0, labels=[cell], accuracy=[0.5]))
"""


def test_two_runs_may_make_the_same_cells_at_once(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout is not None
        run.stdout.readline()
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{cell}.json" for cell in range(2000))


def test_a_cell_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_bytes(b"")  # a power cut
    whole = Reference(seed=0, labels=[1], accuracy=[0.5])
    assert grid._once(path, Reference, lambda: whole) == whole
    assert json.loads(path.read_bytes())["labels"] == [1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--budgets=5", "between 0 and 1"),
        ("--budgets=a", "expected numbers"),
        ("--rounds=5000", "expected at least one for each"),
        ("--out=/dev/null", "--out /dev/null: Not a directory; expected a folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    data = save(blobs(900), tmp_path / "blobs.npz")
    assert main(["backtest", "--data", str(data), "--out", str(tmp_path), option]) == 78
    assert said in capsys.readouterr().err


def test_the_table_has_a_row_for_each_line() -> None:
    found, _ = lines(results([[0.5, 0.7, 0.8]] * 3))
    assert [row["strategy"] for row in report.table(found)] == ["random", "winnow"]


# --- when the world changes ---


def material_of(*specs: str, data: Labelled | None = None, seed: int = 0) -> Material:
    data = data or blobs(3000)
    plain = split(data, base=60, samples=0, rng=np.random.default_rng(seed))
    return drift.apply(plain, drift.parse(specs, data.names), np.random.default_rng(seed))


def test_without_a_change_nothing_changes() -> None:
    assert material_of().stages == ()


def test_a_class_appears_and_was_nowhere_before() -> None:
    made = material_of("class:c@0.25")
    begins = made.stages[1].row
    assert 2 not in made.base.y
    assert 2 not in made.stream.y[:begins]
    assert 2 not in made.test_at(begins - 1).y
    for later in (made.stream.y[begins:], made.test_at(begins).y):
        assert 0.15 < np.mean(later == 2) < 0.35
    assert made.test is made.test_at(len(made.stream.y) - 1)


def test_noise_begins_where_it_is_said_to_and_adds_up() -> None:
    plain, made = material_of(), material_of("noise@0.5", "dark@0.75")
    half, last = (stage.row for stage in made.stages[1:])
    assert (made.stream.x[:half] == plain.stream.x[:half]).all()
    assert not np.isclose(made.stream.x[half:], plain.stream.x[half:]).any(axis=1).all()
    assert np.std(made.stream.x[half:last]) > 1.05 * np.std(plain.stream.x)
    assert np.std(made.stream.x[last:]) < 0.6 * np.std(plain.stream.x)
    assert (made.test_at(0).x == plain.test.x).all()
    assert (made.stream.y == plain.stream.y).all()


def test_a_mix_makes_the_same_classes_rare_in_stream_and_test() -> None:
    made = material_of("mix@0.5")
    begins = made.stages[1].row
    rare = [
        np.flatnonzero(np.bincount(y, minlength=4) < 0.5 * len(y) / 4) for y in (made.stream.y[begins:], made.test.y)
    ]
    assert len(rare[0]) == 2
    assert rare[0].tolist() == rare[1].tolist()


def test_models_are_judged_by_the_world_of_their_moment_and_by_the_last_one() -> None:
    made = material_of("class:c@0.5")
    how = Settings(rounds=4, delay=0, epochs=30, steps=200)
    found = play(made, teach(made, [], seed=0, settings=how), strategy="winnow", budget=0.1, seed=0, settings=how)
    assert found.then[1] > found.accuracy[1] + 0.1  # before the change nobody knows the class that is to come
    assert found.then[-1] == found.accuracy[-1] > found.accuracy[1] + 0.1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("fog", "KIND@SHARE"),
        ("fog@2", "between 0 and 1"),
        ("fogg@0.5", "did you mean 'fog'"),
        ("class@0.5", "class:NAME@SHARE"),
        ("class:bb@0.5", "did you mean 'b'"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ServerConfigError, match=said):
        drift.parse([spec], ["a", "b", "c"])


# --- a portfolio ---


def test_a_portfolio_moves_devices_between_arms_and_spends_as_one_strategy_would() -> None:
    data = blobs(6000)
    data = Labelled(data.x, data.y, data.names, device=np.arange(6000) % 3, t=np.arange(6000))
    made = split(data, base=40, samples=0, rng=np.random.default_rng(0))
    how = Settings(rounds=6, delay=20, epochs=2, steps=20)
    first = teach(made, [], seed=0, settings=how)
    found = play(made, first, strategy="portfolio", budget=0.05, seed=0, settings=how)
    again = play(made, first, strategy="portfolio", budget=0.05, seed=0, settings=how)
    assert found == again
    assert len(found.arms) == 7
    assert all(sum(shares.values()) == pytest.approx(1.0) for shares in found.arms)
    assert found.arms[0] != found.arms[-1]
    assert 0.03 < len(found.rows) / found.length < 0.07
    assert found.overdraft <= strategies.DEPTH


# --- killed ---


def test_killed_at_any_moment_it_goes_on_and_says_the_same(tmp_path: Path) -> None:
    data = save(blobs(900), tmp_path / "blobs.npz")
    command = ["backtest", "--data", str(data), *ARGUMENTS.split(), "--seeds", "1", "--drift", "noise@0.5", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    cut, cells = tmp_path / "cut", tmp_path / "cut" / "cells"
    for wanted in (1, 4):
        process = subprocess.Popen(
            [sys.executable, "-m", "server.__main__", *command, str(cut)], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while len(list(cells.glob("*.json"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 4 <= len(kept) < 8
    assert main([*command, str(cut)]) == 0
    assert (cut / "backtest.json").read_text() == (tmp_path / "whole" / "backtest.json").read_text()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
