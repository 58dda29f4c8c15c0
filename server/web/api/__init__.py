"""What can programs ask?"""

from server.web.api import devices, label, orders, samples

MODULES = (devices, label, orders, samples)
