"""The networks of a model file, built and filled; what a `Model` and an extractor made of a trained critic share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganvas import parts
from ganvas.errors import CheckpointError, GanvasError
from ganvas.files.files import model_file, model_metadata, read_weights

if TYPE_CHECKING:
    from ganvas.types import DataSpec, Network


@dataclass(frozen=True)
class Weights:
    """Where a network's weights come from, and which of them stay as they are."""

    from_: str | None = None  # a run folder or model.safetensors
    net: str | None = None  # its role there; None: the same
    freeze: Literal["all"] | tuple[str, ...] | None = None  # or the beginnings of parameter names


_OLD_MODALITIES = {"image": "image", "points": "plane"}  # as version 0.1 called them


@dataclass(frozen=True)
class Trained:
    """What a model file holds: the resolved recipe, what its data look like, and its networks by role."""

    file: Path
    recipe: Mapping[str, Any]
    spec: DataSpec
    nets: Mapping[str, Network]
    class_names: tuple[str, ...]
    step: int


def spec_as_plain(spec: DataSpec) -> dict[str, Any]:
    """What data look like as JSON holds it."""
    return {
        "shape": list(spec.shape),
        "modality": spec.modality.node(),
        "conditions": {
            name: {
                "shape": list(condition.shape), "categories": condition.categories,
                "modality": None if condition.modality is None else condition.modality.node(),
            }
            for name, condition in spec.conditions.items()
        },
    }  # fmt: skip


def spec_from_plain(plain: Mapping[str, Any]) -> DataSpec:
    """What `spec_as_plain` gave, also in the form of version 0.1, whose data had a number of classes alone.

    Raises
    ------
    KeyError, ValueError : it is in neither form.
    """
    from ganvas.types import ConditionSpec, label_of  # it loads torch, and recipes are read without

    shape, beside = tuple(plain["shape"]), "conditions" if "conditions" in plain else "num_classes"
    if unknown := plain.keys() - {"shape", "modality", "sample_rate", beside}:
        raise ValueError(f"{', '.join(sorted(unknown))} of its data is not known")
    if beside == "num_classes":
        return parts.data_spec(_OLD_MODALITIES[plain.get("modality", "image")], shape, label_of(plain["num_classes"]))
    conditions = {
        name: ConditionSpec(
            tuple(condition["shape"]),
            condition["categories"],
            None if condition["modality"] is None else parts.modality_of(condition["modality"]),
        )
        for name, condition in plain["conditions"].items()
    }
    return parts.data_spec(plain["modality"], shape, conditions)


def check_sense(spec: DataSpec, class_names: Sequence[str], step: int) -> None:
    """Refuse what no data set can be, before anything is built for it.

    Raises
    ------
    ValueError : sizes or numbers of classes that are no counts, other names than classes, a step before the first.
    """
    sizes = {"its data": (spec.shape, spec.modality.categories)}
    sizes |= {f"condition {name!r}": (entry.shape, entry.categories) for name, entry in spec.conditions.items()}
    for what, (shape, categories) in sizes.items():
        if not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(f"{what} are of shape {shape}")
        if type(categories) is not int or categories < 0:
            raise ValueError(f"{what} have {categories!r} categories")
    if not all(isinstance(name, str) for name in class_names) or len(class_names) not in (0, spec.num_classes):
        raise ValueError(f"{len(class_names)} names of {spec.num_classes} classes")
    if step < 0:
        raise ValueError(f"step {step}")


def read_trained(path: Path) -> Trained:
    """The content of a run folder's `model.safetensors`, or of that file; no code in it can run.

    Raises
    ------
    CheckpointError : missing, corrupt, or not a model of ours.
    UnknownPart : made with parts that are not on the shelves (give their file with `--parts`).
    """
    file = model_file(path)
    metadata = model_metadata(file)
    try:
        spec = spec_from_plain(metadata["spec"])
        class_names, step = tuple(metadata["class_names"]), int(metadata["step"])
        check_sense(spec, class_names, step)
        nodes = metadata["recipe"]["networks"]
        nets = {role: entry.part for role, entry in parts.build_set("network", nodes, Weights, spec).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"its header is not one of ours ({error})", where=str(file), hint="train again") from None
    except GanvasError as error:
        error.where = f"{file}  {error.where}".rstrip()
        raise
    tensors = read_weights(file)
    for role, net in nets.items():
        weights = {name.removeprefix(f"{role}."): t for name, t in tensors.items() if name.startswith(f"{role}.")}
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"its weights are not those of its recipe: {str(error).splitlines()[-1].strip()}", where=str(file),
                hint="the file was made by another version, or changed",
            ) from None  # fmt: skip
    return Trained(file, metadata["recipe"], spec, nets, class_names, step)
