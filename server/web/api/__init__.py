"""What can programs ask?"""

from server.web.api import devices, label, samples

MODULES = (devices, label, samples)
