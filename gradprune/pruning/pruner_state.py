"""Settings and state of a pruner: what its constructor, copies and files are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gradprune.engine.network import Network
from gradprune.foundation import checks
from gradprune.foundation.checks import as_array
from gradprune.losses.base import LossLike
from gradprune.losses.table import get_loss
from gradprune.pruning.agenda import Agenda
from gradprune.pruning.checkpoint import load_tensors, tensors_of
from gradprune.pruning.coverage import Coverage
from gradprune.pruning.criteria.base import Criterion
from gradprune.pruning.granularity import Element, Granularity
from gradprune.pruning.observation import Data, Observer, pair
from gradprune.pruning.regrowth import Regrowth
from gradprune.pruning.removal import Removable, Removal, Samples
from gradprune.pruning.rewinding import RememberedWeights
from gradprune.pruning.schedules import AnySchedule
from gradprune.pruning.scopes import Scope, get_scope
from gradprune.pruning.statistics import Statistics
from gradprune.state.copying import Attached
from gradprune.state.locking import locked

__all__ = ["PrunerState"]

_ELEMENT = Element()
# What copies make anew: the model is another one, and the parts follow from the rest.
_DERIVED = {"model", "_covered", "_agenda", "_observer"}


class PrunerState(Attached):
    """The settings of ``Pruner``, where arguments and attributes are documented, and its parts."""

    slot = "pruner"
    model: Removable

    def __init__(
        self,
        model: Removable,
        *,
        criterion: Criterion,
        scope: str | Scope = "global",
        schedule: AnySchedule | None = None,
        regrowth: Regrowth | None = None,
        granularity: Granularity = _ELEMENT,
        exclude: str | Sequence[str] = (),
        min_kept: int | float = 1,
        seed: SupportsIndex = 0,
        gradients: str = "raw",
        probe_data: Data | None = None,
        probe_loss: LossLike | None = None,
    ) -> None:
        self._check_model(model)
        if gradients not in ("raw", "clipped"):
            raise ValueError(f'gradients must be "raw" or "clipped", got {gradients!r}')
        _check_kinds(criterion, schedule, granularity, regrowth)
        self.model = model
        self.criterion = criterion
        self.scope = get_scope(scope)
        self.schedule = schedule
        self.regrowth = regrowth
        self.granularity = granularity
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.min_kept = (
            checks.fraction("min_kept", min_kept)
            if isinstance(min_kept, float | np.floating)
            else checks.whole("min_kept", min_kept)
        )
        self.seed = checks.seed_number(seed)
        self.gradients = gradients
        self.probe_data = None if probe_data is None else pair(probe_data)
        if self.probe_data is not None:
            _check_samples(model, *self.probe_data, probe_loss)
        self.probe_loss = probe_loss
        self._begin()
        sizes = {tensor.name: tensor.size for tensor, _ in self._covered.layers}
        self.scope.limits(sizes)  # does it know the names?
        self._attach()
        if gradients == "clipped":
            model.arena.keep_clipped = True

    def _begin(self) -> None:
        """Counters and parts before the first step."""
        self.step_count = 0
        self.events = 0
        self._covered = Coverage(self.model, self.exclude)
        self._agenda = Agenda(self.schedule, self.regrowth)
        self._observer = Observer(self.model, self.criterion, clipped=self.gradients == "clipped")

    @property
    def statistics(self) -> Statistics:
        """Statistics of the gradients observed by ``step`` since the last event: copies."""
        return self._observer.statistics

    def _removal(self, data: Data | None, loss: LossLike | None) -> Removal:
        """All that the next event goes by."""
        return Removal(
            self.model,
            self._covered,
            self.criterion,
            self.scope,
            self.granularity,
            self.min_kept,
            self.seed,
            self.events,
            Samples(data, loss) if data is not None else Samples(self.probe_data, self.probe_loss),
        )

    # ---- what is due ---------------------------------------------------------------------------

    @property
    def wants_batch(self) -> bool:
        """Whether the next ``step`` has to be given the batch of its training step."""
        if self.probe_data is not None:
            return False
        step, agenda, probes = self.step_count + 1, self._agenda, self.criterion.needs_data
        if agenda.regrowth is not None and agenda.exchanges(step):
            return probes or agenda.regrowth.needs_data
        return probes and agenda.due(step) is not None

    @locked
    def doubt(self, steps: int) -> str | None:
        """Return what the schedule will not do in so many more steps; ``fit`` warns of it."""
        return self._agenda.doubt(
            done=self.step_count, steps=steps, sparsity=self._covered.sparsity()
        )

    @property
    def wants_feedback(self) -> bool:
        """Whether the schedule goes by ``feedback``."""
        return self._agenda.wants_feedback

    def described(self) -> tuple[dict[str, Any], str]:
        """See Described."""
        names = ("criterion", "scope", "granularity", "schedule", "regrowth", "exclude")
        settings = {name: getattr(self, name) for name in names}
        shown = {
            name: value for name, value in settings.items() if value is not None and value != ()
        }
        return shown, f"events: {self.events:,}, steps: {self.step_count:,}"

    # ---- copies, see ``copying`` ------------------------------------------------------------

    @locked
    def capture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """See Attached."""
        observer, agenda = self._observer, self._agenda
        arrays = {
            "statistics": vars(self.statistics) if observer.seen.count else None,
            "_weights": None if observer.weights is None else observer.weights.copy(),
            "_before": {} if agenda.before is None else agenda.before.tensors(),
        }
        objects = {name: value for name, value in vars(self).items() if name not in _DERIVED}
        return objects | {"_overdue": agenda.is_overdue, "_course": agenda.course}, arrays

    def restore(self, objects: dict[str, Any], arrays: dict[str, Any]) -> None:
        """See Attached."""
        own, statistics = dict(objects), arrays["statistics"]
        overdue, course = own.pop("_overdue"), own.pop("_course")
        vars(self).update(own)
        self._begin()
        vars(self).update(own)
        agenda, observer = self._agenda, self._observer
        agenda.is_overdue, agenda.course = overdue, course
        agenda.before = RememberedWeights.from_tensors(arrays["_before"], self.model.arena)
        if statistics is not None:
            observer.fill(Statistics(**statistics))
        observer.weights = arrays["_weights"]

    # ---- checkpoints ---------------------------------------------------------------------------

    @locked
    def state(self) -> dict[str, int]:
        """Counters for a checkpoint."""
        return {
            "step_count": self.step_count,
            "events": self.events,
            "overdue": int(self._agenda.is_overdue),
            "observed": self._observer.seen.count,
        }

    @locked
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Arrays for a checkpoint: what ``step`` has observed, and how far the schedule has come.

        With an adaptive schedule also what it may have to take back.
        """
        needs = self.criterion.needs_gradients
        return tensors_of(self._observer, self._agenda, gradients=needs)

    @locked
    def load_state(self, state: Mapping[str, int], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Counters and arrays from a checkpoint; all or, on an error, nothing.

        Args:
            state: as ``state()`` gave it.
            tensors: as ``tensors()`` gave them.

        Raises:
            ValueError: something is missing or of the wrong shape.
        """
        names = list(self.state())
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"the pruner's state lacks {missing}")
        step_count, events, overdue, observed = (checks.whole(n, state[n]) for n in names)
        agenda = Agenda(self.schedule, self.regrowth)
        observer = Observer(self.model, self.criterion, clipped=self.gradients == "clipped")
        observer.seen.count = observed
        needs = self.criterion.needs_gradients
        load_tensors(tensors, observer, agenda, self.model.arena, gradients=needs)
        agenda.is_overdue = bool(overdue)
        self.step_count, self.events = step_count, events
        self._agenda, self._observer = agenda, observer


def _check_kinds(
    criterion: object, schedule: object, granularity: object, regrowth: object
) -> None:
    """A TypeError or ValueError if a setting is of the wrong kind."""
    if not isinstance(criterion, Criterion):
        name = criterion.__name__ if isinstance(criterion, type) else "Magnitude"
        raise TypeError(f"criterion must be a criterion such as {name}(), got {criterion!r}")
    if schedule is not None and not isinstance(schedule, AnySchedule):
        raise TypeError(
            f"schedule must be a schedule such as OneShot(0.9) or None, got {schedule!r}"
        )
    if not isinstance(granularity, Granularity):
        raise TypeError(
            f"granularity must be a granularity such as Block(4, 1), got {granularity!r}"
        )
    if regrowth is not None and not isinstance(regrowth, Regrowth):
        raise TypeError(f"regrowth must be SET(...), RigL(...) or None, got {regrowth!r}")
    if regrowth is not None and granularity != _ELEMENT:
        raise ValueError(f"weights regrow one by one, not with granularity {granularity!r}")


def _check_samples(model: Removable, x: Any, y: Any, loss: LossLike | None) -> None:
    """Raise at once what samples would fail with at an event; targets if their loss is known."""
    inputs = model.rows(x)
    if loss is not None:
        get_loss(loss)
    known = model.loss if loss is None else loss
    if isinstance(model, Network) and known is not None:
        model.checked_batch(x, y, model.loss_for(known), " of probe_data")
    elif len(inputs) != len(as_array("y", y)):
        raise ValueError(
            f"x and y of probe_data must have the same length, got {len(inputs)} and "
            f"{len(as_array('y', y))}"
        )
