"""Is the growth of loss and gradient norm a good pruning criterion? Against magnitude and random.

64-32-10 on digits, trained densely, pruned in one shot to the same budgets by each criterion, and
fine-tuned for some epochs. All criteria of a seed start from the same trained weights. Criteria
that look at data get the same 512 training samples. Accuracy on the test set, mean and standard
deviation over the seeds; ``passes`` is how often those samples pass through the network to score.
Last, how far estimates from groups agree with single removals.

    python benchmarks/explosion_criterion.py --seeds 5 --json explosion_criterion.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from time import perf_counter

import numpy as np

import gradprune as gp
from gradprune.foundation.disk import write_atomically
from gradprune.pruning.criteria import Criterion

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
EPOCHS, FINE_TUNING, BATCH = 30, 5, 32
PROBED = 512

Data = tuple[np.ndarray, np.ndarray]

CRITERIA: dict[str, Criterion] = {
    "magnitude": gp.Magnitude(),
    "random": gp.Random(),
    "taylor": gp.Taylor(),
    "explosion, loss": gp.Explosion(measure="loss"),
    "explosion, norm": gp.Explosion(measure="norm"),
    "explosion, both": gp.Explosion(measure="both"),
    "explosion, both, shift": gp.Explosion(measure="both", mode="shift"),
    "explosion, both, 16 draws of 16": gp.Explosion(measure="both", group_size=16, draws=16),
    "explosion, both, 64 draws of 16": gp.Explosion(measure="both", group_size=16, draws=64),
}


def passes(criterion: Criterion, weights: int) -> int:
    """Passes over the samples that scoring takes."""
    if isinstance(criterion, gp.Explosion):
        size = criterion.group_size or 1
        return 1 + (1 if size == 1 else criterion.draws) * -(-weights // size)
    return int(criterion.needs_gradients)


def train(model: gp.Model, x: np.ndarray, y: np.ndarray, epochs: int, lr: float, seed: int) -> None:
    steps = epochs * -(-len(y) // BATCH)
    optimizer = gp.SGD(
        model, lr=gp.learning_rates.CosineLR(lr, steps=steps), momentum=0.9, clip=gp.ClipNorm(1.0)
    )
    model.fit(x, y, optimizer=optimizer, epochs=epochs, batch_size=BATCH, verbose=0, seed=seed)


def new_model(seed: int) -> gp.Model:
    return gp.Model([gp.Dense(32, activation="relu"), gp.Dense(10)], input_shape=64, seed=seed)


def trained(data: Data, seed: int) -> gp.Model:
    """The dense network that all criteria of a seed start from."""
    model = new_model(seed)
    train(model, *data, EPOCHS, 0.1, seed)
    return model


def run(seeds: int) -> dict[str, dict[str, list[list[float]]]]:
    """Criterion to "one-shot", "fine-tuned" (a list of accuracies a seed) and "seconds"."""
    (x, y), test = gp.datasets.digits()
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(seeds):
        dense = trained((x, y), seed)
        found["dense"]["one-shot"].append([dense.evaluate(*test)["accuracy"]] * len(SPARSITIES))
        for name, criterion in CRITERIA.items():
            one_shot, fine_tuned, seconds = [], [], []
            for sparsity in SPARSITIES:
                model = new_model(seed)
                model.arena.params[:] = dense.arena.params
                pruner = gp.Pruner(model, criterion=criterion, seed=seed)
                start = perf_counter()
                report = pruner.prune(sparsity, data=(x[:PROBED], y[:PROBED]), batch_size=64)
                seconds.append(perf_counter() - start)
                assert report.removed == round(sparsity * report.total)
                one_shot.append(model.evaluate(*test)["accuracy"])
                train(model, x, y, FINE_TUNING, 0.05, seed)
                fine_tuned.append(model.evaluate(*test)["accuracy"])
            found[name]["one-shot"].append(one_shot)
            found[name]["fine-tuned"].append(fine_tuned)
            found[name]["seconds"].append(seconds)
    return found


def show_groups() -> None:
    """How far estimates from groups agree with single removals, on the network of seed 0."""
    (x, y), _ = gp.datasets.digits()
    model = trained((x, y), 0)

    def estimate(**settings: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of every weight."""
        pruner = gp.Pruner(model, criterion=gp.Explosion(measure="loss", **settings))
        found = pruner.growth(data=(x[:PROBED], y[:PROBED])).values()
        mean, variance = zip(
            *((each.mean.ravel(), each.variance.ravel()) for each in found), strict=True
        )
        return np.concatenate(mean), np.concatenate(variance)

    (alone, _), (grouped, variance) = estimate(), estimate(group_size=16, draws=64)
    ranks = [np.abs(values).argsort().argsort() for values in (alone, grouped)]
    print(
        "\nloss, 64 draws of 16 against single removals, seed 0: correlation "
        f"{np.corrcoef(alone, grouped)[0, 1]:.2f}, of the ranks of |a| "
        f"{np.corrcoef(ranks)[0, 1]:.2f}; mean squared difference "
        f"{np.mean((alone - grouped) ** 2):.3f}, stated variance {variance.mean():.3f}"
    )


def show(found: dict[str, dict[str, list[list[float]]]], seeds: int) -> None:
    weights = 64 * 32 + 32 * 10
    width = max(map(len, CRITERIA))
    print(f"digits, 64-32-10, {weights:,} weights, {seeds} seeds: test accuracy (%), mean ± std")
    dense = 100 * np.array(found["dense"]["one-shot"])[:, 0]
    print(f"dense {dense.mean():.2f} ± {dense.std(ddof=1) if seeds > 1 else 0:.2f}")
    for stage in ("one-shot", "fine-tuned"):
        head = "".join(f"{f'{sparsity:.0%}':>14}" for sparsity in SPARSITIES)
        print(f"\n{stage:<{width}}{head}{'passes':>9}{'seconds':>9}")
        for name, criterion in CRITERIA.items():
            values = 100 * np.array(found[name][stage])
            spread = values.std(axis=0, ddof=1) if seeds > 1 else np.zeros(len(SPARSITIES))
            cells = (f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(axis=0), spread, strict=True))
            seconds = np.median(found[name]["seconds"])
            print(
                f"{name:<{width}}{''.join(f'{cell:>14}' for cell in cells)}"
                f"{passes(criterion, weights):>9,}{seconds:>9.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gp.set_num_threads(1)
    found = run(options.seeds)
    show(found, options.seeds)
    show_groups()
    if options.json:
        content = {"sparsities": SPARSITIES, "seeds": options.seeds, "results": found}
        write_atomically(options.json, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
