"""What can programs ask?"""

from server.web.api import devices, label, orders

MODULES = (devices, label, orders)
