"""Which pages are there?"""

from server.web.pages import fleet, front, rollouts

MODULES = (front, fleet, rollouts)
