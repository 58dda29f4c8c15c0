"""Which pages are there?"""

from server.web.pages import device, fleet, front, label, orders, rollouts, samples

MODULES = (front, fleet, device, orders, label, rollouts, samples)
