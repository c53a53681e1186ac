"""Plots: what happened in training, what was removed, and why.

One function a picture, each returning it. With ``ax`` it is drawn into axes of yours. Figures are
made without pyplot, so nothing global changes and nothing has to be closed; in a notebook a figure
that is the value of a cell is shown. Needs matplotlib: ``pip install "gradprune[plot]"``.

>>> import gradprune as gp
>>> (x, y), test = gp.datasets.digits()
>>> model = gp.Model([gp.Dense(16, activation="relu"), gp.Dense(10)], input_shape=64)
>>> optimizer = gp.SGD(model, lr=0.1, clip=gp.ClipNorm(1.0))
>>> history = model.fit(x, y, optimizer=optimizer, epochs=3, validation_data=test, verbose=0)
>>> before = {name: model.parameters[name].copy() for name in model.masks}
>>> pruner = gp.Pruner(model, criterion=gp.GradientDecomposition())
>>> gp.plotting.plot_decomposition(pruner, data=(x, y)).savefig("parts.png")
>>> report = pruner.prune(0.9, data=(x, y))
>>> gp.plotting.plot_history(history, max_norm=1.0).savefig("history.png")
>>> gp.plotting.plot_weights(before, model).savefig("weights.png")
>>> gp.plotting.plot_sparsity(model).get_xlabel()
'weights kept (%)'
>>> gp.diagnose(model, x[:200], y[:200]).plot().savefig("diagnosis.png")
>>> curves = gp.sensitivity(model, *test, sparsities=(0.95, 0.99))
>>> curves.plot().get_ylabel()
'accuracy (%)'
>>> gp.plotting.overview(history, before, model).savefig("overview.png")
"""

from gradprune.plotting.decomposition import *
from gradprune.plotting.diagnosis import *
from gradprune.plotting.glance import *
from gradprune.plotting.history import *
from gradprune.plotting.sensitivity import *
from gradprune.plotting.tradeoff import *
from gradprune.plotting.weights import *
