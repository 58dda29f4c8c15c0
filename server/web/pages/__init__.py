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
    rollouts,
    samples,
    trail,
    version,
)

MODULES = (front, fleet, device, label, models, version, against, rollouts, trail, governance, erasures, samples)
