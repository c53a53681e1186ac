"""One small run from end to end against committed numbers: a change of behaviour shows here.

The numbers hold for every instruction set within the tolerance. After a change that is meant:
    python tests/engine/test_golden.py
prints the new ones.
"""

from __future__ import annotations

import numpy as np

import gradprune as gp

LOSSES = [1.62277, 0.89967, 0.57347, 0.36257, 0.54207, 0.46683, 0.25565, 0.33474, 0.16178, 0.233]
NORMS = [0.86645, 0.71879, 1.0359, 0.42261, 0.68086, 0.62753, 0.39773, 0.52675, 0.3538, 0.46115]
KEPT = {"dense0.weight": 362, "dense1.weight": 213, "dense2.weight": 137}


def run() -> tuple[list[float], list[float], dict[str, int]]:
    """Ten recorded steps of training with dropout, clipping, momentum and a pruning schedule."""
    (x, y), _ = gp.datasets.digits()
    model = gp.Model(
        [
            gp.Dense(40, activation="relu"),
            gp.Dropout(0.1),
            gp.Dense(20, activation="tanh"),
            gp.Dense(10),
        ],
        input_shape=64,
        seed=3,
    )
    optimizer = gp.SGD(model, lr=0.1, momentum=0.9, nesterov=True, clip=gp.ClipNorm(1.0))
    pruner = gp.Pruner(
        model,
        criterion=gp.GradientDecomposition(),
        schedule=gp.Cubic(0.8, start=10, stop=60, every=10),
    )
    losses, norms = [], []
    for epoch in range(5):
        for x_batch, y_batch in gp.batches(x[:1000], y[:1000], batch_size=50, seed=1, epoch=epoch):
            loss, info = model.train_step(x_batch, y_batch, optimizer=optimizer)
            pruner.step()
            losses.append(loss)
            norms.append(info.norm)
    kept = {name: int(np.count_nonzero(mask)) for name, mask in model.masks.items()}
    return losses[9::10], norms[9::10], kept


def test_the_run_gives_the_committed_numbers() -> None:
    losses, norms, kept = run()
    np.testing.assert_allclose(losses, LOSSES, rtol=2e-3)
    np.testing.assert_allclose(norms, NORMS, rtol=1e-2)
    assert sum(kept.values()) == sum(KEPT.values())
    for name, count in KEPT.items():
        assert abs(kept[name] - count) <= 3, name


if __name__ == "__main__":
    recorded = run()
    print("LOSSES =", [round(loss, 5) for loss in recorded[0]])  # noqa: T201
    print("NORMS =", [round(norm, 5) for norm in recorded[1]])  # noqa: T201
    print("KEPT =", recorded[2])  # noqa: T201
