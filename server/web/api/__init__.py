"""What can programs ask?"""

from server.web.api import (
    classes,
    device,
    devices,
    label,
    models,
    orders,
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
    status, devices, device, orders, samples, requests, label, classes, models, rollouts, snapshots,
    people, tokens, trail,
)  # fmt: skip
