"""What is in force when the server says one thing and the file another?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.config import AgentConfig, Budget, Choose, Device
from edge_agent.contract.wire import Desired
from edge_agent.orders import Orders, configured, desired_over

OWN = Orders(Rules(label_share=0.1), "entropy", "novelty_quantile")


def test_what_the_server_leaves_open_stays_ours() -> None:
    assert desired_over(OWN, Desired(revision=1)) == OWN


def test_the_server_decides_over_the_file() -> None:
    said = Desired(revision=1, label_share=0.2, acquisition="margin", strategy="vessal")
    assert desired_over(OWN, said) == Orders(Rules(label_share=0.2), "margin", "vessal")


def test_what_is_not_here_is_complained_of_and_the_rest_obeyed() -> None:
    for said, word in (
        (Desired(revision=1, label_share=0.2, acquisition="margin", strategy="vesal"), "did you mean 'vessal'"),
        (Desired(revision=1, label_share=0.2, acquisition="margins", strategy="vessal"), "did you mean 'margin'"),
    ):
        orders = desired_over(OWN, said)
        assert orders[:3] == (Rules(label_share=0.2), "entropy", "novelty_quantile")
        assert word in orders.complaint


def test_what_our_own_file_asks_for_is_no_complaint_of_what_the_server_desires() -> None:
    own = OWN._replace(acquisition="bald")
    assert desired_over(own, Desired(revision=1, labels_per_day=200.0), members=1).complaint == ""
    assert desired_over(own, Desired(revision=1, acquisition="bald"), members=1).complaint


# --- more is sent than is to be labelled ---

SELECTION = {"floor_share": 0.1, "random_share": 0.05}


def config(**budget: float) -> AgentConfig:
    return AgentConfig(device=Device(name="cam-1"), budget=Budget(**budget), choose=Choose(**SELECTION))


def test_by_default_a_device_sends_what_is_labelled():
    rules = configured(config(label_share=0.04, depth_labels=15.0)).rules
    assert (rules.label_share, rules.depth_labels, rules.floor_share) == (0.04, 15.0, 0.1)


def test_over_selection_scales_share_and_depth_and_leaves_the_audit_and_the_limits_a_day():
    own = configured(config(label_share=0.04, depth_labels=15.0, over_selection=2.0, labels_per_day=50.0))
    assert (own.rules.label_share, own.rules.depth_labels, own.rules.labels_per_day) == (0.08, 30.0, 50.0)
    plain = configured(config(label_share=0.04)).rules
    for part in ("floor_share", "random_share"):
        assert getattr(own.rules, part) * own.rules.label_share == pytest.approx(getattr(plain, part) * 0.04)


def test_the_servers_share_is_scaled_alike_and_never_above_all():
    own = configured(config(over_selection=3.0))
    assert desired_over(own, Desired(revision=1, label_share=0.1)).rules.label_share == pytest.approx(0.3)
    assert desired_over(own, Desired(revision=1, label_share=0.5)).rules.label_share == 1.0
    assert desired_over(own, Desired(revision=1, bytes_per_day=9.0)).rules == own.rules._replace(bytes_per_day=9.0)


@pytest.mark.parametrize("times", [0.5, 11.0])
def test_it_is_a_number_of_times(times):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"over_selection": times}, type=Budget)


def test_what_is_sent_doubles_and_what_is_audited_does_not():
    utility = np.random.default_rng(0).random(20_000).astype(np.float32)
    scored = Scored(utility, np.zeros(20_000, np.intp), 1.0 - utility)
    sent = {}
    for times in (1.0, 2.0):
        selector = NoveltyQuantile(configured(config(label_share=0.05, over_selection=times)).rules, SplitMix64(1))
        chosen = selector.offer(scored, None, count=20_000, sample_bytes=1)
        reasons = [one.selection.reason for one in chosen]
        sent[times] = (len(chosen), sum(reason in ("explore", "random") for reason in reasons))
    assert 1.8 < sent[2.0][0] / sent[1.0][0] < 2.2
    assert 0.7 < sent[2.0][1] / sent[1.0][1] < 1.4


@pytest.mark.parametrize(
    "said", [{"label_share": 1.5}, {"label_share": -0.1}, {"labels_per_day": -1.0}, {"bytes_per_day": float("nan")},
             {"labels_per_day": float("inf")}, {"label_share": 0.2, "bytes_per_day": 100.0}, {"labels_per_day": 5.0}],
)  # fmt: skip
def test_budgets_that_cannot_be_are_complained_of_and_ours_stay(said):
    orders = desired_over(OWN, Desired(revision=1, strategy="vessal", **said), sample_bytes=564)
    assert orders.rules == OWN.rules
    assert orders.strategy == "vessal"
    assert "desired" in orders.complaint
