"""Which model runs: the transitions, by table and by random walks with power cuts."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.update import slots
from edge_agent.update.probation import Figures
from edge_agent.update.slot_file import SlotFile
from edge_agent.update.slots import Staged, Steady, Trial

VERSIONS = st.integers(1, 12)
MAX_STARTS = 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: Steady(committed=-1),
        lambda: Steady(committed=3, refused={3: "bad"}),
        lambda: Staged(committed=3, candidate=3),
        lambda: Staged(committed=3, candidate=2),
        lambda: Trial(committed=3, candidate=4, refused={4: "bad"}),
        lambda: Trial(committed=3, candidate=4, starts=-1),
        lambda: Staged(committed=3, candidate=4, starts=-1),
    ],
)
def test_illegal_states_cannot_be_built(build):
    with pytest.raises(ValueError):
        build()


@pytest.mark.parametrize(
    ("state", "version", "answer"),
    [
        (Steady(), 1, "yes"),
        (Steady(committed=3), 3, "here"),
        (Steady(committed=3), 2, "downgrade"),
        (Steady(committed=3, refused={4: "hash"}), 4, "refused"),
        (Steady(committed=3, refused={2: "old"}), 2, "refused"),
        (Staged(committed=3, candidate=4), 4, "here"),
        (Staged(committed=3, candidate=4), 5, "yes"),
        (Trial(committed=3, candidate=4), 4, "here"),
        (Trial(committed=3, candidate=4), 5, "wait"),
        (Trial(committed=3, candidate=4), 2, "downgrade"),
    ],
)
def test_what_may_be_taken(state, version, answer):
    assert slots.may_take(state, version) == answer


def test_staging_a_version_that_may_not_be_taken_fails():
    for state, version in ((Steady(committed=3), 3), (Steady(committed=3), 2), (Steady(refused={4: "bad"}), 4)):
        with pytest.raises(ValueError):
            slots.stage(state, version)


def test_a_trial_that_sees_too_many_starts_is_reverted():
    state = Trial(committed=3, candidate=4)
    for starts in (1, 2):
        state = slots.started(state, MAX_STARTS)
        assert state == Trial(committed=3, candidate=4, starts=starts)
    state = slots.started(state, MAX_STARTS)
    assert isinstance(state, Steady)
    assert state.committed == 3
    assert "2 times" in state.refused[4]


def test_so_is_a_shadow():
    state = slots.shadow(Staged(committed=3, candidate=4))
    for starts in (1, 2):
        state = slots.started(state, MAX_STARTS)
        assert state == Staged(committed=3, candidate=4, starts=starts)
        assert slots.shadow(state) == state  # it goes on
    state = slots.started(state, MAX_STARTS)
    assert state == Steady(committed=3, refused=state.refused)
    assert "2 times within its trial in the shadow" in state.refused[4]


def test_only_with_a_candidate_loaded_starts_are_counted():
    for state in (Steady(committed=3), Staged(committed=3, candidate=4)):
        assert slots.started(state, MAX_STARTS) == state


def test_another_candidate_begins_with_no_start_counted():
    shadowed = slots.started(slots.shadow(Staged(committed=3, candidate=4)), MAX_STARTS)
    assert slots.stage(shadowed, 5) == Staged(committed=3, candidate=5)
    assert slots.begin(shadowed) == Trial(committed=3, candidate=4)


def test_refusing_takes_the_version_out_of_every_slot():
    assert slots.refuse(Steady(committed=3), 4, "hash") == Steady(committed=3, refused={4: "hash"})
    assert slots.refuse(Staged(committed=3, candidate=4), 4, "load") == Steady(committed=3, refused={4: "load"})
    assert slots.refuse(Trial(committed=3, candidate=4), 4, "load") == Steady(committed=3, refused={4: "load"})
    other = slots.refuse(Trial(committed=3, candidate=4), 5, "hash")
    assert other == Trial(committed=3, candidate=4, refused={5: "hash"})
    with pytest.raises(ValueError):
        slots.refuse(Steady(committed=3), 3, "why not")


def test_a_lost_version_makes_way_and_may_come_back():
    state = slots.lost(Steady(committed=3), 1)
    assert state == Steady(committed=1)
    assert slots.may_take(state, 3) == "yes"
    with pytest.raises(ValueError):
        slots.lost(Steady(committed=3), 3)


def test_adopting_never_goes_backwards():
    assert slots.adopt(Trial(committed=3, candidate=4), 5) == Steady(committed=5)
    with pytest.raises(ValueError):
        slots.adopt(Staged(committed=3, candidate=5), 4)


def test_a_long_reason_is_cut():
    state = slots.refuse(Steady(), 1, "x" * 10_000)
    assert len(state.refused[1]) == slots.REASON_CHARS


GOLDEN = {
    b'{"slot":"steady","committed":7,"refused":{"5":"golden test"}}': Steady(committed=7, refused={5: "golden test"}),
    b'{"slot":"staged","committed":7,"candidate":8,"refused":{}}': Staged(committed=7, candidate=8),
    b'{"slot":"trial","committed":7,"candidate":8,"starts":1,"refused":{}}': Trial(committed=7, candidate=8, starts=1),
    b'{"slot":"staged","committed":7,"candidate":8,"starts":2,"refused":{}}': Staged(
        committed=7, candidate=8, starts=2
    ),
    b'{"slot":"trial","committed":7,"candidate":8,"starts":1,"before":{"samples":900,"invalid":1,"latency_p95_ms":4.5,'
    b'"confidence":0.8,"confidence_error":0.01,"expected":0.9},"refused":{}}': Trial(
        committed=7,
        candidate=8,
        starts=1,
        before=Figures(samples=900, invalid=1, latency_p95_ms=4.5, confidence=0.8, confidence_error=0.01, expected=0.9),
    ),
}


@pytest.mark.parametrize("data", GOLDEN)
def test_golden_bytes_decode_for_ever(data):
    assert slots.decode(data) == GOLDEN[data]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"null", b'{"slot":"gone"}', b'{"slot":"staged","committed":3,"candidate":2}']
)
def test_rubbish_is_a_value_error(data):
    with pytest.raises(ValueError):
        slots.decode(data)


def test_a_missing_slot_file_is_an_empty_device(tmp_path):
    assert SlotFile(tmp_path / "slots.json").load() == Steady()


def test_an_unreadable_slot_file_is_set_aside(tmp_path, caplog):
    path = tmp_path / "slots.json"
    path.write_bytes(b'{"slot":')
    assert SlotFile(path).load() == Steady()
    assert "set aside" in caplog.text
    assert not path.exists()
    assert (tmp_path / "slots.json.unreadable").read_bytes() == b'{"slot":'


class Walk(RuleBasedStateMachine):
    """Any agent and any server, over one slot that survives power cuts only as bytes."""

    def __init__(self):
        super().__init__()
        self.disk = slots.encode(Steady())
        self.committed = {0}
        self.begun = set()
        self.refused = set()

    @property
    def state(self):
        return slots.decode(self.disk)  # a power cut between any two steps

    def become(self, state, *, down=False):
        before = self.state
        assert down or slots.running(state) >= slots.running(before)
        assert state.refused.keys() >= before.refused.keys()
        assert slots.decode(slots.encode(state)) == state
        self.disk = slots.encode(state)
        self.refused = set(state.refused)
        if isinstance(state, Steady | Staged):
            self.committed.add(state.committed)

    @rule(version=VERSIONS)
    def assign(self, version):
        state = self.state
        if slots.may_take(state, version) == "yes":
            self.become(slots.stage(state, version))
            assert slots.running(self.state) == state.committed  # staging changes nothing that runs
        elif isinstance(state, Steady):
            with pytest.raises(ValueError):
                slots.stage(state, version)

    @precondition(lambda self: isinstance(self.state, Staged))
    @rule()
    def shadow(self):
        running = slots.running(self.state)
        self.become(slots.shadow(self.state))
        assert slots.running(self.state) == running  # what is beside answers nothing

    @precondition(lambda self: isinstance(self.state, Staged))
    @rule()
    def begin(self):
        self.begun.add(self.state.candidate)
        self.become(slots.begin(self.state))

    @precondition(lambda self: isinstance(self.state, Staged | Trial))
    @rule()
    def unstage(self):
        before = self.state
        self.become(slots.unstage(before), down=isinstance(before, Trial))
        assert self.state == Steady(committed=before.committed, refused=before.refused)

    @precondition(lambda self: isinstance(self.state, Trial))
    @rule()
    def commit(self):
        running = slots.running(self.state)
        self.become(slots.commit(self.state))
        assert slots.running(self.state) == running

    @precondition(lambda self: isinstance(self.state, Trial))
    @rule()
    def revert(self):
        before = self.state
        self.become(slots.revert(before, "bad"), down=True)
        assert slots.running(self.state) == before.committed
        assert before.candidate in self.refused

    @rule(version=VERSIONS)
    def refuse(self, version):
        state = self.state
        if version != state.committed:
            tried = isinstance(state, Trial) and state.candidate == version
            self.become(slots.refuse(state, version, "bad"), down=tried)
            assert version in self.refused

    @rule()
    def start(self):
        state = self.state
        self.become(slots.started(state, MAX_STARTS), down=isinstance(state, Trial) and state.starts >= MAX_STARTS)

    @rule(version=VERSIONS)
    def adopt(self, version):
        if version >= slots.newest(self.state) and version not in self.refused:
            self.become(slots.adopt(self.state, version))

    @invariant()
    def one_proven_version_runs(self):
        running = slots.running(self.state)
        assert running not in self.refused
        assert running in self.committed or (isinstance(self.state, Trial) and running in self.begun)


Walk.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
test_random_walks = Walk.TestCase
