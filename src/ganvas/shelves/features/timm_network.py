"""Any network of timm as extractor, and those that papers score with under names of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from ganvas.errors import BadValue, CheckpointError
from ganvas.files.published import USUAL, GivenWeights, Published, find, load_extra, read_state
from ganvas.parts import Flat, extractor
from ganvas.shelves.features.frozen import FrozenNetwork, Intake
from ganvas.shelves.features.resample import Resizer

State = dict[str, Tensor]
Side = Annotated[int, Gt(0)]
Source = Annotated[GivenWeights, Flat()]


class TimmNetwork(FrozenNetwork):
    """What the extractors of this file share. Images are stretched to the input's size, never cropped.

    Parameters
    ----------
    name : the part's.
    model : timm's name of the architecture and its weights.
    resizer : see `resample`.
    source : see `GivenWeights`.
    layer : "pooled" is what enters the last linear layer, "head" what leaves it.
    classifies : whether that layer is a classifier; else it is a projection, or not there.
    size : pixels of the input's side; None: what the weights were made for.
    published : the authors' file, where timm offers none.
    spare : beginnings of names in the file that features do not need.
    adapt : changes the file's tensors to fit; None: timm knows how, or they fit.

    Raises
    ------
    MissingExtra : the package timm is not installed.
    BadValue : timm knows no such model, it has no such layer, or its input cannot have this size.
    CheckpointError : the weights are missing, damaged, or those of another network.
    """

    def __init__(
        self,
        name: str,
        model: str,
        resizer: Resizer,
        source: GivenWeights,
        *,
        layer: Literal["pooled", "head"] = "pooled",
        classifies: bool = True,
        size: int | None = None,
        published: Published | None = None,
        spare: tuple[str, ...] = (),
        adapt: Callable[[State], State] | None = None,
    ) -> None:
        timm = load_extra("timm", package="timm", extra="timm", part=name)
        release = published or _published(timm, model)
        weights = find(release, source, part=name)
        state = {key: value for key, value in read_state(weights.path).items() if not key.startswith((*spare, "\0"))}
        options: dict[str, Any] = {} if size is None else {"img_size": size}
        overlay: dict[str, Any] = {"state_dict": adapt(state) if adapt else state}
        if published:  # what timm knows under this name is another training, with a classifier
            options["num_classes"] = overlay["num_classes"] = 0
        try:
            net = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **options)
        except TypeError as error:
            raise BadValue(f"{model} takes its input at one size alone ({error})", key="size") from None
        except (RuntimeError, KeyError, ValueError, AssertionError) as error:
            raise CheckpointError(
                f"its weights are not those of {model}: {(str(error) or 'no tensors').splitlines()[-1].strip()}",
                where=str(weights.path), hint=f"get {release.url}",
            ) from None  # fmt: skip
        if layer == "head" and net.num_classes == 0:
            raise BadValue(f"{model} ends in its pooled features", key="layer", hint="layer: pooled")
        config = net.pretrained_cfg
        side = (size, size) if size else tuple(config["input_size"][1:])
        mean, std = (tuple(255.0 * value for value in config[key]) for key in ("mean", "std"))
        width = net.num_classes if layer == "head" else net.head_hidden_size
        super().__init__(
            name, net, Intake(side, resizer, mean, std), classes=net.num_classes if classifies else 0,
            layer=f"{model} {layer}, {width} values", weights=weights,
        )  # fmt: skip
        self.layer = layer

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D), logits (N, classes) or None) of x (N, 3, H, W)."""
        net: Any = self.net
        hidden = net.forward_features(x)
        pooled = net.forward_head(hidden, pre_logits=True)  # (N, D)
        if self.classes == 0 and self.layer == "pooled":
            return pooled, None
        head = net.forward_head(hidden)  # (N, classes)
        return (head if self.layer == "head" else pooled), (head if self.classes else None)


