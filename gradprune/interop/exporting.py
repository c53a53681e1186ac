"""What can be written for other libraries: the part of ``Model`` that does it.

Writers are imported when they are called, since most programs that import gradprune export nothing.
"""

from __future__ import annotations

import os
from abc import ABC
from typing import TYPE_CHECKING, Any, SupportsIndex

from numpy.typing import ArrayLike

from gradprune.training.trainee import Trainee

if TYPE_CHECKING:
    from gradprune.interop.c_export import CReport
    from gradprune.interop.onnx_export import OnnxReport

__all__ = ["Exportable"]


class Exportable(Trainee, ABC):
    """A network that can be written for other libraries; see ``Model``."""

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        precision: str = "float32",
        x: ArrayLike | None = None,
        opset: SupportsIndex = 17,
    ) -> OnnxReport:
        """Write the network as it is now to a file of ONNX, for onnxruntime and other tools.

        The file takes samples "x" (batch, *input_shape) and gives "y" (batch, *output_shape), both
        float32, for batches of any size. Parameters have the names and shapes that they have here,
        with "." for a "/" in a layer's name; those of recurrent layers are in the order of ONNX's
        gates. Removed weights are zeros: ``shrink`` first makes the file smaller and what runs it
        faster. Dropout is left out.

        "float32" computes what ``predict`` does, to rounding: within 1e-5 of the largest output.

        "int8" is the same with QuantizeLinear and DequantizeLinear around the products of Dense and
        Conv2D, which onnxruntime runs on integers:

            weight ~ scale_r q,  q = round(weight / scale_r) in -64..64
            input  ~ scale (u - zero),  u in 0..255

        with a scale for each row r, an output or filter, by its largest weight, and one scale and
        zero for all samples, by the range that the input has in ``x``. With 7 bits of a weight, the
        sum of two products fits into 16 bits, as CPUs without VNNI add them. Recurrent layers stay
        float32, and so do layers before a ``LayerNorm``; others do where outputs for ``x`` would be
        off by more than 3 % of the largest one of 16 samples. Batch normalization is folded into
        the product before it, and biases make up for what rounding does to the mean of an output.
        Sources: Jacob et al. 2018; Nagel et al. 2019, section 4.2.

        "qonnx" is for tools that make circuits: weights that a ``Quantizer`` has quantized are
        exactly what they are here, those on a ``Grid`` with ``Quant`` or ``BipolarQuant`` nodes of
        QONNX that say bit width, scale and zero point. Removed weights of a grid of 1 bit need 0 as
        a third value: 2 bits, narrow. QONNX has no node for the shared values of a ``Codebook``:
        these are codes and a ``Gather``. The package qonnx runs such files, onnxruntime does not.

        Args:
            path: the file, which is replaced as a whole or, on an error, left as it was.
            precision: "float32", "int8" or "qonnx".
            x: (n, *input_shape) samples such as will be predicted, for "int8" alone, which needs
                them; a few hundred do.
            opset: the version of ONNX's operators, 17 or later.

        Returns:
            The size of the file and, of "int8", which layers run on integers and the error that was
            measured; its ``tolerance`` is the one to verify with.

        Raises:
            ImportError: onnx is not installed or, for "int8", onnxruntime: they come with
                ``pip install "gradprune[onnx]"``.
            OSError: the file cannot be written.
            TypeError, ValueError: an argument is not as above, the parameters take 2 GiB or more,
                or nothing is quantized for "qonnx".
            NonFiniteError: a weight is not finite, for "int8".

        Example::

            model.to_onnx("m.onnx")
            session = onnxruntime.InferenceSession("m.onnx")
            (y,) = session.run(["y"], {"x": x})
        """
        from gradprune.interop import onnx_export

        return onnx_export.to_onnx(self, path, precision=precision, x=x, opset=opset)

    def to_c(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        precision: str = "float32",
        x: ArrayLike | None = None,
    ) -> CReport:
        """Write the network as it is now to a file of C99 and its header, for microcontrollers.

        The file needs nothing but the C library's math.h, and that only for some activations. It
        allocates nothing, and has no global state but constants. Its function

            void NAME_predict(const float *x, float *y);

        computes what ``predict`` does for one sample, to rounding: within 1e-5 of the largest
        output. x and y are the numbers of a sample and of a prediction, as in a row of NumPy. Its
        workspace, which layers share, is on the stack; ``NAME_predict_in`` takes it from the
        caller.

        A layer's weights are kept as the live ones with the gaps between them, of a byte each, or
        whole where that takes less; a comment of each layer says which, with bytes of flash and
        RAM. ``shrink`` first makes the file smaller. Dropout is left out. ``gp.verify(model,
        "digits.c", x=x)`` compiles the file, runs it and compares.

        "float32" keeps weights as numbers. "codebook" keeps those that share at most 256 values,
        in a layer or in each row of it, as codes of 4 or 8 bits and a table of the values, where
        that takes less: those of a ``Quantizer``, or of what ``gp.compress`` packed. They are
        exactly the weights of the model.

        "int8" keeps the Dense layers that ``freeze(precision="int8")`` runs on integers as bytes
        with a scale for each row, the others as numbers. Their integers are those of the frozen
        model, and so are their floats where the compiler does not contract products and sums
        (-std=c99 or -ffp-contract=off): predictions have the same bits if all layers are such, with
        activations that are not computed by math.h. Where a float32 layer comes before them its
        rounding may move a byte by one.

        Args:
            path: the file, which ends in ".c"; the header ends in ".h". Both are replaced as a
                whole or, on an error before they are written, left as they were.
            name: what the names of functions begin with; None: the name of the file.
            precision: "float32", "int8" or "codebook".
            x: (n, *input_shape) samples such as will be predicted, to measure which layers may run
                on integers, as for ``freeze``; None: random ones. Only with "int8".

        Returns:
            What was written, with the form and the bytes of each layer.

        Raises:
            NonFiniteError: a parameter is not finite.
            OSError: a file cannot be written.
            TypeError, ValueError: an argument is not as above, or no weights share few values for
                "codebook".
            UnsupportedOperationError: layers have no form in C, all of which it names.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
        >>> print(model.to_c("digits.c"))
        digits.c: float32, digits_predict
        layer   form                     flash bytes  RAM bytes
        dense0  dense, 24 of 24 weights           96         32
        dense0  relu                               0         32
        dense1  dense, 16 of 16 weights           64         32
        -------------------------------------------------------
        total                                    160         32
        """
        from gradprune.interop import c_export

        return c_export.to_c(self, path, name=name, precision=precision, x=x)

    def to_torch(self, *, masks: bool = False) -> Any:
        """Return a torch module that predicts what the model does, of torch's own modules.

        It is a ``torch.fx.GraphModule`` in eval mode: print its ``code``, train it, export it, save
        it by ``torch.save``. Samples have the same shapes as here. A layer ``features/0`` becomes
        the module ``features.0``, so the state_dict of a model that ``gp.from_torch`` made has the
        names that it had in torch. Penalties of layers, ``truncation`` and ``omega`` stay here.

        Args:
            masks: parameters of which something is removed get the masks of torch.nn.utils.prune,
                so that they stay removed in training; else removed weights are zeros.

        Raises:
            ImportError: there is no torch: ``pip install "gradprune[torch]"``.
            UnsupportedOperationError: layers have no expression in torch, all of which it names.

        >>> import torch
        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
        >>> module = model.to_torch()
        >>> module(torch.zeros(5, 3)).shape, list(module.state_dict())[:2]
        (torch.Size([5, 2]), ['dense0.weight', 'dense0.bias'])
        """
        from gradprune.interop.torch_writer import write_torch

        return write_torch(self, masks=masks)
