"""Is no arm starved, does the better one win, and is what labels taught put down to those who asked for them?"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants
from device_words import NOW_MS, birth, message
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.wire import encode
from server import config
from server.collect.ingest import Ingest
from server.errors import ServerConfigError
from server.release.fleet import Fleet
from server.release.registry import add_artifact
from server.status import overview
from server.store import devices, portfolios, runs, schema
from server.store.store import Store
from server.teach import lesson, portfolio
from server.teach.lesson import Audit, Gain
from server.teach.snapshot import freeze
from server.teach.steering import HORIZON_MS, Steering

ARMS = portfolio.parse(["margin", "entropy", "vessal"])
MARGIN, ENTROPY, VESSAL = (arm.name for arm in ARMS)
figures = st.floats(-1.0, 1.0)
gain = st.builds(Gain, mean=figures, sd=st.floats(1e-6, 1.0), labels=st.integers(1, 1000))
rounds = st.lists(st.dictionaries(st.sampled_from([MARGIN, ENTROPY, VESSAL, "else/where"]), gain), max_size=30)


def after(seen: list[dict[str, Gain]]) -> portfolio.State:
    state = portfolio.fresh(ARMS)
    for gains in seen:
        state = portfolio.learn(state, gains, dict.fromkeys(gains, 1))
    return state


# --- shares ---


@settings(deadline=None, max_examples=100)
@given(rounds)
def test_shares_sum_to_one_and_no_arm_is_ever_starved(seen: list[dict[str, Gain]]) -> None:
    shares = portfolio.shares(after(seen))
    assert sum(shares.values()) == pytest.approx(1.0)
    assert min(shares.values()) >= portfolio.FLOOR / 3 - 1e-12
    assert set(shares) == {MARGIN, ENTROPY, VESSAL}


@settings(deadline=None, max_examples=100)
@given(rounds, st.integers(0, 40), st.integers(0, 9))
def test_every_device_has_an_arm_and_the_fleet_keeps_to_the_shares(
    seen: list[dict[str, Gain]], count: int, seed: int
) -> None:
    state, names = after(seen), [f"cam-{index}" for index in range(count)]
    told = portfolio.assign(state, names, np.random.default_rng(seed))
    assert told == portfolio.assign(state, names, np.random.default_rng(seed))
    assert sorted(told) == sorted(names)
    for arm, share in portfolio.shares(state).items():
        assert abs(list(told.values()).count(arm) - share * count) < 1.0 + 1e-6


def test_one_device_alone_gets_every_arm_with_its_share() -> None:
    state = after([{MARGIN: Gain(mean=0.01, sd=0.001, labels=50), ENTROPY: Gain(mean=0.0, sd=0.001, labels=50)}] * 3)
    rng = np.random.default_rng(0)
    drawn = [portfolio.assign(state, ["cam"], rng)["cam"] for _ in range(2000)]
    for arm, share in portfolio.shares(state).items():
        assert drawn.count(arm) / 2000 == pytest.approx(share, abs=0.056)  # five standard deviations


def test_the_better_arm_wins_and_what_stands_still_stays() -> None:
    """Each round's gains are noisy by as much as arms differ; labels teach ever less."""
    rng = np.random.default_rng(0)
    state = portfolio.fresh(ARMS)
    for step in range(60):
        typical = 1e-3 / (1 + 0.05 * step)
        true = {MARGIN: 1.5 * typical, ENTROPY: 0.5 * typical, VESSAL: typical}
        seen = {
            name: Gain(mean=float(rng.normal(mean, 0.5 * typical)), sd=0.5 * typical, labels=30)
            for name, mean in true.items()
        }
        state = portfolio.learn(state, seen, dict.fromkeys(true, 2))
    shares = portfolio.shares(state)
    assert shares[MARGIN] > 0.6
    assert shares[ENTROPY] < 0.1
    assert state.beliefs[MARGIN].pulls == 120
    assert state.beliefs[MARGIN].labels == 60 * 30


