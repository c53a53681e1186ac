"""Quantization of gradients, with or without error feedback."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradprune.foundation.checks import LARGEST_SEED, choice, flag, settle, whole
from gradprune.optim.clipping.base import Clipper, ClipStage

__all__ = ["QuantizeGradient"]

_FORMS = {"qsgd": 0.0, "kbit": 1.0, "sign": 2.0}  # as csrc/clippers/quantize.c numbers them


@dataclass(frozen=True)
class QuantizeGradient(Clipper):
    """Gradient quantization, parameter by parameter over the live entries.

    - qsgd: g_i <- ||g|| sign(g_i) xi_i / s, with xi_i one of the two integers next to
      s |g_i| / ||g||, drawn so that the mean is right: unbiased. The random numbers are those of
      (seed, step, place in the arena), whatever way the step runs.
    - kbit: the nearest multiple of max|g| / (2^(bits-1) - 1), ties to even.
    - sign: mean|g| sign(g).

    With error feedback what quantization took away is added to the next gradient; qsgd is then
    divided by 1 + min(n / s^2, sqrt(n) / s), n live entries, since an error larger than the
    gradient would grow from step to step. Quantization may raise the norm; put it before a clipper
    by norm.

    Args:
        form: "qsgd", "kbit" or "sign".
        levels: the levels of qsgd, s in 1..65536; None means 16.
        bits: the bits of kbit, 2..16; None means 8.
        error_feedback: keep a residual; it is 0 where weights are removed, and in the checkpoint.
        seed: the seed of qsgd, 0 <= seed < 2**64.

    Sources: Alistarh et al. 2017 (QSGD); Karimireddy et al. 2019 (scaled sign, error feedback).

    >>> QuantizeGradient("kbit", bits=4, error_feedback=True).steps
    7
    """

    form: str = "qsgd"
    levels: int | None = field(default=None, kw_only=True)
    bits: int | None = field(default=None, kw_only=True)
    error_feedback: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, choice, "form", known=_FORMS)
        settle(self, whole, "levels", least=1, most=65536)
        settle(self, whole, "bits", least=2, most=16)
        settle(self, whole, "seed", most=LARGEST_SEED)
        settle(self, flag, "error_feedback")
        for name, form in (("levels", "qsgd"), ("bits", "kbit")):
            if getattr(self, name) is not None and self.form != form:
                raise ValueError(
                    f"{name} are for the form {form!r}, and the form is {self.form!r}: leave "
                    f"{name} out, or write form={form!r}"
                )

    @property
    def steps(self) -> int:
        """Magnitudes above 0 that an entry can have."""
        if self.form == "sign":
            return 1
        if self.form == "qsgd":
            return 16 if self.levels is None else self.levels
        return int(2 ** ((8 if self.bits is None else self.bits) - 1) - 1)

    @property
    def has_residual(self) -> bool:
        """See Clipper."""
        return self.error_feedback

    def stage(self) -> ClipStage:
        """See Clipper."""
        return ClipStage("quantize", (_FORMS[self.form], float(self.steps)), seed=self.seed)
