"""What can programs ask?"""

from server.web.api import devices, label

MODULES = (devices, label)
