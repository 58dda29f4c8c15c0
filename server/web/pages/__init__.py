"""Which pages are there?"""

from server.web.pages import (
    against,
    device,
    erasures,
    fleet,
    front,
    governance,
    label,
    models,
    orders,
    rollouts,
    samples,
    trail,
    version,
)

MODULES = (
    front, fleet, device, orders, label, models, version, against, rollouts, trail, governance, erasures, samples,
)  # fmt: skip
