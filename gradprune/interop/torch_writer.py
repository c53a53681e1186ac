"""Writes a network as a torch module: a graph of torch's own modules, at the paths of the layers.

``torch_layers`` has the table of layers. The result is a ``torch.fx.GraphModule``, which can be
read, pickled, exported and trained as any module; nothing of gradprune is in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradprune.engine.network import Network
from gradprune.errors import UnsupportedOperationError
from gradprune.interop.names import module_paths
from gradprune.interop.torch_layers import Form, Site, write
from gradprune.interop.torch_tracing import torch_package
from gradprune.interop.values import RefusedError
from gradprune.layers.wiring import roles_by_layer
from gradprune.state.locking import locked

__all__ = ["write_torch"]


@locked
def write_torch(model: Network, *, masks: bool = False) -> Any:
    """Return a torch module that computes what the model does; see ``Model.to_torch``.

    Raises:
        ImportError: there is no torch.
        UnsupportedOperationError: layers have no expression in torch, all of which it names.
    """
    torch = torch_package("model.to_torch")
    paths = module_paths((str(layer.name) for layer in model.layers), dir(torch.nn.Module()))
    values = roles_by_layer(model.layers, model.get_state())
    graph = torch.fx.Graph()
    modules: dict[str, Any] = {}
    start = Form(graph.placeholder("x"))
    made: list[Form] = []
    refused: list[tuple[str, str, str]] = []
    for step, wiring in zip(model.steps, model.wirings(), strict=True):
        name = str(step.layer.name)
        site = Site(torch, graph, modules, paths[name], step.shape, wiring.counting(values[name]))
        try:
            read = [start if source < 0 else made[source] for source in step.sources]
            made.append(write(step.layer, site, *read))
        except RefusedError as error:
            refused.append((name, type(step.layer).__name__, str(error)))
            made.append(Form(start.whole))
    if refused:
        raise UnsupportedOperationError.of(refused, "torch")
    graph.output(made[-1].whole)
    root = _root(torch, modules)
    if masks:
        with torch.no_grad():  # or the parameters could not be copied
            _prune(model, torch, root, paths)
    return torch.fx.GraphModule(root, graph, "Network").eval()


def _root(torch: Any, modules: dict[str, Any]) -> Any:
    """Return a module that holds these at their paths."""
    root = torch.nn.Module()
    for path, module in modules.items():
        *above, name = path.split(".")
        owner = root
        for part in above:
            if not hasattr(owner, part):
                owner.add_module(part, torch.nn.Module())
            owner = getattr(owner, part)
        owner.add_module(name, module)
    return root


@locked
def _prune(model: Network, torch: Any, root: Any, paths: dict[str, str]) -> None:
    """Give parameters of which something is removed the masks of torch.nn.utils.prune."""
    from torch.nn.utils import prune

    for name, mask in model.masks.items():
        if mask.all():
            continue
        layer, _, role = name.partition(".")
        part = root.get_submodule(paths[layer])
        own = role if hasattr(part, role) else f"{role}_l0"
        prune.custom_from_mask(part, own, torch.from_numpy(mask.astype(np.float32)))
