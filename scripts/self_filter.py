"""Leave out the training images that a model rebuilds worst: `python scripts/self_filter.py RUN --out kept.npz`.

The first stage of Self-Distilled StyleGAN (Mokady et al. 2022): train on everything, filter, train anew on what is kept
with `data: {use: arrays, path: kept.npz}`. A batch of 64 images takes some hundred passes through the generator.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ganvas
from ganvas import parts
from ganvas.evaluation.judge import unflipped
from ganvas.recipe.check import check_node
from ganvas.shelves.analysis.self_filter import best_rebuilt, reconstruction_distances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, whose training images are filtered")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--keep", type=float, default=0.7, help="the share of images that is kept")
    parser.add_argument("--extractor", help="whose features are compared, such as lpips; default: pixels")
    parser.add_argument("--iterations", type=int, default=50, help="of the search for each latent")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()

    model = ganvas.load(given.run, device=given.device)
    dataset = unflipped(model.recipe["data"])
    batch = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0))
    extractor = given.extractor and parts.build("extractor", check_node("extractor", given.extractor))
    label = batch.label.to(model.device) if model.num_classes and batch.label is not None else None
    distances = reconstruction_distances(
        model, batch.data.to(model.device), label, extractor=extractor or None, iterations=given.iterations
    )
    kept = best_rebuilt(distances, given.keep)
    pixels = ((batch.data[kept] + 1) * 127.5).round().byte().numpy()
    arrays = {"images": pixels, "distances": distances}
    if batch.label is not None:
        arrays["labels"] = batch.label[kept].numpy()
    with given.out.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    print(f"kept {len(kept)} of {len(distances)} images, up to distance {distances[kept].max():.4g}")  # noqa: T201


if __name__ == "__main__":
    main()