def test_one_arm_at_a_time_learns_too() -> None:
    """A single device: arms take turns, and each is held against what labels gained before."""
    rng = np.random.default_rng(1)
    state = portfolio.fresh(ARMS)
    for _ in range(150):
        (arm,) = portfolio.assign(state, ["cam"], rng).values()
        mean = {MARGIN: 1.5e-3, ENTROPY: 0.5e-3, VESSAL: 1e-3}[arm]
        seen = {arm: Gain(mean=float(rng.normal(mean, 3e-4)), sd=3e-4, labels=30)}
        state = portfolio.learn(state, seen, {arm: 1})
    assert max(portfolio.shares(state), key=portfolio.shares(state).__getitem__) == MARGIN


def test_an_audit_that_shows_nothing_changes_nothing() -> None:
    noisy = {name: Gain(mean=mean, sd=1.0, labels=9) for name, mean in ((MARGIN, 0.01), (ENTROPY, -0.01))}
    shares = portfolio.shares(after([noisy] * 5))
    assert all(share == pytest.approx(1 / 3, abs=0.02) for share in shares.values())


def test_a_belief_fades_when_nothing_more_is_seen() -> None:
    sure = after([{MARGIN: Gain(mean=0.01, sd=1e-4, labels=50), ENTROPY: Gain(mean=0.0, sd=1e-4, labels=50)}] * 20)
    faded = sure
    for _ in range(300):
        faded = portfolio.learn(faded, {}, {})
    assert portfolio.shares(sure)[MARGIN] > 0.6
    assert portfolio.shares(faded)[MARGIN] == pytest.approx(1 / 3, abs=0.02)


def test_what_is_known_of_an_arm_survives_a_change_of_the_others() -> None:
    state = after([{MARGIN: Gain(mean=0.01, sd=0.001, labels=50), ENTROPY: Gain(mean=0.0, sd=0.001, labels=50)}])
    other = portfolio.fresh(portfolio.parse(["margin", "energy"]), state)
    assert other.beliefs[MARGIN] == state.beliefs[MARGIN]
    assert other.beliefs["novelty_quantile/energy"] == portfolio.Belief()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["margins", "vessal"], "did you mean 'margin'"),
        (["margin"], "two arms or more"),
        (["margin", "novelty_quantile/margin"], "each once"),
        (["split/margin", "vessal"], "unknown"),
        (["margin", "bald"], "asks a model of several heads"),
        (["margin", "vessal/vote_entropy"], "asks a model of several heads"),
    ],
)
def test_arms_that_make_no_sense_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(ServerConfigError, match=said):
        portfolio.parse(names)


# --- what labels taught ---


def two_regions(count: int = 200) -> tuple[Audit, np.ndarray, np.ndarray]:
    """The new model is right on the left half of the world, where one arm asked; the other asked on the right."""
    rng = np.random.default_rng(0)
    audit = rng.normal(size=(count, 2)).astype(np.float32)
    labels = rng.normal(size=(60, 2)).astype(np.float32)
    change = ((audit[:, 0] < 0) & (rng.random(count) < 0.5)).astype(np.float64)
    arms = np.where(labels[:, 0] < 0, MARGIN, ENTROPY)
    return Audit(change, rng.uniform(1.0, 5.0, count), audit), arms, labels


def test_the_gain_is_that_of_who_asked_where_something_changed() -> None:
    audit, arms, labels = two_regions()
    found = lesson.gains(audit, arms, labels)
    assert found[MARGIN].mean > 5 * abs(found[ENTROPY].mean)


def test_all_gains_together_are_the_difference_of_the_weighted_accuracies() -> None:
    audit, arms, labels = two_regions()
    found = lesson.gains(audit, arms, labels)
    whole = float(audit.weight @ audit.change) / float(audit.weight.sum())
    assert sum(one.mean * one.labels for one in found.values()) == pytest.approx(whole)
    (alone,) = lesson.gains(audit, np.full(60, MARGIN), labels).values()
    assert alone.mean == pytest.approx(whole / 60)
    assert lesson.total(found).mean == pytest.approx(whole / 60)


