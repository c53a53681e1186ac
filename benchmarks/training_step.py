"""One training step, forward to optimizer.

Gradprune and torch have the same network, weights, random masks, batch, loss (cross entropy), clip
(norm 1.0) and optimizer (Adam); what must agree is the first layer's weight after the first step.
Torch multiplies its gradients by the masks before it clips, which keeps removed weights at 0 and
costs it least; it has nothing to skip. The batch lies ready in memory for all. Gradprune takes its
steps in the core, as ``fit`` and ``train_steps`` do; a step as one call from Python, and as
``backward`` and ``step``, are rows of their own.

Torch runs eagerly, with forward and backward compiled, and with clip, masks and Adam compiled too.
Mode "reduce-overhead" only turns CUDA graphs on, so on a CPU it is the default mode.

scikit-learn's MLPClassifier takes the same batches through ``partial_fit``. It neither clips nor
knows masks, and starts from weights of its own, so it is a row for orientation only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from limits import read_rows
from networks import draw_batch, draw_network, gradprune_model, torch_network
from side_by_side import Contestant, Several, Work, thread_counts

LR = 1e-3
STEPS = 20  # in a call


def _model(threads: int, sizes: tuple[int, ...], batch: int, sparsity: float) -> tuple[Any, ...]:
    """Model, optimizer, batch, and the weight after a first step, which is what must agree."""
    import gradprune as gp

    gp.set_num_threads(threads)
    x, y = draw_batch(sizes, batch)
    model = gradprune_model(sizes, sparsity)
    optimizer = gp.Adam(model, lr=LR, clip=gp.ClipNorm(1.0))
    model.train_step(x, y, optimizer=optimizer)
    return model, optimizer, x, y, model.parameters["dense0.weight"].astype(np.float64)


def gradprune_steps(*, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float) -> Work:
    """Steps that follow each other in the core, as ``fit`` takes them."""
    model, optimizer, x, y, weight = _model(threads, sizes, batch, sparsity)

    steps = partial(model.train_steps, x, y, optimizer=optimizer, n=STEPS)
    return Several(steps, STEPS), lambda: weight


def gradprune_step(*, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float) -> Work:
    """Each step a call of its own."""
    model, optimizer, x, y, weight = _model(threads, sizes, batch, sparsity)
    return lambda: model.train_step(x, y, optimizer=optimizer), lambda: weight


def gradprune_two_calls(
    *, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float
) -> Work:
    """The loop that researchers write."""
    model, optimizer, x, y, weight = _model(threads, sizes, batch, sparsity)

    def run() -> None:
        model.backward(x, y)
        optimizer.step()

    return run, lambda: weight


def gradprune_dense_steps(
    *, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float
) -> Work:
    """The same steps with every weight kept, to compare sparse steps with; agrees with nobody."""
    del sparsity
    run = gradprune_steps(threads=threads, sizes=sizes, batch=batch, sparsity=0.0)[0]
    return run, lambda: None


def row_reads(*, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float) -> Work:
    """The limit of a sparse step: what its products read from cache, and nothing else.

    Samples lie in chunks of up to 64 lanes. A live weight reads one row of lanes in the forward
    product, one in its gradient, and one in the input's gradient, which the first layer lacks.
    """
    del threads
    count = -(-batch // 64)
    lanes = -(-batch // (count * 32)) * 32
    forward, backward = [], []
    for number, layer in enumerate(draw_network(sizes, sparsity)):
        columns, rows = (np.nonzero(m)[1].astype(np.uint32) for m in (layer.mask, layer.mask.T))
        outputs, inputs = layer.mask.shape
        x, dy = (np.zeros((count, width, lanes), np.float32) for width in (inputs, outputs))
        forward += [(columns, chunk) for chunk in x]
        backward += [(rows, chunk) for chunk in dy if number] + [(columns, chunk) for chunk in x]
    return read_rows(forward + backward[::-1]), lambda: None


def torch_step(
    *, threads: int, setting: str, sizes: tuple[int, ...], batch: int, sparsity: float
) -> Work:
    import torch

    torch.set_num_threads(threads)
    net, masks = torch_network(sizes, sparsity)
    run = torch_run(net, masks, draw_batch(sizes, batch), setting)
    weight = next(net.parameters())
    return run, lambda: weight.detach().numpy().astype(np.float64)


def torch_run(
    net: Any, masks: list[Any], data: tuple[Any, Any], setting: str
) -> Callable[[], None]:
    """Gradients set to None, foreach masks and clip, fused Adam; or the compiler's version."""
    import torch

    x, y = map(torch.from_numpy, data)
    parameters = list(net.parameters())
    weights = parameters[::2]
    # The compiler makes its own fused Adam of the plain one.
    kind = {"foreach": True} if setting == "compiled step" else {"fused": True}
    optimizer = torch.optim.Adam(parameters, lr=LR, **kind)

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(net(x), y)

    def update() -> None:
        if masks:
            torch._foreach_mul_([weight.grad for weight in weights], masks)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()

    if setting != "eager":
        torch._dynamo.reset()  # a new case, not another shape of the last one
        loss = torch.compile(loss, fullgraph=True, dynamic=False)
    if setting == "compiled step":
        update = torch.compile(update, dynamic=False)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        update()

    return run


def sklearn_step(*, threads: int, sizes: tuple[int, ...], batch: int, sparsity: float) -> Work:
    from sklearn.neural_network import MLPClassifier

    del threads  # what its BLAS reads from the environment
    if sparsity:
        raise ValueError("scikit-learn has no masks")
    x, y = draw_batch(sizes, batch)
    model = MLPClassifier(
        sizes[1:-1], batch_size=batch, alpha=0.0, learning_rate_init=LR, shuffle=False
    )
    classes = np.arange(sizes[-1])
    return lambda: model.partial_fit(x, y, classes=classes), lambda: None


def contestants(
    *, sparse: bool, settings: tuple[str, ...] | None = None, calls: bool = False
) -> list[Contestant]:
    """All of them; ``settings`` of torch, None meaning every one; with ``calls`` our other ways."""
    settings = settings or ("eager", "compiled", "compiled step")
    counts = thread_counts()
    ours = {"gradprune": gradprune_steps}
    if calls:
        ours |= {"train_step": gradprune_step, "backward, step": gradprune_two_calls}
    them = [Contestant(k, f, n, needs=("gradprune",)) for k, f in ours.items() for n in counts]
    them += [
        Contestant("torch", torch_step, n, setting, ("torch",), (("setting", setting),))
        for setting in settings
        for n in counts
    ]
    if sparse:
        them += [
            Contestant("own dense", gradprune_dense_steps, n, needs=("gradprune",)) for n in counts
        ]
        them.append(Contestant("limit", row_reads, 1, "reads of rows"))
    else:
        them += [
            Contestant("scikit-learn", sklearn_step, n, "no clip", ("sklearn.neural_network",))
            for n in counts
        ]
    return them
