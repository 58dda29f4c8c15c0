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
    sample,
    sample_map,
    samples,
    snapshots,
    status,
    tokens,
    trail,
)

MODULES = (
    status, devices, device, orders, samples, sample_map, sample, requests, label, classes, models, runs, rollouts,
    snapshots, people, tokens, trail,
)  # fmt: skip