def _published(timm: Any, model: str) -> Published:
    """Where timm says that a model's weights are."""
    try:
        config = timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError as error:
        family = timm.list_pretrained(f"{model.split('.')[0].split('_')[0]}*")[:6]
        hint = (
            f"for example {', '.join(family)}" if family else "python -c 'import timm; print(timm.list_pretrained())'"
        )
        raise BadValue(f"timm has no weights {model!r}: {error}", key="model", hint=hint) from None
    full = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    files = (f"{full}.safetensors", *((PurePosixPath(config.url).name,) if config.url else ()))
    if not config.hf_hub_id:
        return Published(files, config.url or f"nowhere that timm knows of; make {full} yourself")
    hub = (config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
    return Published(files, f"https://huggingface.co/{hub[0]}/resolve/main/{hub[1]}", hub)


@extractor("timm")
class Timm(TimmNetwork):
    """Any network of timm by name: its pooled features, and its class logits where it has a classifier.

    Parameters
    ----------
    model : as timm names it, "architecture.weights", such as "vit_base_patch16_224.mae".
    layer : "pooled" is what enters the last linear layer, "head" what leaves it (logits, or CLIP's embedding).
    size : pixels of the input's side, for networks that can take several; None: what the weights were made for.
    resizer : see `resample`. Images are stretched, never cropped.
    source : see `GivenWeights`.

    Raises
    ------
    MissingExtra : the package timm is not installed.
    BadValue : timm knows no such model, it has no such layer, or its input cannot have this size.
    CheckpointError : the weights are missing, damaged, or those of another network.
    """

    def __init__(
        self,
        *,
        model: str,
        layer: Literal["pooled", "head"] = "pooled",
        size: Side | None = None,
        resizer: Resizer = "clean",
        source: Source = USUAL,
    ) -> None:
        super().__init__("timm", model, resizer, source, layer=layer, size=size)


@extractor("torchvision-inception", paper="Szegedy et al. 2016")
class TorchvisionInception(TimmNetwork):
    """torchvision's Inception v3: 2048 pooled features, 1000 logits. Not the network of published Fréchet distances.

    Parameters
    ----------
    resizer, source : as of `timm`; torchvision's own file will do, too.
    """

    def __init__(self, *, resizer: Resizer = "clean", source: Source = USUAL) -> None:
        super().__init__("torchvision-inception", "inception_v3.tv_in1k", resizer, source, spare=("AuxLogits.",))


@extractor("resnet50", paper="He et al. 2016")
class ResNet50(TimmNetwork):
    """torchvision's ResNet-50 (ImageNet, first weights): 2048 pooled features, 1000 logits.

    Parameters
    ----------
    resizer, source : as of `timm`; torchvision's own file will do, too.
    """

    def __init__(self, *, resizer: Resizer = "clean", source: Source = USUAL) -> None:
        super().__init__("resnet50", "resnet50.tv_in1k", resizer, source)


SWAV = Published(
    ("swav_800ep_pretrain.pth.tar",), "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"
)


@extractor("swav", paper="Caron et al. 2020; Morozov et al. 2021")
class SwAV(TimmNetwork):
    """ResNet-50 trained without labels for 800 epochs: 2048 pooled features, no logits.

    Parameters
    ----------
    resizer, source : as of `timm`; the weights are the authors' own file.
    """

    def __init__(self, *, resizer: Resizer = "clean", source: Source = USUAL) -> None:
        super().__init__(
            "swav", "resnet50.tv_in1k", resizer, source, published=SWAV, spare=("projection_head.", "prototypes.")
        )


@extractor("dino", paper="Caron et al. 2021")
class DINO(TimmNetwork):
    """DINO's vision transformer: the class token after the last norm, no logits.

    Parameters
    ----------
    size : "small" has 384 features, "base" 768.
    patch : pixels of a patch's side.
    resizer, source : as of `timm`; the authors' own backbone file will do, too.
    """

    def __init__(
        self,
        *,
        size: Literal["small", "base"] = "small",
        patch: Literal[8, 16] = 8,
        resizer: Resizer = "clean",
        source: Source = USUAL,
    ) -> None:
        super().__init__("dino", f"vit_{size}_patch{patch}_224.dino", resizer, source)


@extractor("dinov2", paper="Oquab et al. 2023; Stein et al. 2023")
class DINOv2(TimmNetwork):
    """DINOv2 at 224 pixels: the class token after the last norm, no logits. The space of FD-DINOv2.

    Positions are resampled as the authors' code does, which timm's own way differs from.

    Parameters
    ----------
    size : "small" has 384 features, "base" 768, "large" 1024, "giant" 1536.
    resizer, source : as of `timm`; the authors' own backbone file will do, too.
    """

    def __init__(
        self,
        *,
        size: Literal["small", "base", "large", "giant"] = "large",
        resizer: Resizer = "clean",
        source: Source = USUAL,
    ) -> None:
        super().__init__(
            "dinov2", f"vit_{size}_patch14_dinov2.lvd142m", resizer, source,
            size=224, spare=("mask_token",), adapt=_fewer_positions,
        )  # fmt: skip


def _fewer_positions(state: State) -> State:
    """DINOv2's positions (1, 1 + 37², D) of 518 pixels -> (1, 1 + 16², D) of 224."""
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3 or positions.shape[1] != 1 + 37**2:
        return state
    grid = positions[:, 1:].transpose(1, 2).reshape(1, -1, 37, 37)  # (1, D, 37, 37)
    # A tenth of a patch too many: the authors' guard against rounding became part of the published features.
    grid = F.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")  # (1, D, 16, 16)
    return {**state, "pos_embed": torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)}


