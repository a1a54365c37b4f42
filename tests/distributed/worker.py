"""One of the processes of a comparison: trains recipes in float64 and writes what they became.

`python worker.py OUT CASES.json`, with RANK and WORLD_SIZE as torchrun sets them. Random numbers are those of a lone
process: each rank draws them for the whole batch and takes those of its own data. So whatever differs in the end is due
to how the processes work together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from ganvas.engine import trainer as engine
from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.distributed import joined
from ganvas.engine.trainer import Hooks
from ganvas.recipe.recipe import Recipe
from ganvas.runtime import ranks
from ganvas.training.train import open_data
from ganvas.types import Batch, Dataset

FACTORIES = {torch.rand, torch.randn}
LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
IN_PLACE = {torch.Tensor.uniform_, torch.Tensor.normal_}


class OneBatch(TorchFunctionMode):
    """Draws for the whole batch wherever a draw is for this rank's share of it."""

    def __init__(self, share: int) -> None:
        super().__init__()
        self.share = share

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            size = tuple(kwargs.pop("size", args[0] if args and not isinstance(args[0], int) else args))
            return self.draw(lambda *whole: func(whole, **kwargs), size)
        if func in LIKE:
            like = args[0]
            return self.draw(lambda *whole: LIKE[func](whole, dtype=like.dtype), tuple(like.shape))
        if func in IN_PLACE:
            return args[0].copy_(
                self.draw(
                    lambda *whole: func(torch.empty(whole, dtype=args[0].dtype), *args[1:], **kwargs), args[0].shape
                )
            )
        return func(*args, **kwargs)

    def draw(self, make: Callable[..., torch.Tensor], size: tuple[int, ...]) -> torch.Tensor:
        half = bool(size) and 2 * size[0] == self.share  # of a term that looks at half of a batch
        if not size or not size[0] or (size[0] % self.share and not half):
            return make(*size)
        copies = max(1, size[0] // self.share)
        whole = make(size[0] * ranks.world(), *size[1:])
        rows = whole.view(copies, -1, *size[1:])[:, ranks.rank() :: ranks.world()]
        return rows.reshape(size)


class InFloat64(Dataset):
    """A data set whose images are float64."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.spec, self.class_names, self.fingerprint = dataset.spec, dataset.class_names, dataset.fingerprint

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Any, rng: Any) -> Batch:
        found = self.dataset.batch(indices, rng)
        return found.with_data(found.data.double())


def train(name: str, overrides: list[str], folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a run of a recipe leaves, by name."""
    resolved = Recipe.load(name, overrides).resolve()
    dataset: Any = InFloat64(open_data(resolved))
    trainer = build_trainer(Plan(resolved, dataset, torch.device("cpu")), folder, Hooks(), fresh=True)
    original = engine.seed_from
    engine.seed_from = lambda seed, rank, step: original(seed, 0, step)  # type: ignore[assignment]
    settings = resolved["train"]
    try:
        with OneBatch(settings["batch"] // ranks.world() // settings["accumulate"]):
            while trainer.step < settings["steps"]:
                trainer.take_step()
    finally:
        engine.seed_from = original
    left = {f"average.{role}.{key}": value for role, own in trainer.result().items() for key, value in own.items()}
    for role, net in trainer.nets.items():
        left |= {f"{role}.{key}": value for key, value in trainer.layout.full(net.state_dict()).items()}
    left |= {f"log.{key}": torch.tensor(value) for key, value in trainer.logbook.means().items()}
    for part, state in trainer.task.state_dict().items():
        for key, value in state.items():
            if isinstance(value, (int, float)):
                left[f"task.{part}.{key}"] = torch.tensor(float(value))
    return left


def main(out: Path, cases: dict[str, list[str]]) -> None:
    torch.set_default_dtype(torch.float64)
    with joined():
        for case, (name, *overrides) in cases.items():
            left = train(name, overrides, out / "runs" / f"{case}-{ranks.rank()}-of-{ranks.world()}")
            tensors = {key: value.detach().double().contiguous().clone() for key, value in left.items()}
            save_file(tensors, out / f"{case}.{ranks.rank()}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
