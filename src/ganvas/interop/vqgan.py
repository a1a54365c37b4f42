"""The autoencoder of CompVis/taming-transformers -> ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.parts import image_spec
from ganvas.types import DataSpec

UNDERSTOOD = {"ddconfig", "n_embed", "embed_dim", "beta", "legacy", "remap", "sane_index_shape", "image_key"}
OF_ENCODER = {
    "double_z", "z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks",
    "attn_resolutions", "dropout", "resamp_with_conv", "give_pre_end",
}  # fmt: skip

RENAMED = (
    (r"^quant_conv", "to_code"),
    (r"^post_quant_conv", "from_code"),
    (r"^quantize", "codebook"),
    (r"^(encoder|decoder)\.(?:down|up)\.(\d+)", r"\1.levels.\2"),
    (r"\.block\.(\d+)", r".blocks.\1"),
    (r"\.attn\.(\d+)", r".attention.\1"),
    (r"\.(?:downsample|upsample)", ".then"),
    (r"\.mid\.block_(\d)", r".middle.block\1"),
    (r"\.mid\.attn_1", ".middle.attention"),
    (r"\.mid$", ".middle"),
    (r"\.(?:nin_shortcut)", ".skip"),
    (r"\.q\b", ".query"),
    (r"\.k\b", ".key"),
    (r"\.v\b", ".value"),
    (r"\.proj_out", ".out"),
    (r"\.norm_out", ".norm"),
    (r"^encoder\.conv_in", "encoder.from_image"),
    (r"^encoder\.conv_out", "encoder.to_latent"),
    (r"^decoder\.conv_in", "decoder.from_latent"),
    (r"^decoder\.conv_out", "decoder.to_image"),
)


@importer(
    "taming VQModel (encoder/quant_conv/VectorQuantizer2(legacy beta)/post_quant_conv/decoder)",
    "taming.models.vqgan.VQModel",
    repo="CompVis/taming-transformers",
)
def vq_model(case: OfficialCase) -> Imported:
    """Encoder, codebook and decoder; the losses of training, a critic among them, are no part of it."""
    config = case.kwargs.get("ddconfig", {})
    _refuse_what_is_not_understood(case, config)
    multipliers = tuple(config.get("ch_mult", (1, 2, 4, 8)))
    resolution = int(config["resolution"])
    height, width = case.inputs["img"].shape[2:] if "img" in case.inputs else (resolution, resolution)
    # There a level has attention by its side at `resolution`, whatever the size of the images that come.
    attended = [i for i in range(len(multipliers)) if resolution >> i in config.get("attn_resolutions", ())]
    vocabulary, code_dim = case.state["quantize.embedding.weight"].shape
    node = {
        "use": "vqgan-tokenizer",
        "width": int(config["ch"]),
        "multipliers": list(multipliers),
        "blocks": int(config["num_res_blocks"]),
        "attention": [min(height, width) >> i for i in attended],
        "latent_width": int(config["z_channels"]),
        "vocabulary": vocabulary,
        "code_dim": code_dim,
        "beta": float(case.kwargs.get("beta", 0.25)),
        "legacy": bool(case.kwargs.get("legacy", True)),
        "dropout": float(config.get("dropout", 0.0)),
        "resample_conv": bool(config.get("resamp_with_conv", True)),
    }
    spec: DataSpec = image_spec((int(config["in_channels"]), height, width))
    return carry_over(case, spec, node, rename=_ours, call=_call)


def _refuse_what_is_not_understood(case: OfficialCase, config: Mapping[str, Any]) -> None:
    for key in sorted((case.kwargs.keys() - UNDERSTOOD) | (config.keys() - OF_ENCODER)):
        raise NoImporter(f"no importer yet for {case.cls} with {key}")
    for key, refused in (
        ("double_z", bool(config.get("double_z", True))),
        ("give_pre_end", bool(config.get("give_pre_end"))),
        ("out_ch other than in_channels", config["out_ch"] != config["in_channels"]),
        ("remap", case.kwargs.get("remap") is not None),
    ):
        if refused:
            raise NoImporter(f"no importer yet for {case.cls} with {key}")


def _ours(name: str) -> str:
    """Official names of modules and tensors -> ours."""
    for official, ours in RENAMED:
        name = re.sub(official, ours, name)
    return name


def _call(net: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`img` (N, C, H, W) -> the encoder's map, codes before and after, their loss, their numbers (N h w,), images."""
    latent = net.encoder(inputs["img"])
    z = net.to_code(latent)
    codes, tokens, losses = net.codebook(z)
    outputs = {"enc": latent, "z": z, "quant": codes, "emb_loss": sum(losses.values()), "indices": tokens.flatten()}
    return {key: value.detach() for key, value in {**outputs, "rec": net.image_of(codes)}.items()}
