"""Any vision network of Hugging Face's transformers as extractor; weights from safetensors alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import MinLen
from torch import Tensor

from ganvas.errors import BadValue, CheckpointError
from ganvas.files import published
from ganvas.files.published import WeightsFile, check_sha256, load_extra, missing_extra, sha256_of
from ganvas.parts import extractor
from ganvas.shelves.features.frozen import FrozenNetwork, Intake
from ganvas.shelves.features.resample import Resizer

_EXTRA = {"package": "transformers", "extra": "transformers", "part": "transformers"}
_NEEDED = ("config.json", "preprocessor_config.json")


@extractor("transformers")
class Transformers(FrozenNetwork):
    """Any vision network of Hugging Face's transformers, by folder or name: its pooled features, no logits.

    Size and normalisation are read from the folder's `preprocessor_config.json`; images are stretched, never cropped.
    Of a model of images and texts, the image encoder before its projection is taken.

    Parameters
    ----------
    model : a folder with config.json, preprocessor_config.json and *.safetensors; or "owner/name", which is looked for
        in `$GANVAS_WEIGHTS/owner/name` and then on the Hub.
    layer : "pooled" is the network's own summary, "first" its first token, "mean" the mean over tokens or places.
    resizer : see `resample`.
    sha256 : of the weights (of all files after each other where there are several), or its beginning; others are
        refused.

    Raises
    ------
    MissingExtra : the package transformers is not installed.
    BadValue : the network has no such layer, or is none of images.
    CheckpointError : a file is missing, damaged, or belongs to another network.
    """

    def __init__(
        self,
        *,
        model: str,
        layer: Literal["pooled", "first", "mean"] = "pooled",
        resizer: Resizer = "clean",
        sha256: Annotated[str, MinLen(8)] | None = None,
    ) -> None:
        library: Any = load_extra("transformers", **_EXTRA)
        folder = _folder(model)
        intake = _intake(folder, resizer)
        files = sorted(folder.glob("*.safetensors"))
        weights = WeightsFile(folder, sha256_of(*files), model)
        check_sha256(weights.sha256, sha256, folder)
        net, report = _built(library, folder)
        if absent := [name for name in report["missing_keys"] if "pooler" not in name or layer == "pooled"]:
            raise CheckpointError(
                f"its weights lack {len(absent)} tensors of the network, such as {sorted(absent)[0]}",
                where=str(folder), hint="the file belongs to another network, or has no pooler: try layer: first",
            ) from None  # fmt: skip
        net = dict(net.named_children()).get("vision_model", net)
        if net.main_input_name != "pixel_values":
            raise BadValue(f"{model} reads {net.main_input_name}, not images", key="model")
        super().__init__("transformers", net, intake, classes=0, layer=layer, weights=weights)
        self.layer = layer
        with torch.inference_mode():
            width = self.embed(torch.zeros(1, 3, *intake.size))[0].shape[1]  # type: ignore[misc]
        self.provenance = {**self.provenance, "layer": f"{type(net).__name__} {layer}, {width} values"}

    def embed(self, x: Tensor) -> tuple[Tensor, None]:
        """(features (N, D), None) of x (N, 3, H, W)."""
        out: Any = self.net(pixel_values=x)
        if self.layer == "pooled":
            if out.get("pooler_output") is None:
                raise BadValue("this network has no pooled output", key="layer", hint="layer: first, or layer: mean")
            return out["pooler_output"].flatten(1), None
        hidden: Tensor = out["last_hidden_state"]  # (N, tokens, D), or (N, D, H', W') of a convolutional network
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        return (hidden[:, 0] if self.layer == "first" else hidden.mean(1)), None


def _built(library: Any, folder: Path) -> tuple[Any, Any]:
    """The network in a folder, and the library's report of what fitted.

    Raises
    ------
    MissingExtra : the library, or what it needs, is broken.
    CheckpointError : the library cannot build it.
    """
    logging = library.logging
    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # what is missing is told in an error of ours, what is left over is meant to be
    logging.disable_progress_bar()
    try:
        net, report = library.AutoModel.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, dtype="float32",
            output_loading_info=True,
        )  # fmt: skip
    except ImportError as error:  # its modules are imported when they are first used
        raise missing_extra(error, **_EXTRA) from None
    except Exception as error:  # whatever a config of another version makes the library raise
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(
            f"transformers cannot build it: {said}",
            where=str(folder),
            hint=f"get its files again: {', '.join(_NEEDED)}",
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
    return net, report


def _folder(model: str) -> Path:
    """Where the files of a model are.

    Raises
    ------
    CheckpointError : nowhere, or some are missing.
    """
    stored = published.folder() / model
    given = Path(model).expanduser()
    place = given if given.is_dir() else stored if stored.is_dir() else None
    reason = ""
    if place is None:
        place, reason = _from_hub(model)
    hint = (
        f"get {', '.join(_NEEDED)} and model.safetensors from https://huggingface.co/{model}/tree/main and put them "
        f"into {stored}, or give the path of such a folder as `model:`"
    )
    if place is None:
        raise CheckpointError(f"there is no model {model!r} on this machine{reason}", where="transformers", hint=hint)
    missing = [name for name in _NEEDED if not (place / name).is_file()]
    if not any(place.glob("*.safetensors")):
        missing.append("*.safetensors (pickled weights are not read)")
    if missing:
        raise CheckpointError(f"the folder lacks {', '.join(missing)}", where=str(place), hint=hint)
    return place


def _from_hub(model: str) -> tuple[Path | None, str]:
    """(the folder, "") from the Hub or what was fetched before, or (None, why not)."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None, ", and the package huggingface_hub that could fetch it is not there"
    try:
        return Path(snapshot_download(model, allow_patterns=[*_NEEDED, "*.safetensors*"])), ""
    except (OSError, ValueError, RuntimeError) as error:
        return None, f", and the Hub does not give it ({type(error).__name__}: {str(error).splitlines()[0][:120]})"


def _intake(folder: Path, resizer: Resizer) -> Intake:
    """What the folder's preprocessor asks for, but for its cropping.

    Raises
    ------
    CheckpointError : it cannot be read.
    """
    file = folder / _NEEDED[1]
    try:
        asked = json.loads(file.read_text(encoding="utf-8"))
        size = asked.get("crop_size") if asked.get("do_center_crop") else None
        size = asked["size"] if size is None else size
        if isinstance(size, dict):
            both = size.get("shortest_edge")
            side = (both, both) if both else (size["height"], size["width"])
        else:
            side = (size, size)
        if asked.get("do_normalize", True):
            mean, std = asked["image_mean"], asked["image_std"]
        else:
            mean, std = (0.0,) * 3, (1.0,) * 3
        scale = 255.0 if asked.get("do_rescale", True) else 1.0
        mean, std = (tuple(scale * float(value) for value in values) for values in (mean, std))
        return Intake((int(side[0]), int(side[1])), resizer, mean, std)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"it does not say size and normalisation ({type(error).__name__}: {error})", where=str(file),
            hint="get it again",
        ) from None  # fmt: skip