def test_labels_of_nobody_take_their_part_and_have_no_gain() -> None:
    audit, arms, labels = two_regions()
    found = lesson.gains(audit, np.where(arms == ENTROPY, "", arms), labels)
    assert found == {MARGIN: lesson.gains(audit, arms, labels)[MARGIN]}


def test_a_small_audit_says_nothing() -> None:
    audit, arms, labels = two_regions(3)
    assert lesson.gains(audit, arms, labels) == {}


def test_the_stated_error_covers_the_gain() -> None:
    """Of many audits of one change, 95 % lie within two of the stated standard errors, or a few more."""
    rng = np.random.default_rng(5)
    labels = rng.normal(size=(30, 3)).astype(np.float32)
    arms = np.where(np.arange(30) < 15, MARGIN, ENTROPY)
    world = rng.normal(size=(20_000, 3)).astype(np.float32)
    change = rng.choice([-1.0, 0.0, 1.0], len(world), p=[0.05, 0.8, 0.15])
    p = rng.uniform(0.002, 0.02, len(world))
    truth = lesson.gains(Audit(change, np.ones(len(world)), world), arms, labels)[MARGIN].mean
    inside = 0
    for _ in range(200):
        rows = np.flatnonzero(rng.random(len(world)) < p)
        seen = lesson.gains(Audit(change[rows], 1.0 / p[rows], world[rows]), arms, labels)[MARGIN]
        inside += abs(seen.mean - truth) < 2.0 * seen.sd
    assert inside >= 180


# --- on the server ---


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def connect(store: Store, *names: str) -> None:
    Ingest(store, fleet="test", offline_after_s=90.0).take(
        [message(name, "birth", encode(birth("s"))) for name in names]
    )


def ended_run(store: Store, gains: dict[str, Gain], snapshot_id: str) -> int:
    with store.database.write() as connection:
        run_id = runs.insert(connection, snapshot_id=snapshot_id, champion=1, recipe="", report={}, now_ms=NOW_MS)
        report = {"gains": msgspec.to_builtins(gains)}
        runs.finish(connection, run_id, state="rejected", report=report, now_ms=NOW_MS)
    return run_id


def told(store: Store) -> dict[str, str | None]:
    with store.database.read() as connection:
        return portfolios.told(connection)


def events(store: Store) -> list[str]:
    with store.database.read() as connection:
        return [row.text for row in connection.execute(schema.event.select()) if row.kind == "portfolio"]


def test_devices_get_arms_and_a_run_is_learned_from_once(store: Store) -> None:
    steering = Steering(store, ARMS, rng=np.random.default_rng(0))
    connect(store, *(f"cam-{index}" for index in range(6)))
    steering.tick(NOW_MS)
    first = told(store)
    assert sorted(first.values()) == sorted([MARGIN, ENTROPY, VESSAL] * 2)
    connect(store, "cam-9")
    steering.tick(NOW_MS)
    assert {name: arm for name, arm in told(store).items() if name != "cam-9"} == first
    assert told(store)["cam-9"] is not None
    snapshot = freeze(store, now_ms=NOW_MS)
    seen = {MARGIN: Gain(mean=0.02, sd=0.001, labels=50), ENTROPY: Gain(mean=0.0, sd=0.001, labels=50)}
    run_id = ended_run(store, seen, snapshot.id)
    steering.tick(NOW_MS)
    (said,) = events(store)
    assert said.startswith(f"after run {run_id}: {MARGIN} ")
    Steering(store, ARMS, rng=np.random.default_rng(1)).tick(NOW_MS)  # after a restart
    assert len(events(store)) == 1
    view = overview(config.ServerConfig(), store, now_ms=NOW_MS)["portfolio"]
    assert view[0]["arm"] == MARGIN
    assert sum(arm["devices"] for arm in view) == 7
    assert {arm["arm"]: arm["pulls"] for arm in view}[ENTROPY] >= 2
    json.dumps(view)


def kept_run(store: Store) -> int:
    with store.database.read() as connection:
        return portfolios.get(connection).run_id


