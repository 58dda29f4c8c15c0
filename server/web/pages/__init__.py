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
    version,
)

MODULES = (front, fleet, device, label, models, version, against, rollouts, governance, erasures, samples)
