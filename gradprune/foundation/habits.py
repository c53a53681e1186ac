"""Hints for calls that are written as in another library."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["keras_hook", "loss_hint", "refuse_loader", "shape_hint"]

_LOSSES = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "log_loss": "cross_entropy",
    "nll": "cross_entropy",
    "binary_crossentropy": "bce",
    "mean_squared_error": "mse",
    "squared_error": "mse",
    "mean_absolute_error": "mae",
    "absolute_error": "mae",
}
_TORCH_LOSSES = {
    "CrossEntropyLoss": "cross_entropy",
    "MSELoss": "mse",
    "L1Loss": "mae",
    "HuberLoss": "huber",
    "BCEWithLogitsLoss": "bce",
    "BCELoss": "bce",
}


def shape_hint(shape: Sequence[int], wanted: Sequence[int]) -> str:
    """Return what makes samples of an array of a wrong shape; "" if nobody knows.

    Args:
        shape: of the array.
        wanted: of a sample.

    >>> shape_hint((64,), (64,))
    '; one sample is x[None]'
    """
    shape, wanted = tuple(shape), tuple(wanted)
    if shape == wanted:
        return "; one sample is x[None]"
    own = shape[1:]
    if len(wanted) == 3 and own == (*wanted[1:], wanted[0]):
        return "; channels come first: write x.transpose(0, 3, 1, 2)"
    sizes = [size for size in own if size != 1]
    if sizes and sizes == [size for size in wanted if size != 1]:
        return f"; write x.reshape(-1, {', '.join(map(str, wanted))})"
    total = 1
    for size in own:
        total *= size
    if len(wanted) == 1 and len(own) > 1 and total == wanted[0]:
        return "; write x.reshape(len(x), -1), or begin the model with gp.Flatten()"
    return ""


def loss_hint(loss: object) -> str:
    """Return what a loss of another library is called here; "" if nobody knows.

    >>> loss_hint("mean_squared_error")
    'write loss="mse"'
    """
    kind = type(loss)
    if isinstance(loss, str):
        found = _LOSSES.get(loss)
    else:
        found = _TORCH_LOSSES.get(kind.__name__) if kind.__module__.startswith("torch.") else None
    return f'write loss="{found}"' if found else ""


def refuse_loader(x: object, y: object) -> None:
    """Raise a TypeError if x is what other libraries give batches by, or holds y, too."""
    if isinstance(x, tuple) and len(x) == 2 and y is None:
        raise TypeError("fit takes x and y apart: write model.fit(*data, ...)")
    if isinstance(x, str | bytes | list | tuple) or hasattr(x, "__array__"):
        return
    if hasattr(x, "__iter__") or hasattr(x, "__getitem__"):
        raise TypeError(
            f"fit takes arrays, got an object of {type(x).__name__}: write model.fit(x, y, "
            "batch_size=32), or go over its batches and write model.train_step(x, y, "
            "optimizer=optimizer)"
        )


def keras_hook(hook: object) -> bool:
    """Whether a hook of a callback takes more than a context, such as Keras's (epoch, logs).

    >>> keras_hook(lambda epoch, logs=None: None), keras_hook(lambda context: None)
    (True, False)
    """
    code = getattr(getattr(hook, "__func__", hook), "__code__", None)
    if code is None:
        return False
    names = code.co_varnames[: code.co_argcount]
    return "logs" in names[1:]