@extractor("clip", paper="Radford et al. 2021; Jayasumana et al. 2024")
class CLIP(TimmNetwork):
    """CLIP's image encoder: the 768 values of its embedding, not normalised, no logits. The space of CMMD.

    Parameters
    ----------
    model : as timm names it; "vit_large_patch14_clip_224.datacompxl" with `layer: pooled` is what dgm-eval takes.
    layer : "embedding" is what is compared with texts, "pooled" what is projected to it.
    resizer, source : as of `timm`.
    """

    def __init__(
        self,
        *,
        model: str = "vit_large_patch14_clip_quickgelu_336.openai",
        layer: Literal["embedding", "pooled"] = "embedding",
        resizer: Resizer = "clean",
        source: Source = USUAL,
    ) -> None:
        last: Literal["pooled", "head"] = "head" if layer == "embedding" else "pooled"
        super().__init__("clip", model, resizer, source, layer=last, classifies=False)


@extractor("swin", paper="Liu et al. 2021")
class Swin(TimmNetwork):
    """Swin transformer (ImageNet-22k, then 1k, 224 pixels): 1024 pooled features of the base size, 1000 logits.

    Parameters
    ----------
    size : "base" is what StudioGAN's tables take; "tiny" and "small" have 768 features, "large" 1536.
    resizer, source : as of `timm`; the authors' own file will do, too.
    """

    def __init__(
        self,
        *,
        size: Literal["tiny", "small", "base", "large"] = "base",
        resizer: Resizer = "clean",
        source: Source = USUAL,
    ) -> None:
        super().__init__("swin", f"swin_{size}_patch4_window7_224.ms_in22k_ft_in1k", resizer, source)


@extractor("convnext", paper="Liu et al. 2022")
class ConvNeXt(TimmNetwork):
    """ConvNeXt (ImageNet-22k, 224 pixels): 1536 pooled features of the large size, 21841 logits.

    Parameters
    ----------
    size : "large" is what dgm-eval takes; "tiny" and "small" have 768 features, "base" 1024, "xlarge" 2048.
    resizer, source : as of `timm`; the authors' own file will do, too.
    """

    def __init__(
        self,
        *,
        size: Literal["tiny", "small", "base", "large", "xlarge"] = "large",
        resizer: Resizer = "clean",
        source: Source = USUAL,
    ) -> None:
        super().__init__("convnext", f"convnext_{size}.fb_in22k", resizer, source)
