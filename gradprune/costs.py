"""When a sparse layer pays: the table of costs, and how to measure another one."""

from gradprune.state.costs import *
