"""How many threads an estimator uses, beside others that run at the same time."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from joblib.parallel import get_active_backend

from gradprune.foundation.checks import whole
from gradprune.state.threads import at_most

__all__ = ["threads_for"]


def threads_for(asked: Any) -> AbstractContextManager[None]:
    """Limit the threads of the core while an estimator works.

    joblib's processes are told by ``OMP_NUM_THREADS`` how many threads each may use. Nobody tells
    its threads, nor processes of its backend "multiprocessing": there a job is one thread.

    Args:
        asked: the number that a user asks for, or None.
    """
    if asked is not None:
        return at_most(whole("n_threads", asked, least=1, most=256))
    is_worker = get_active_backend()[0].nesting_level > 0
    return at_most(1) if is_worker and not os.environ.get("OMP_NUM_THREADS") else nullcontext()
