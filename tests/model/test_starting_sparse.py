"""A network that starts sparse: the dense one of its seed, without what its masks remove."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp

SHAPES: dict[str, Any] = {
    "dense": lambda **o: gp.Model(
        [gp.Dense(30, activation="relu"), gp.Dense(20, activation="tanh"), gp.Dense(4)], 50, **o
    ),
    "initializers": lambda **o: gp.Model(
        [
            gp.Dense(30, initializer=gp.initializers.Orthogonal(1.5)),
            gp.Dense(30, initializer=gp.initializers.SparseSpectral(5)),
            gp.Dense(30, initializer=gp.initializers.Identity()),
            gp.Dense(30, initializer=gp.initializers.Uniform(0.1)),
            gp.Dense(30, initializer=gp.initializers.Normal(0.1)),
        ],
        30,
        **o,
    ),
    "images": lambda **o: gp.Model(
        [
            *(gp.Conv2D(6, 3, padding="same", bias=False), gp.BatchNorm(), gp.Conv2D(8, 3)),
            *(gp.GlobalAvgPool(), gp.Dense(3)),
        ],
        (2, 7, 7),
        **o,
    ),
    "recurrent": lambda **o: gp.Model(
        [gp.LSTM(9, return_sequences=True), gp.GRU(7), gp.Dense(3)], (5, 4), **o
    ),
}


def assert_same_bits(one: gp.Model, other: gp.Model) -> None:
    for name in one.arena.state:
        assert one.arena.state[name].tobytes() == other.arena.state[name].tobytes(), name
    for name, mask in one.masks.items():
        np.testing.assert_array_equal(mask, other.masks[name])
    for own, its in zip(
        one.optimizer.moments if one.optimizer else (),
        other.optimizer.moments if other.optimizer else (),
        strict=True,
    ):
        assert own.tobytes() == its.tobytes()


def batch(model: gp.Model, n: int = 20) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *model.input_shape)), rng.integers(0, model.output_shape[-1], n)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("sparsity", [0.3, 0.8, 0.95])
def test_it_is_the_dense_model_with_those_masks(name: str, sparsity: float) -> None:
    model, dense = (SHAPES[name](seed=7, **given) for given in ({"sparsity": sparsity}, {}))
    total = sum(mask.size for mask in model.masks.values())
    assert model.arena.removed == round(sparsity * total)
    dense.set_masks(model.masks)
    x, y = batch(model)
    for one in (model, dense):
        optimizer = gp.Adam(one, clip=gp.ClipNorm(0.5))
        for _ in range(3):
            one.train_step(x, y, optimizer=optimizer)
    assert_same_bits(model, dense)


def test_weights_are_nowhere_but_in_their_lists() -> None:
    model = SHAPES["dense"](seed=0, sparsity=0.95)
    model.set_mask("dense2.weight", model.masks["dense2.weight"])  # nothing new
    optimizer = gp.Adam(model)
    model.train_step(*batch(model), optimizer=optimizer)
    assert all(home == ("inside", "inside") for home in model.arena.core.homes)


def test_the_scope_says_where_weights_live() -> None:
    def kept(**options: Any) -> list[int]:
        return [int(mask.sum()) for mask in SHAPES["dense"](seed=1, **options).masks.values()]

    assert kept() == [1500, 600, 80]
    assert kept(sparsity=0.9, scope="layer") == kept(sparsity=0.9, scope="global") == [150, 60, 8]
    assert kept(sparsity=0.9) == kept(sparsity=0.9, scope="erk") == [113, 71, 34]
    assert kept(sparsity=0.9, scope=gp.pruning.ERK(power_scale=0.0)) == [150, 60, 8]
    assert kept(sparsity={"dense0": 0.9, "dense2.weight": 0.5}) == [150, 600, 40]
    assert kept(sparsity={"dense1": 0.995}) == [1500, 3, 80]
    assert kept(sparsity=0.5, scope=gp.pruning.Budgets({"dense0": 0.9})) == [410, 600, 80]
    capped = gp.pruning.GlobalScope(caps={"dense2": 0.2})
    assert kept(sparsity=0.9, scope=capped) == [110, 44, 64]
    # a pruner that removes as much by the same scope keeps as many everywhere
    model = SHAPES["dense"](seed=1)
    gp.Pruner(model, criterion=gp.Random(), scope="erk").prune(0.9)
    assert [int(mask.sum()) for mask in model.masks.values()] == [113, 71, 34]


def test_no_parameter_is_emptied() -> None:
    model = gp.Model([gp.Dense(100), gp.Dense(1)], 100, sparsity=0.9997, scope="layer")
    assert [int(mask.sum()) for mask in model.masks.values()] == [2, 1]
    for sparsity, most in ((1.0, 10_098), ({"dense1": 1.0}, 99)):
        with pytest.raises(ValueError, match=f"at most {most:,} can go"):
            gp.Model([gp.Dense(100), gp.Dense(1)], 100, sparsity=sparsity)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sparsity": 90}, ValueError, r"for 90 % pass 0\.9"),
        ({"sparsity": -0.1}, ValueError, r"sparsity must be in \[0, 1\]"),
        ({"sparsity": "much"}, TypeError, "sparsity must be"),
        ({"sparsity": {"dense9": 0.5}}, ValueError, "dense9"),
        ({"sparsity": {"dense0": 2.0}}, ValueError, "dense0"),
        ({"sparsity": 0.5, "scope": "everywhere"}, ValueError, "scope must be one of"),
        ({"sparsity": {"dense0": 0.5}, "scope": "erk"}, ValueError, "use one of the two"),
    ],
)
def test_what_is_not_possible(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SHAPES["dense"](**options)


def test_the_seed_draws_the_masks() -> None:
    def masks(seed: int) -> bytes:
        return bytes(SHAPES["dense"](seed=seed, sparsity=0.9).arena.mask)

    assert masks(3) == masks(3)
    assert masks(3) != masks(4)
    model = SHAPES["dense"](seed=3, sparsity=0.9)
    one, two = (model.masks[f"dense{i}.weight"].ravel()[:80] for i in (0, 2))
    assert not np.array_equal(one, two)  # each parameter has places of its own


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_a_model_as_any_other(name: str, tmp_path: Any) -> None:
    model = SHAPES[name](seed=2, sparsity=0.9)
    x, y = batch(model)
    optimizer = gp.Adam(model, clip=gp.ClipNorm(1.0))
    model.train_step(x, y, optimizer=optimizer)
    model.save(tmp_path / "model.safetensors")
    for other in (model.copy(), gp.load(tmp_path / "model.safetensors")):
        assert_same_bits(model, other)
        going_on, also = model.copy(), other
        for one in (going_on, also):
            assert one.optimizer is not None
            one.fit(x, y, optimizer=one.optimizer, epochs=2, batch_size=7, verbose=0)
        assert_same_bits(going_on, also)
    gp.verify(model, model.freeze(), model.shrink(), gp.compress(model), x=x)
    pruner = gp.Pruner(
        model,
        criterion=gp.Magnitude(),
        regrowth=gp.SET(every=1, stop=3),
        schedule=gp.OneShot(0.95, at=1),
    )
    model.fit(x, y, optimizer=optimizer, epochs=1, batch_size=5, pruner=pruner, verbose=0)
    assert model.arena.removed == round(0.95 * model.arena.prunable_size)


def test_weights_are_drawn_anew_within_the_masks() -> None:
    model, fresh = (SHAPES["recurrent"](seed=5, sparsity=0.8) for _ in range(2))
    model.train_step(*batch(model), optimizer=gp.SGD(model, lr=0.5))
    model.initialize()
    for name, values in fresh.parameters.items():
        assert model.parameters[name].tobytes() == values.tobytes()


def test_an_initializer_of_ones_own_makes_its_whole_matrix() -> None:
    class Ramp(gp.initializers.Initializer):
        def sample(self, shape: tuple[int, int], *, seed: int, stream: int) -> Any:
            return np.arange(shape[0] * shape[1], dtype=np.float64).reshape(shape)

    model = gp.Model([gp.Dense(4, initializer=Ramp())], 5, sparsity=0.5)
    kept = model.masks["dense0.weight"]
    np.testing.assert_array_equal(
        model.parameters["dense0.weight"], np.where(kept, np.arange(20.0).reshape(4, 5), 0.0)
    )
