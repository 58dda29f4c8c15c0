"""Which pages are there?"""

from server.web.pages import device, fleet, front, rollouts, samples

MODULES = (front, fleet, device, rollouts, samples)
