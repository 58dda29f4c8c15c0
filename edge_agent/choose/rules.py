"""What is a selector to keep to?"""

from __future__ import annotations

from typing import NamedTuple


class Rules(NamedTuple):
    """Shares are of the stream, or of the label share where named so."""

    label_share: float
    depth_labels: float = 20.0
    floor_share: float = 0.1  # of label_share; the random arm is part of it, and it is no less than that
    random_share: float = 0.05  # of label_share
    labels_per_day: float = 0.0  # 0: no limit
    bytes_per_day: float = 0.0  # 0: no limit
    energy_per_day_j: float = 0.0  # 0: no limit
    energy_per_byte_j: float = 0.0  # sent
    energy_per_sample_j: float = 0.0  # inferred on, sent or not
    reserve_labels: float = 0.0  # kept for alarms of drift; 0: none

    @property
    def random(self) -> float:
        """Share of the stream that is taken at random, as if nothing were chosen."""
        return self.label_share * self.random_share

    @property
    def floor(self) -> float:
        """Share of the stream at which every sample alike is taken, the random arm included."""
        return max(self.random, self.label_share * self.floor_share)
