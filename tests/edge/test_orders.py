"""What is in force when the server says one thing and the file another?"""

from __future__ import annotations

from edge_agent.choose.selector import Rules
from edge_agent.contract.wire import Desired
from edge_agent.orders import Orders, desired_over

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
