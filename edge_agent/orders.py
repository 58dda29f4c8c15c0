"""Which budgets, acquisition function and strategy are in force?

What the server desires, and where it leaves something open, what the device was configured to.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edge_agent.choose import strategy
from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.purse import Purse, Tokens
from edge_agent.choose.rules import Rules
from edge_agent.config import AgentConfig
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.wire import Budgets, Desired

BY_THE_SERVER = ("label_share", "labels_per_day", "bytes_per_day")


class Orders(NamedTuple):
    """What the loop is to keep to.

    over_selection: times what is to be labelled that the rules let through. complaint: what of the desired cannot be,
    or nothing.
    """

    rules: Rules
    acquisition: str
    strategy: str
    over_selection: float = 1.0
    complaint: str = ""

    def budgets(self) -> Budgets:
        """As they are said back."""
        return Budgets(
            label_share=self.rules.label_share,
            labels_per_day=self.rules.labels_per_day,
            bytes_per_day=self.rules.bytes_per_day,
            complaint=self.complaint[:500],
        )


def configured(config: AgentConfig) -> Orders:
    """As the file says."""
    budget, choose = config.budget, config.choose
    rules = Rules(
        label_share=budget.label_share,
        depth_labels=budget.depth_labels,
        floor_share=choose.floor_share,
        random_share=choose.random_share,
        labels_per_day=budget.labels_per_day,
        bytes_per_day=budget.bytes_per_day,
        energy_per_day_j=budget.energy_per_day_j,
        energy_per_byte_j=budget.energy_per_byte_j,
        energy_per_sample_j=budget.energy_per_sample_j,
        reserve_labels=budget.drift_reserve_labels,
    )
    times = budget.over_selection
    return Orders(_over_selecting(rules, times), choose.acquisition, choose.strategy, times)


def desired_over(own: Orders, desired: Desired, *, members: int = 0, sample_bytes: int = 0) -> Orders:
    """As the server says, over `own`.

    Budgets that cannot be, or never pay for a sample of `sample_bytes`, stay ours, with a complaint.

    Where it names an acquisition function or a strategy that is not here, both stay ours, with a complaint: each was
    meant for the other. `members`: heads of the model that runs, 0 when none does yet. An acquisition function that
    asks for more of them is kept, for a later model; that margin stands in until then is a complaint as well.
    """
    rules, of_budgets = _budgets_over(own, desired, sample_bytes)
    acquisition, chosen_by = desired.acquisition or own.acquisition, desired.strategy or own.strategy
    try:
        scorer = Scorer(acquisition, members=members)
        strategy.check(chosen_by)
    except ConfigError as error:
        return own._replace(rules=rules, complaint=_both(of_budgets, f"desired {error}"))
    stands_in = scorer.complaint if desired.acquisition else ""  # of our own the loop complains
    complaint = _both(of_budgets, f"desired {stands_in}" if stands_in else "")
    return own._replace(rules=rules, acquisition=acquisition, strategy=chosen_by, complaint=complaint)


def _budgets_over(own: Orders, desired: Desired, sample_bytes: int) -> tuple[Rules, str]:
    """The rules with the budgets that the server names; our own, and why, where they cannot be kept to."""
    said = {key: value for key in BY_THE_SERVER if (value := getattr(desired, key)) is not None}
    for key, value in said.items():
        most = 1.0 if key == "label_share" else math.inf
        if not (math.isfinite(value) and 0.0 <= value <= most):
            return own.rules, f"desired {key}: got {value:g}, expected 0 or more" + (
                ", at most 1" if most == 1.0 else ""
            )
    if "label_share" in said:
        said["label_share"] = min(1.0, said["label_share"] * own.over_selection)
    rules = own.rules._replace(**said)
    try:
        Purse(rules, Tokens(tokens=0.0)).check(sample_bytes)
    except ConfigError as error:
        return own.rules, f"desired {error}"
    return rules, ""


def _both(*complaints: str) -> str:
    return "; ".join(filter(None, complaints))


def _over_selecting(rules: Rules, times: float) -> Rules:
    """The rules of a device that sends more than is to be labelled; the audit stays as large as it was.

    Limits a day stay, too: they are what a line or a purse can bear.
    """
    return rules._replace(
        label_share=min(1.0, rules.label_share * times),
        depth_labels=rules.depth_labels * times,
        floor_share=rules.floor_share / times,
        random_share=rules.random_share / times,
    )
