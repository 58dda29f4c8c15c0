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
    runs,
    samples,
    snapshots,
    status,
    tokens,
    trail,
)

MODULES = (
    status, devices, device, orders, samples, requests, label, classes, models, runs, rollouts, snapshots,
    people, tokens, trail,
)  # fmt: skip
