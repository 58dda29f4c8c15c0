"""Which pages are there?"""

from server.web.pages import data, device, exports, fleet, front, label, rollouts, samples, snapshots

MODULES = (front, fleet, device, label, rollouts, samples, data, snapshots, exports)
