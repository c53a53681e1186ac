"""All random streams of the package, by what they are for.

Every random number is addressed by (seed, stream, position), see ``gradprune.reference.rng``. Seeds
come from users and are often the same, 0 above all; so whatever draws takes its streams from a
range of its own here, and no two purposes ever see the same numbers. Streams of one purpose are
told apart by what their comment says.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradprune import _core

__all__ = [
    "AUGMENTATION",
    "DROPOUT",
    "EXPLOSION_GROUPS",
    "EXPLOSION_PHASE",
    "FREEZING",
    "GRADIENT_NOISE",
    "HELD_OUT",
    "INITIAL_PLACES",
    "INITIAL_WEIGHTS",
    "LENGTHS",
    "PRUNING",
    "REGROWTH",
    "SEQUENCES",
    "SHUFFLING",
    "STARTING_MASKS",
    "TIMING",
    "VALIDATION",
    "Streams",
]


@dataclass(frozen=True)
class Streams:
    """The streams first, ..., first + count - 1 of the generator."""

    first: int
    count: int

    def at(self, number: int) -> int:
        """Return the stream of this number, which must be below ``count``."""
        if not 0 <= number < self.count:
            raise ValueError(f"stream {number} is not among {self.count}")
        return self.first + number


SHUFFLING = Streams(0, 2**56)  # the epoch
EXPLOSION_GROUPS = Streams(2**56, 2**56)  # of the criterion: a number drawn, and the draw
EXPLOSION_PHASE = Streams(2 * 2**56, 2**56)  # one alone
FREEZING = Streams(3 * 2**56, 2**56)  # samples to measure int8 on: one alone
LENGTHS = Streams(4 * 2**56, 2**56)  # of sequences in the temporal-order experiment: one alone
TIMING = Streams(_core.timing_streams, 2**56)  # which array that costs are measured with
STARTING_MASKS = Streams(6 * 2**56, 2**56)  # the prunable parameter
VALIDATION = Streams(7 * 2**56, 1)  # samples that fit takes out by validation_split
DROPOUT = Streams(_core.dropout_streams, 2**60)  # step and layer
HELD_OUT = Streams(2**61, 1)  # samples that an experiment keeps for validation
GRADIENT_NOISE = Streams(_core.noise_streams + 1, 2**61 - 1)  # clipper in the chain and step from 1
SEQUENCES = Streams(2 * 2**61, 2**61)  # made-up data: which of its numbers
REGROWTH = Streams(3 * 2**61, 2**61)  # the pruner's event
INITIAL_WEIGHTS = Streams(4 * 2**61, 2**61)  # the parameter and its block
AUGMENTATION = Streams(5 * 2**61, 2**61)  # place in the list and epoch
INITIAL_PLACES = Streams(6 * 2**61, 2**61)  # where initial weights are, numbered as they are
PRUNING = Streams(7 * 2**61, 2**61)  # the pruner's event
