"""What can programs ask?"""

from server.web.api import devices

MODULES = (devices,)
