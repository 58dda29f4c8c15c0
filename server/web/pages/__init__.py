"""Which pages are there?"""

from server.web.pages import device, fleet, front, rollouts

MODULES = (front, fleet, device, rollouts)
