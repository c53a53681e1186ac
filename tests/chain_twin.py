"""A chain of clippers once more, in float64 with gradprune.reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradprune as gp
from gradprune import reference
from gradprune.engine.network import Network
from gradprune.optim.clipping import AdaptiveClipper, Clipper

Doubles = dict[str, NDArray[np.float64]]


class ChainTwin:
    """What a chain makes of the gradients of a network, step by step."""

    def __init__(self, clip: Clipper | Sequence[Clipper] | None, network: Network) -> None:
        self.stages = [clip] if isinstance(clip, Clipper) else list(clip or ())
        self.network = network
        self.masks = self._masks()
        self.step = 0
        self.norms: dict[int, list[Any]] = {}  # of AdaGC one a parameter
        self.residuals: dict[tuple[int, str], NDArray[np.float64]] = {}
        self.clipped = False
        self.p = next((float(getattr(s, "norm_type", 2.0)) for s in self.stages), 2.0)
        for stage in self.stages:
            self.p = getattr(stage, "norm_type", self.p)

    def _masks(self) -> dict[str, NDArray[Any]]:
        return {name: np.array(mask) for name, mask in self.network.masks.items()}

    def mask_changed(self) -> None:
        """Residuals follow the masks; adaptive clippers that are asked to start anew."""
        before, self.masks = self.masks, self._masks()
        if all(np.array_equal(before[name], mask) for name, mask in self.masks.items()):
            return  # no change is no pruning
        for i, name in self.residuals:
            if name in self.network.masks:
                self.residuals[i, name] *= self.network.masks[name]
        for i, stage in enumerate(self.stages):
            if isinstance(stage, AdaptiveClipper) and stage.rebaseline_on_prune:
                self.norms[i] = []

    def norm(self, gradients: Mapping[str, NDArray[Any]]) -> float:
        return reference.total_norm(list(gradients.values()), self.p)

    def __call__(self, gradients: Mapping[str, NDArray[Any]]) -> Doubles:
        self.step += 1
        self.clipped = False
        result = {name: np.asarray(g, np.float64) for name, g in gradients.items()}
        for i, stage in enumerate(self.stages):
            result = self._stage(i, stage, result)
        return result

    def _scaled(self, gradients: Doubles, factor: float) -> Doubles:
        self.clipped |= factor < 1
        return {name: g * factor for name, g in gradients.items()}

    def _stage(self, i: int, stage: Clipper, gradients: Doubles) -> Doubles:
        names = list(gradients)
        if isinstance(stage, gp.ClipValue):
            self.clipped |= any(np.abs(g).max() > stage.clip_value for g in gradients.values())
            values = reference.clip_grad_value(list(gradients.values()), stage.clip_value)
            return dict(zip(names, values, strict=True))
        if isinstance(stage, gp.ClipNorm | gp.ClipNormPerLayer | gp.ClipNormPerParameter):
            result = {}
            for group in groups_of(stage, names):
                values, norm = reference.clip_grad_norm(
                    [gradients[name] for name in group], stage.max_norm, stage.norm_type
                )
                self.clipped |= norm > stage.max_norm
                result.update(zip(group, values, strict=True))
            return {name: result[name] for name in names}
        if isinstance(stage, gp.AGC):
            return self._agc(stage, gradients)
        if isinstance(stage, gp.clipping.AdaGC):
            return self._adagc(i, stage, gradients)
        if isinstance(stage, AdaptiveClipper):
            self.norms.setdefault(i, []).append(self.norm(gradients))
            if isinstance(stage, gp.AutoClip):
                limits = reference.autoclip_limits(self.norms[i], stage.percentile, stage.window)
            else:
                assert isinstance(stage, gp.ZClip)
                limits = reference.zclip_limits(self.norms[i], stage.z, stage.alpha, stage.warmup)
            return self._scaled(gradients, reference.clip_scale(self.norms[i][-1], limits[-1]))
        if isinstance(stage, gp.Inhibit):
            return self._inhibit(stage, gradients)
        return {name: self._entries(i, stage, name, g) for name, g in gradients.items()}

    def _agc(self, stage: gp.AGC, gradients: Doubles) -> Doubles:
        result = {}
        for name, g in gradients.items():
            weights = self.network.parameters[name].astype(np.float64)
            excluded = {name, name.partition(".")[0]} & set(stage.exclude)
            result[name] = g if excluded else reference.agc(weights, g, stage.clipping, stage.eps)
            self.clipped |= not np.allclose(result[name], g, rtol=1e-9, atol=0)
        return result

    def _adagc(self, i: int, stage: gp.clipping.AdaGC, gradients: Doubles) -> Doubles:
        norms = self.norms.setdefault(i, [])
        norms.append([self.norm({name: g}) for name, g in gradients.items()])
        settings = (stage.lambda_rel, stage.lambda_abs, stage.beta, stage.warmup)
        factors = reference.adagc_factors(np.array(norms), *settings)[-1]
        self.clipped |= bool(factors.min() < 1)
        return {name: g * f for (name, g), f in zip(gradients.items(), factors, strict=True)}

    def _inhibit(self, stage: gp.Inhibit, gradients: Doubles) -> Doubles:
        if stage.on == "norm":
            norm = self.norm(gradients)
            after = float(reference.inhibit(np.array(norm), stage.limit, stage.form))
            result = self._scaled(gradients, after / norm)
            self.clipped = norm > stage.limit
            return result
        self.clipped |= any(np.abs(g).max() > np.float32(stage.limit) for g in gradients.values())
        return {n: reference.inhibit(g, stage.limit, stage.form) for n, g in gradients.items()}

    def _words(self, i: int, seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.uint32]:
        arena = self.network.arena
        stream = 1 << 61 | i << 56 | self.step
        start = arena.offsets[name]
        words = reference.words(arena.size, seed, stream)[start : start + math.prod(shape)]
        return words.reshape(shape)

    def _entries(
        self, i: int, stage: Clipper, name: str, g: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Noise, quantization and centralization of one parameter."""
        mask = self.network.masks.get(name)
        if isinstance(stage, gp.Centralize):
            return np.asarray(reference.centralize(g, mask), np.float64)
        if isinstance(stage, gp.GradientNoise):
            sigma = math.sqrt(stage.eta / self.step**stage.gamma)
            noise = reference.normal_quantile(self._words(i, stage.seed, name, g.shape))
            return g + sigma * noise * (1.0 if mask is None else mask)
        assert isinstance(stage, gp.QuantizeGradient)
        if stage.error_feedback:
            g = g + self.residuals.get((i, name), np.zeros(g.shape))
        if stage.form == "qsgd":
            words = self._words(i, stage.seed, name, g.shape)
            made = reference.qsgd(g, stage.steps, (words >> np.uint32(8)) * 2.0**-24)
            if stage.error_feedback:
                n = g.size if mask is None else int(mask.sum())
                made = made / (1 + min(n / stage.steps**2, math.sqrt(n) / stage.steps))
        elif stage.form == "kbit":
            made = reference.quantize_kbit(g, 8 if stage.bits is None else stage.bits)
        else:
            made = reference.scaled_sign(g, mask)
        if stage.error_feedback:
            self.residuals[i, name] = g - made
        return np.asarray(made, np.float64)


def groups_of(clip: Clipper, names: Sequence[str]) -> list[list[str]]:
    """Names of the parameters that are clipped together."""
    if isinstance(clip, gp.ClipNorm):
        return [list(names)]
    if isinstance(clip, gp.ClipNormPerParameter):
        return [[name] for name in names]
    layers = dict.fromkeys(name.partition(".")[0] for name in names)
    return [[name for name in names if name.startswith(f"{layer}.")] for layer in layers]
