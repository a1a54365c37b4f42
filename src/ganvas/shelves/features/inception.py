"""The network behind published Fréchet and Inception distances, ported from TensorFlow (Szegedy et al. 2016)."""

from __future__ import annotations

import io
from typing import Annotated, Literal

import torch
from torch import Tensor

from ganvas.errors import CheckpointError
from ganvas.files.published import USUAL, GivenWeights, Published, find, load_extra, read_state
from ganvas.parts import Flat, extractor
from ganvas.shelves.features.frozen import FrozenNetwork, Intake
from ganvas.shelves.features.resample import Resizer

WEIGHTS = Published(
    ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
"""Both names are of one file; the second is pytorch-fid's."""

Layer = Literal[64, 192, 768, 2048, "spatial"]

_SIDE = 299
_TRUNK = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2",
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
    "Mixed_7a", "Mixed_7b", "Mixed_7c",
)  # fmt: skip
_LAST: dict[Layer, str] = {64: "MaxPool_1", 192: "MaxPool_2", "spatial": "Mixed_6c", 768: "Mixed_6e", 2048: "Mixed_7c"}
_IN_WORDS: dict[Layer, str] = {
    64: "first max pooling, averaged over space, 64 values",
    192: "second max pooling, averaged over space, 192 values",
    768: "Mixed_6e, averaged over space, 768 values",
    2048: "pool3, 2048 values",
    "spatial": "Mixed_6d branch1x1 (mixed_6/conv), 7 channels of 17x17, 2023 values",
}
_SPATIAL_CHANNELS = 7


@extractor("inception", paper="Heusel et al. 2017; Nash et al. 2021 (spatial)")
class Inception(FrozenNetwork):
    """The FID Inception of 2015-12-05: 2048 features and the 1008 class logits of the Inception score.

    The network is torch-fidelity's, which equals TensorFlow's graph to float rounding. Logits are those without the
    bias, as in every published Inception score.

    Parameters
    ----------
    layer : 2048 for FID, KID and precision; "spatial" for sFID, the first 7 channels of TensorFlow's `mixed_6/conv`
        before pooling, in the order of ADM's evaluator (row, column, channel); 64, 192 and 768 as in pytorch-fid.
        Only 2048 brings logits.
    resizer : "legacy" is TensorFlow's, for numbers beside published ones; "clean" that of clean-fid.
    source : see `GivenWeights`.

    Attributes
    ----------
    provenance : sha256 of the weights' file, the layer, the resizer and where the weights come from.

    Raises
    ------
    MissingExtra : the package torch-fidelity is not installed.
    CheckpointError : the weights are missing, damaged, or those of another network.
    """

    def __init__(
        self,
        *,
        layer: Layer = 2048,
        resizer: Resizer = "legacy",
        source: Annotated[GivenWeights, Flat()] = USUAL,
    ) -> None:
        network = load_extra(
            "torch_fidelity.feature_extractor_inceptionv3", package="torch-fidelity", extra="fidelity", part="inception"
        )
        weights = find(WEIGHTS, source, part="inception")
        # Its constructor unpickles the file that it is given: it gets the tensors that were read here, written anew.
        safe = io.BytesIO()
        torch.save(read_state(weights.path), safe)
        safe.seek(0)
        try:
            net = network.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=safe)
        except RuntimeError as error:
            raise CheckpointError(
                f"its weights are not those of the FID Inception: {str(error).splitlines()[-1].strip()}",
                where=str(weights.path), hint=f"get {WEIGHTS.url}",
            ) from None  # fmt: skip
        # The graph takes (x - 128) / 128.
        intake = Intake((_SIDE, _SIDE), resizer, mean=(128.0,) * 3, std=(128.0,) * 3)
        classes = net.fc.out_features if layer == 2048 else 0
        super().__init__("inception", net, intake, classes=classes, layer=_IN_WORDS[layer], weights=weights)
        self.layer = layer

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D), logits (N, 1008) or None) of x (N, 3, 299, 299)."""
        for name in _TRUNK[: _TRUNK.index(_LAST[self.layer]) + 1]:
            x = self.net.get_submodule(name)(x)
        if self.layer == "spatial":
            x = self.net.get_submodule("Mixed_6d.branch1x1")(x)[:, :_SPATIAL_CHANNELS]  # (N, 7, 17, 17)
            return x.permute(0, 2, 3, 1).flatten(1), None  # (N, 17 * 17 * 7)
        features = x.mean(dim=(2, 3))  # (N, D)
        if self.layer != 2048:
            return features, None
        return features, features @ self.net.get_parameter("fc.weight").T  # (N, 1008)
