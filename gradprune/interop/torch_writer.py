"""Writes a network as a torch module: a graph of torch's own modules, at the paths of the layers.

``torch_layers`` has the table of layers. The result is a ``torch.fx.GraphModule``, which can be
read, pickled, exported and trained as any module; nothing of gradprune is in it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradprune.engine.network import Network
from gradprune.errors import UnsupportedOperationError
from gradprune.foundation.checks import flag
from gradprune.interop.names import module_paths
from gradprune.interop.torch_layers import Form, Site, one_way, recurrent_module, write
from gradprune.interop.torch_stacks import find_stacks
from gradprune.interop.torch_tracing import torch_package
from gradprune.interop.values import RefusedError
from gradprune.layers.base import Shape
from gradprune.layers.wiring import roles_by_layer
from gradprune.state.locking import locked

__all__ = ["write_torch"]


@locked
def write_torch(model: Network, *, masks: bool) -> Any:
    """Return a torch module that computes what the model does; see ``Model.to_torch``.

    Raises:
        ImportError: there is no torch.
        UnsupportedOperationError: layers have no expression in torch, all of which it names.
    """
    masks = flag("masks", masks)
    torch = torch_package("model.to_torch")
    writing = _Writing(model, torch)
    root = writing.root()
    if masks:
        with torch.no_grad():  # or the parameters could not be copied
            _prune(model, torch, root, writing.homes)
    return torch.fx.GraphModule(root, writing.graph, "Network").eval()


class _Writing:
    """One walk over a network.

    Attributes:
        graph: a torch.fx.Graph.
        modules: path to module.
        homes: name of a layer to the path of its module, and what the names of its parameters end
            with there.
    """

    def __init__(self, model: Network, torch: Any) -> None:
        self.torch = torch
        self.graph = torch.fx.Graph()
        self.modules: dict[str, Any] = {}
        self.steps = model.steps
        self.stacks = {i: stack for stack in find_stacks(model.steps) for i in stack.members}
        inner = {i for stack in self.stacks.values() for i in stack.inner}
        names = [str(step.layer.name) for step in model.steps]
        titles = [self.stacks[i].name if i in self.stacks else n for i, n in enumerate(names)]
        paths = module_paths(dict.fromkeys(titles), dir(torch.nn.Module()))
        self.homes = {name: (paths[title], "") for name, title in zip(names, titles, strict=True)}
        self.values = [
            wiring.counting(roles)
            for wiring, roles in zip(
                model.wirings(),
                roles_by_layer(model.layers, model.get_state()).values(),
                strict=True,
            )
        ]
        self.made: dict[int, Form] = {-1: Form(self.graph.placeholder("x"))}
        self.states: dict[str, Any] = {}
        refused: list[tuple[str, str, str]] = []
        for position, step in enumerate(model.steps):
            name = names[position]
            try:
                if position in self.stacks:
                    self.made[position] = self._member(position)
                elif position not in inner:
                    read = [self.made[source] for source in step.sources]
                    site = self._site(name, step.shape, self.values[position])
                    self.made[position] = write(step.layer, site, *read)
            except RefusedError as error:
                refused.append((name, type(step.layer).__name__, str(error)))
                self.made[position] = Form(self.made[-1].whole)
        if refused:
            raise UnsupportedOperationError.of(refused, "torch")
        self.graph.output(self.made[len(names) - 1].whole)
        for node in reversed(self.graph.nodes):
            if node.op in {"call_function", "call_method"} and not node.users:
                self.graph.erase_node(node)

    def _site(self, name: str, shape: Shape, values: Mapping[str, Any]) -> Site:
        path, _ = self.homes[name]
        return Site(self.torch, self.graph, self.modules, path, shape, values)

    def _member(self, position: int) -> Form:
        """Return what a layer of a stack makes; the first one calls the module of all."""
        stack, step = self.stacks[position], self.steps[position]
        layer: Any = step.layer
        name = str(layer.name)
        self.homes[name] = self.homes[name][0], stack.suffix(position)
        if stack.name not in self.states:
            module = recurrent_module(
                layer,
                self.torch,
                step.shape[1],
                num_layers=len(stack.members) // stack.directions,
                bidirectional=stack.directions == 2,
                dropout=stack.dropout,
            )
            for i in stack.members:
                suffix = stack.suffix(i)
                site = self._site(name, step.shape, self.values[i])
                site.filled(module, {role: f"{role}{suffix}" for role in self.values[i]})
            made = site.module(module, self.made[stack.source].whole)
            self.states[stack.name] = self.graph.call_function(operator.getitem, (made, 0))
        way = stack.members.index(position) % stack.directions
        return one_way(layer, self.states[stack.name], way, stack.directions)

    def root(self) -> Any:
        """Return a module that holds all modules at their paths."""
        root = self.torch.nn.Module()
        for path, module in self.modules.items():
            *above, name = path.split(".")
            owner = root
            for part in above:
                if not hasattr(owner, part):
                    owner.add_module(part, self.torch.nn.Module())
                owner = getattr(owner, part)
            owner.add_module(name, module)
        return root


@locked
def _prune(model: Network, torch: Any, root: Any, homes: Mapping[str, tuple[str, str]]) -> None:
    """Give parameters of which something is removed the masks of torch.nn.utils.prune."""
    from torch.nn.utils import prune

    for name, mask in model.masks.items():
        if mask.all():
            continue
        layer, _, role = name.partition(".")
        path, suffix = homes[layer]
        part = root.get_submodule(path)
        own = f"{role}{suffix}" if hasattr(part, f"{role}{suffix}") else f"{role}_l0"
        prune.custom_from_mask(part, own, torch.from_numpy(mask.astype(np.float32)))
