"""What happens to a step whose numbers are not finite."""

from gradprune.optim.guards import *
