"""Train the digit net that ships with Ganvas: `python scripts/train_digit_net.py [--seed 0] [--out FILE] [--folds 5]`.

It sees only the training split of scikit-learn's digits (1,297 images); the 500 held-out images are read once, at the
end, to write their accuracy into the file. `--folds` cross-validates inside the training split instead and writes
nothing: that is where the settings below come from. One training takes about 15 s on one core, and the same seed gives
the same file on the same machine and version of PyTorch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas import parts
from ganvas.shelves.features.digit_net import DigitClassifier

EPOCHS = 120
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
SMOOTHING = 0.05
NOISE = 0.15  # standard deviation, of values in [-1, 1]


def split(name: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in [-1, 1] and labels (N,) of a split of the digits."""
    dataset = parts.build("dataset", {"use": "digits", "split": name})
    batch = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0))
    return batch.data, batch.label


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by at most a pixel in both directions (half of them stay) and add a little noise."""
    n = len(images)
    padded = F.pad(images, (1, 1, 1, 1), value=-1.0)  # (N, 1, 10, 10)
    stay = torch.rand(n, generator=generator) < 0.5
    row, column = (torch.where(stay, 1, torch.randint(0, 3, (n,), generator=generator)) for _ in range(2))
    inside = torch.arange(8)
    rows = (row[:, None] + inside)[:, None, :, None]  # (N, 1, 8, 1)
    columns = (column[:, None] + inside)[:, None, None, :]  # (N, 1, 1, 8)
    shifted = padded[torch.arange(n)[:, None, None, None], 0, rows, columns]  # (N, 1, 8, 8)
    scale = NOISE * torch.rand(n, 1, 1, 1, generator=generator)
    return shifted + scale * torch.randn(images.shape, generator=generator)


def train(images: Tensor, label: Tensor, seed: int) -> DigitClassifier:
    """A classifier after EPOCHS epochs of AdamW under a cosine schedule."""
    torch.manual_seed(seed)  # initial weights and dropout
    generator = torch.Generator().manual_seed(seed)  # order and augmentation
    net = DigitClassifier().train()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images), generator=generator).split(BATCH)[: len(images) // BATCH]:
            _, logits = net(augment(images[index], generator))
            loss = F.cross_entropy(logits, label[index], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def accuracy(net: DigitClassifier, images: Tensor, label: Tensor) -> float:
    """Share of images whose largest logit is their class's."""
    return float((net(images)[1].argmax(1) == label).float().mean())


def cross_validate(images: Tensor, label: Tensor, folds: int, seed: int) -> None:
    """Print the accuracy on each fold, trained on the others."""
    fold = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)) % folds
    scores = []
    for held in range(folds):
        net = train(images[fold != held], label[fold != held], seed)
        scores.append(accuracy(net, images[fold == held], label[fold == held]))
        sys.stdout.write(f"fold {held}: {scores[-1]:.4f}\n")
    sys.stdout.write(f"mean {np.mean(scores):.4f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled digit net.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=0, help="cross-validate on the training split and write nothing")
    default = Path(__file__).parents[1] / "src/ganvas/shelves/features/digit_net.safetensors"
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order
    images, label = split("train")
    if arguments.folds:
        cross_validate(images, label, arguments.folds, arguments.seed)
        return
    start = time.perf_counter()
    # Shipped in half precision, so measured in half precision.
    half = {name: value.half() for name, value in train(images, label, arguments.seed).state_dict().items()}
    net = DigitClassifier().eval().requires_grad_(False)
    net.load_state_dict({name: value.float() for name, value in half.items()})
    held_images, held_label = split("test")
    metadata = {
        "script": "scripts/train_digit_net.py",
        "data": f"scikit-learn digits, Ganvas's training split, {len(images)} images",
        "data_sha256": hashlib.sha256(((images + 1) * 127.5).round().byte().numpy().tobytes()).hexdigest(),
        "data_licence": "UCI Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998), CC BY 4.0",
        "licence": "Apache-2.0",
        "seed": str(arguments.seed),
        "train_accuracy": f"{accuracy(net, images, label):.4f}",
        "test_accuracy": f"{accuracy(net, held_images, held_label):.4f}",
        "test_images": str(len(held_images)),
        "torch": torch.__version__,
    }
    # One key, because the library writes several in a random order and the file is to be the same each time.
    safetensors.torch.save_file(half, arguments.out, {"provenance": json.dumps(metadata)})
    size = arguments.out.stat().st_size
    sys.stdout.write(json.dumps(metadata, indent=2) + "\n")
    sys.stdout.write(f"{arguments.out}: {size} bytes, {time.perf_counter() - start:.0f} s\n")


if __name__ == "__main__":
    main()
