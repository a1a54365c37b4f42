"""States and pictures for networks whose published weights are not at hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn


def drawn(net: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state for a network, drawn so that activations neither die nor explode through many layers."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            state[name] = torch.zeros_like(value)
        elif name.endswith("running_var"):
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
        elif value.ndim < 2:
            noise = 0.1 * torch.randn(value.shape, generator=generator)
            state[name] = noise + (1.0 if name.endswith("weight") else 0.0)
        else:
            fan_in = value[0].numel()
            state[name] = torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5
    return state


def pictures(n: int, channels: int = 3, height: int = 40, width: int = 40, seed: int = 0) -> Tensor:
    """Smooth images with a little noise, (n, channels, height, width) in [-1, 1], rounded to 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 5, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noisy = (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    return (noisy * 255).round() / 127.5 - 1


def save(state: dict[str, Tensor], file: Path) -> Path:
    """Write a state as its suffix says, into a folder that is made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, file)
    else:
        torch.save(state, file)
    return file


def inception_state() -> dict[str, Tensor]:
    """A state in the official layout: torch-fidelity's class cannot be built without one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unfilled(FeatureExtractorInceptionV3):
        def load_state_dict(self, state: object, *args: Any, **kwargs: Any) -> Any:
            return None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return drawn(Unfilled("net", ["2048"], feature_extractor_weights_path=nothing))
