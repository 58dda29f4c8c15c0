"""Which pages are there?"""

from server.web.pages import fleet, front

MODULES = (front, fleet)
