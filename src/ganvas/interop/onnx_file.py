"""A generator as an ONNX file, for runtimes without PyTorch: latents and labels in, images in [-1, 1] out."""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ganvas.errors import MissingCapability, MissingExtra
from ganvas.files.files import write_bytes
from ganvas.model import HasLatents, Model
from ganvas.nn.plain import plain

CHECKED = (1, 5)  # batch sizes that the file is compared at; neither is the one that it is made with
TRACED = 7  # a size that nothing else has by chance
AGREES = 1e-3  # largest deviation, in spreads of the images
_EXTRA = 'pip install "ganvas[onnx]" -c constraints.txt'


class _Images(nn.Module):
    """What is exported: the generator with its images cut to [-1, 1], as sampling does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.net(z, label).clamp(-1, 1)  # type: ignore[no-any-return]


def export_onnx(model: Model, file: Path) -> dict[str, Any]:
    """Write the model's generator, after its file has given the same images as the generator itself.

    Inputs are `z` (N, *shape) float32 and, for a conditional generator, `label` (N,) int64; the output is `images`
    (N, C, H, W) float32 in [-1, 1]. N is free.

    Returns
    -------
    What was written: inputs, and `deviation`, the largest one of a pixel, in spreads of the images.

    Raises
    ------
    MissingExtra : onnx, onnxruntime or onnxscript is not installed.
    MissingCapability : the model has no generator, or one that PyTorch cannot export, or whose file computes something
        else.
    CheckpointError : the file cannot be written.
    """
    content, facts = as_onnx(model)
    write_bytes(file, content)
    return {"out": str(file), **facts}


def as_onnx(model: Model) -> tuple[bytes, dict[str, Any]]:
    """The file's content and what `export_onnx` tells of it."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            said = f"exporting to ONNX needs the package {package} ({error})"
            raise MissingExtra(said, where="--onnx", hint=_EXTRA) from None
    model.require(HasLatents)
    images = _Images(plain(cast("nn.Module", model.generator)))
    inputs = _inputs(model, TRACED)
    names = ["z", "label"][: len(inputs)]
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _quiet():
            program = torch.onnx.export(
                _traced(images, inputs), input_names=names, output_names=["images"], dynamo=True, verbose=False
            )
            assert program is not None
            content = _bytes(program)
        deviation = max(_deviation(images, content, names, _inputs(model, n)) for n in CHECKED)
    except Exception as error:  # the exporter and the runtime raise whatever their passes raise
        cause = error.__cause__ or error
        said = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise MissingCapability(
            f"PyTorch cannot export this generator to ONNX ({type(cause).__name__}: {said[:200]})", where="--onnx",
            hint="report it with the recipe's network; an operation of it has to be written differently",
        ) from None  # fmt: skip
    if not deviation <= AGREES:
        raise MissingCapability(
            f"its ONNX file gives other images: {deviation:.1e} spreads off", where="--onnx",
            hint="report it with the recipe's network; nothing was written",
        )  # fmt: skip
    shapes = {name: [None, *tensor.shape[1:]] for name, tensor in zip(names, inputs, strict=True)}
    return content, {"inputs": shapes, "deviation": deviation}


def _inputs(model: Model, n: int) -> tuple[Tensor, ...]:
    label = model.labels(n, seed=n)
    z = model.draw(n, seed=n).values.cpu()
    return (z,) if label is None else (z, label.cpu())


def _traced(images: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """The operations of a pass, for any N. Strictly, Python's `len` of a batch stays free; but not all can be so."""
    shapes = tuple({0: torch.export.Dim("N")} for _ in inputs)
    try:
        return torch.export.export(images, inputs, dynamic_shapes=shapes, strict=True)
    except Exception:  # whatever its passes raise; the second way tells
        return torch.export.export(images, inputs, dynamic_shapes=shapes, strict=False)


def _bytes(program: torch.onnx.ONNXProgram) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        program.save(str(file))
        beside = [path.name for path in file.parent.iterdir() if path != file]
        if beside:  # what the format does for weights beyond 2 GiB
            raise ValueError("its weights are too many for one file")
        return file.read_bytes()


def _deviation(images: nn.Module, content: bytes, names: list[str], inputs: tuple[Tensor, ...]) -> float:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answers = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
    with torch.no_grad():
        ours: Tensor = images(*inputs)
    others = torch.from_numpy(answers[0])
    return (
        float((ours - others).abs().max() / ours.std().clamp_min(1e-12)) if ours.shape == others.shape else float("inf")
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, which are about its own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
