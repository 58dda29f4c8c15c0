"""Which pages are there?"""

from server.web.pages import device, fleet, front, label, rollouts, samples

MODULES = (front, fleet, device, label, rollouts, samples)
