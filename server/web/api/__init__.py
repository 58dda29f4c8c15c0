"""What can programs ask?"""

from server.web.api import classes, device, devices, label, models, people, rollouts, samples, snapshots, status

MODULES = (status, devices, device, samples, label, classes, models, rollouts, snapshots, people)
