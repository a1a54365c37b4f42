"""Official networks -> ours: which code base's class is understood, and how its weights are carried over.

An importer is one function in any module of this package; nothing else has to be edited::

    @importer("models.resnet.Generator", repo="POSTECH-CVLab/PyTorch-StudioGAN")
    def resnet_generator(case: OfficialCase) -> Imported: ...

It reads the official constructor's arguments and the shapes of the tensors, names one of our network parts with
its keys, and maps names of official modules to ours. `carry_over` does the rest, strictly: every official tensor is
used and every one of ours is set.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from ganvas import interop, parts
from ganvas.errors import CheckpointError, UsageError
from ganvas.types import DataSpec


class NoImporter(UsageError):
    """A class of another code base, or one of its options, that no importer understands yet."""


@dataclass(frozen=True)
class OfficialCase:
    """An official network: the arguments it was made with, its weights, and for a golden case inputs and outputs."""

    cls: str  # as imported in its own repository: models.resnet.Generator
    repo: str  # owner/name
    kwargs: Mapping[str, Any]  # of the constructor
    state: Mapping[str, Tensor]  # official key -> tensor
    model: Mapping[str, Any] = field(default_factory=dict)  # settings that the constructor reads from elsewhere
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict, repr=False)  # everything else that is known

    @classmethod
    def read(cls, path: Path) -> OfficialCase:
        """A golden case from `<stem>.safetensors` and the `<stem>.json` beside it.

        Raises
        ------
        CheckpointError : one of the two is missing or cannot be read.
        """
        try:
            sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            tensors = load_file(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read the official case: {error}", where=str(path)) from None

        def group(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        return cls(
            cls=sidecar.get("cls", ""),
            repo=sidecar.get("repo", ""),
            kwargs=sidecar.get("kwargs") or {},
            state=group("state."),
            model=sidecar.get("model") or {},
            inputs=group("in."),
            outputs=group("out."),
            sidecar=sidecar,
        )


@dataclass(frozen=True)
class Imported:
    """Our network with official weights, in eval mode, and how to compare the two.

    `run` returns outputs under the names that the official case uses for them.
    """

    net: nn.Module
    spec: DataSpec
    node: Mapping[str, Any]  # the network's entry in a recipe
    module_name: Callable[[str], str]  # official module name -> ours
    call: Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]] = field(repr=False)

    def run(self, inputs: Mapping[str, Tensor], taps: Sequence[str] = ()) -> dict[str, Tensor]:
        """Outputs for these inputs, and those of the official sub-modules named in `taps` under `tap.<name>`.

        A tap `name#2` is the output of that module's second call.

        Raises
        ------
        NoImporter : a tapped module has no counterpart.
        """
        modules = dict(self.net.named_modules())
        seen: dict[str, list[Tensor]] = {}
        handles = []
        for name in {tap.partition("#")[0] for tap in taps}:
            ours = modules.get(self.module_name(name))
            if ours is None:
                raise NoImporter(f"official module {name!r} has no counterpart in {self.node['use']!r}")
            calls = seen.setdefault(name, [])

            def note(_module: nn.Module, _inputs: Any, output: Any, calls: list[Tensor] = calls) -> None:
                calls.append((output[0] if isinstance(output, tuple) else output).detach().clone())

            handles.append(ours.register_forward_hook(note))
        try:
            outputs = self.call(self.net, inputs)
        finally:
            for handle in handles:
                handle.remove()
        for tap in taps:
            name, _, number = tap.partition("#")
            outputs[f"tap.{tap}"] = seen[name][int(number or 1) - 1]
        return outputs


Importer = Callable[[OfficialCase], Imported]

_IMPORTERS: dict[tuple[str, str], Importer] = {}


def importer(*classes: str, repo: str) -> Callable[[Importer], Importer]:
    """Register a function as the importer of these classes of one repository (owner/name)."""

    def register(function: Importer) -> Importer:
        for cls in classes:
            if (repo, cls) in _IMPORTERS:
                raise RuntimeError(f"{repo} {cls} has two importers")
            _IMPORTERS[repo, cls] = function
        return function

    return register


def import_network(case: OfficialCase) -> Imported:
    """Our network that computes what the official one does, with its weights.

    Raises
    ------
    NoImporter : the class, or an option that it was made with, is not understood yet.
    CheckpointError : the weights do not fit the arguments.
    """
    _discover()
    function = _IMPORTERS.get((case.repo, case.cls))
    if function is None:
        raise NoImporter(
            f"no importer yet for {case.cls or 'a case without a class'} of {case.repo or 'no repository'}"
        )
    return function(case)


@functools.cache
def _discover() -> None:
    for module in pkgutil.iter_modules(interop.__path__, f"{interop.__name__}."):
        importlib.import_module(module.name)


def carry_over(
    case: OfficialCase,
    spec: DataSpec,
    node: Mapping[str, Any],
    *,
    rename: Callable[[str], str],
    call: Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]],
) -> Imported:
    """Build our network from its recipe node and set every one of its tensors from the official ones.

    Parameters
    ----------
    spec : the data that the official network was made for.
    node : `{"use": <network part>, ...}`.
    rename : official name of a tensor or module -> ours. Keys of torch's hook-based spectral norm are translated
        already. Counters of batches, which official files may lack, are the only ones that may be missing.
    call : runs our network on a case's inputs.

    Raises
    ------
    CheckpointError : a tensor is left over, missing or of another shape.
    """
    net: nn.Module = parts.build("network", node, spec)
    fill(net, case, rename)
    return Imported(net.eval(), spec, node, rename, call)


def fill(net: nn.Module, case: OfficialCase, rename: Callable[[str], str]) -> None:
    """Set every tensor of our network from the official ones, as `carry_over` does.

    Raises
    ------
    CheckpointError : a tensor is left over, missing or of another shape.
    """
    ours = net.state_dict()
    given = {rename(_parametrized(key)): value for key, value in case.state.items()}
    optional = {key for key in ours if key.endswith(".num_batches_tracked")}
    problems = [f"{key} is not ours" for key in sorted(given.keys() - ours.keys())]
    problems += [f"{key} is missing" for key in sorted(ours.keys() - given.keys() - optional)]
    problems += [
        f"{key} is {tuple(given[key].shape)}, ours {tuple(ours[key].shape)}"
        for key in sorted(given.keys() & ours.keys())
        if given[key].shape != ours[key].shape
    ]
    if len(given) != len(case.state):
        problems.append("two official tensors have one name here")
    if problems:
        raise CheckpointError(f"official weights do not fit: {'; '.join(problems)}", where=f"{case.repo} {case.cls}")
    net.load_state_dict({**ours, **given})


# torch.nn.utils.spectral_norm's names of a tensor -> those of its successor, torch.nn.utils.parametrizations
_SPECTRAL = {"_orig": "original", "_u": "0._u", "_v": "0._v"}


def _parametrized(key: str) -> str:
    owner, _, tensor = key.rpartition(".")
    for suffix, name in _SPECTRAL.items():
        if tensor == f"weight{suffix}":
            return f"{owner}.parametrizations.weight.{name}"
    return key
