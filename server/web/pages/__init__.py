"""Which pages are there?"""

from server.web.pages import (
    against,
    data,
    device,
    disk,
    erasures,
    exports,
    fleet,
    front,
    governance,
    label,
    models,
    orders,
    rollouts,
    samples,
    snapshots,
    trail,
    version,
)

MODULES = (
    front, fleet, device, orders, label, data, samples, snapshots, exports, models, version, against, rollouts, trail,
    governance, erasures, disk,
)  # fmt: skip
