"""What can programs ask?"""

from server.web.api import (
    classes,
    device,
    devices,
    label,
    models,
    people,
    requests,
    rollouts,
    samples,
    snapshots,
    status,
    tokens,
    trail,
)

MODULES = (
    status, devices, device, samples, requests, label, classes, models, rollouts, snapshots, people, tokens, trail,
)  # fmt: skip
