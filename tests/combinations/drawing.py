"""Random recipes: every part on the shelves may meet every other. What cannot work is for the product to refuse."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.parts import Part, image_spec, values
from ganvas.parts.values import choices
from ganvas.recipe.check import check_node
from ganvas.types import Regularizer

# Keys that make a part small, or keep it from doing nothing in the two steps that it is watched for.
KEYS: Mapping[str, Mapping[str, Any]] = {
    "2c": {"embedding_dim": 8},
    "d2d-ce": {"embedding_dim": 8},
    "concatenation": {"width": 8, "label_width": 8, "pieces": 2, "label_pieces": 2},
    "info": {"discrete": [3], "continuous": 1},
    "mmd": {"dim": 4},
    "ada": {"p": 0.5, "interval": 1, "speed_kimg": 0.1},
    "apa": {"p": 0.5, "interval": 1, "speed_kimg": 0.1},
    "diffusion-noise": {"p": 0.5, "t_max": 50, "interval": 1, "speed_kimg": 0.1},
    "instance-noise": {},
    "top-k": {"decay": 0.6, "every": 1},
    "lecam": {"start": 1},
}
# Weights that keep the sum of any three terms finite at the start.
WEIGHTS = (0.01, 0.1, 1.0)


def one_word(annotation: Any) -> list[str]:
    """The words that are a whole value of this type; some types take lists of words instead."""
    words = []
    for word in choices(annotation):
        with contextlib.suppress(ValueError):
            words.append(values.read_value(annotation, word))
    return words


@functools.cache
def networks_for(role: str) -> list[Part]:
    """The networks of the package that can stand in this role of the adversarial task and work on images with labels.

    Networks for data of another kind refuse images, and no override of a key makes them take any.
    """
    kinds = parts.find("task", "adversarial").load().roles[role].kinds  # type: ignore[attr-defined]
    own = [each for each in parts.every("network") if each.module.startswith("ganvas.")]
    return [each for each in own if issubclass(each.load(), kinds) and takes_images(each)]  # type: ignore[arg-type]


def takes_images(part: Part) -> bool:
    """Whether it can be built for images of some size that come with a label alone."""
    if any(needed for name, needed in part.load().reads().items() if name != "label"):  # type: ignore[attr-defined]
        return False
    node = check_node("network", {"use": part.name, **values.plain(part.tiny)})
    for side in (8, 16, 32):
        with contextlib.suppress(BadValue):
            parts.build("network", node, image_spec((1, side, side), 10))
            return True
    return False


class Drawer:
    """Recipes of tiny networks, one after the other from one seed."""

    def __init__(self, seed: int, unlabelled: Path) -> None:
        self.random = random.Random(seed)
        self.unlabelled = unlabelled  # .npy of images

    def recipe(self) -> dict[str, Any]:
        size = self.random.choice((8, 8, 8, 16))
        return {
            "data": self.data(size),
            "networks": {"generator": self.generator(size), "discriminator": self.critic(size)},
            "task": {
                "use": "adversarial",
                "objective": self.objective(),
                "regularizers": self.regularizers(),
                "augment": self.maybe(0.5, self.part("augment")),
            },
            "optim": {"use": "adam", "lr": 0.0001},
            "ema": self.maybe(0.3, {"decay": 0.9}),
            "train": self.train(),
        }

    def data(self, size: int) -> dict[str, Any]:
        if self.random.random() < 0.15:
            return {"use": "arrays", "path": str(self.unlabelled), "size": size}
        return {"use": "digits", "limit": 24, "size": size}

    def train(self) -> dict[str, Any]:
        settings = {"steps": 2, "batch": self.random.choice((4, 5, 6)), "seed": self.random.randrange(1000)}
        if self.random.random() < 0.2:
            settings["precision"] = "bf16"
        if self.random.random() < 0.1:
            settings["accumulate"] = 2
        return settings

    # ------------------------------------------------------------------ the networks

    def generator(self, size: int) -> dict[str, Any]:
        return self.network("generator", size)

    def critic(self, size: int) -> dict[str, Any]:
        node = self.network("discriminator", size)
        own = parts.find("network", node["use"]).fields().get("conditioning")
        takes_any = own is not None and own.marker is not None
        return {**node, "conditioning": self.head()} if takes_any else node

    def network(self, role: str, size: int) -> dict[str, Any]:
        part = self.random.choice(networks_for(role))
        node: dict[str, Any] = {"use": part.name, **values.plain(part.tiny)}
        fields = part.fields()
        for key in ("conditioning", "norm"):  # words to choose from, where they are not parts themselves
            if key in fields and fields[key].marker is None:
                node[key] = self.maybe(0.8, self.random.choice(one_word(fields[key].annotation)))
        if "attention" in fields:  # places of attention, unless it is a word for which
            words = one_word(fields["attention"].annotation)
            node["attention"] = self.maybe(0.3, self.random.choice(words or (size, size // 2, 4, "block1")))
        for key in ("spectral_norm", "hierarchical", "wide"):
            if key in fields:
                node[key] = self.random.random() < 0.5
        if "z_dim" in fields:
            node["z_dim"] = self.random.choice((4, 8))
        return node

    def head(self) -> dict[str, Any]:
        node = self.part("conditioning")
        if node["use"] in ("level", "san"):
            node["head"] = self.part("conditioning")
            if node["head"]["use"] in ("level", "san"):  # as deep as it goes
                node["head"] = self.random.choice(("plain", "multi-discriminator"))
        return node

    # ------------------------------------------------------------------ the task

    def objective(self) -> dict[str, Any]:
        node = self.part("objective")
        if node["use"] == "top-k":
            node["of"] = self.part("objective")
        return node

    def regularizers(self) -> dict[str, Any]:
        known = [part.name for part in parts.every("regularizer")]
        return {name: self.regularizer(name) for name in self.random.sample(known, self.random.randint(0, 3))}

    def regularizer(self, name: str) -> dict[str, Any]:
        node = self.part("regularizer", name)
        if issubclass(parts.find("regularizer", name).load(), Regularizer):  # others act on weights, or are only read
            node |= {"weight": self.random.choice(WEIGHTS), "every": self.random.choice((1, 1, 2))}
        return node

    # ------------------------------------------------------------------ any part

    def part(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """A part of a shelf, and a word for each of its keys that has words to choose from."""
        part = parts.find(kind, name) if name else self.random.choice(parts.every(kind))
        node: dict[str, Any] = {"use": part.name, **KEYS.get(part.name, {})}
        for key, each in part.fields().items():
            words = one_word(each.annotation) if each.marker is None else []
            if words and key not in node and self.random.random() < 0.5:
                node[key] = self.random.choice(words)
        return node

    def maybe(self, chance: float, value: Any) -> Any:
        return value if self.random.random() < chance else None
