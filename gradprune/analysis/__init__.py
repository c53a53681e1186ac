"""What a network does: diagnosis, explosions, sensitivity, verification, reports."""

from gradprune.analysis.diagnosis import *
from gradprune.analysis.explosion_monitor import *
from gradprune.analysis.explosion_phase import *
from gradprune.analysis.reports import *
from gradprune.analysis.sensitivity import *
from gradprune.analysis.verification import *