def test_runs_from_before_it_was_switched_on_are_not_learned_from(store: Store) -> None:
    connect(store, *(f"cam-{index}" for index in range(6)))
    snapshot = freeze(store, now_ms=NOW_MS)
    seen = {MARGIN: Gain(mean=0.02, sd=0.001, labels=50), ENTROPY: Gain(mean=0.0, sd=0.001, labels=50)}
    old = [ended_run(store, seen, snapshot.id) for _ in range(3)]
    rng = np.random.default_rng(0)
    steering, off = Steering(store, ARMS, rng=rng), Steering(store, (), rng=rng)
    steering.tick(NOW_MS)
    first = told(store)
    for _ in range(4):
        steering.tick(NOW_MS)
    assert (told(store), events(store), kept_run(store)) == (first, [], old[-1])
    learned = ended_run(store, seen, snapshot.id)
    steering.tick(NOW_MS)
    assert (len(events(store)), kept_run(store)) == (1, learned)
    with store.database.read() as connection:
        state = portfolios.get(connection).state
    off.tick(NOW_MS)
    assert set(told(store).values()) == {None}
    meanwhile = ended_run(store, seen, snapshot.id)
    off.tick(NOW_MS)
    steering.tick(NOW_MS)
    steering.tick(NOW_MS)
    with store.database.read() as connection:
        kept = portfolios.get(connection)
    assert (kept.state, kept.run_id, len(events(store))) == (state, meanwhile, 1)
    assert None not in told(store).values()


def test_devices_that_are_long_silent_get_no_arm_and_are_not_counted(store: Store) -> None:
    connect(store, "cam-1", "cam-2", "old-1", "old-2")
    snapshot = freeze(store, now_ms=NOW_MS)
    steering = Steering(store, ARMS, rng=np.random.default_rng(0))
    steering.tick(NOW_MS)
    later = NOW_MS + HORIZON_MS + 1
    Ingest(store, fleet="test", offline_after_s=90.0).take(
        [message(name, "birth", encode(birth("s")), at_ms=later) for name in ("cam-1", "cam-2", "new-1")]
    )
    before = told(store)
    ended_run(store, {}, snapshot.id)
    steering.tick(later)
    after = told(store)
    assert after["new-1"] is not None
    assert {name: after[name] for name in ("old-1", "old-2")} == {name: before[name] for name in ("old-1", "old-2")}
    with store.database.read() as connection:
        beliefs = portfolios.get(connection).state["beliefs"]
    assert sum(belief["pulls"] for belief in beliefs.values()) == 2  # of cam-1 and cam-2, that had one


def test_the_orders_carry_the_arm_and_leave_it_out_when_it_is_taken_back(store: Store, tmp_path: Path) -> None:
    sent = []
    fleet = Fleet(
        store, fleet="test", rules=config.Rollout(), publish=lambda topic, payload, *, qos, retain: sent.append(payload)
    )
    connect(store, "cam-1")
    with store.database.read() as connection:
        assert devices.devices(connection)[0].arm is None
    Steering(store, ARMS, rng=np.random.default_rng(0)).tick(NOW_MS)
    fleet.tick(NOW_MS)  # before there is any rollout
    order = json.loads(sent[-1])
    assert f"{order['strategy']}/{order['acquisition']}" == told(store)["cam-1"]
    quadrants.artifact(tmp_path / "1", version=1, name="model")
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    fleet.tick(NOW_MS + 1000)
    order = json.loads(sent[-1])
    assert (order["model"]["version"], order["strategy"]) == (1, told(store)["cam-1"].partition("/")[0])
    Steering(store, (), rng=np.random.default_rng(0)).tick(NOW_MS + 2000)
    assert told(store) == {"cam-1": None}
    fleet.tick(NOW_MS + 3000)  # a change of arm is a reason to look
    order = json.loads(sent[-1])
    assert order.get("strategy") is None
    assert order.get("acquisition") is None
    assert overview(config.ServerConfig(), store, now_ms=NOW_MS)["portfolio"] == []
