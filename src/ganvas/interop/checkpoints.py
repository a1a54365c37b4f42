"""Published checkpoints -> models of ours: what is in the file, which networks these are, and one model.safetensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ganvas.errors import CheckpointError, GanvasError, UsageError, nearest
from ganvas.files.files import write_tensors
from ganvas.files.published import sha256_of
from ganvas.interop.families import FAMILIES, Entry, Official, Role, looks_like, with_options
from ganvas.interop.inert import HINT, Array, Budget, Record, Refused, TensorView
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, import_network
from ganvas.interop.torch_files import read_checkpoint, read_tensors
from ganvas.model import Model, model_header
from ganvas.recipe.check import check_node
from ganvas.types import DataSpec, Network

DEEPEST = 64  # modules within modules
MOST_TENSORS = 100_000  # and modules, of a network
MOST_ARGUMENTS = 10_000
ROOM = 64 << 20  # bytes that a network may take beyond four times its checkpoint: constants, noise, attention masks
AVERAGED = ("G_ema", "g_ema", "ema", "avg_gen_state_dict", "netG_ema", "generator_ema")
ROLES: tuple[Role, ...] = ("generator", "discriminator")
WRAPPINGS = ("state_dict", "model")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v")


@dataclass(frozen=True)
class Found:
    """A checkpoint as a model of ours.

    Attributes
    ----------
    imported : our networks by role, with official weights.
    official : the repository, class and arguments of each.
    notes : sentences about what was left out.
    """

    file: Path
    family: str
    imported: Mapping[Role, Imported]
    official: Mapping[Role, Official]
    entries: Mapping[Role, str]  # the key of each in the file
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> DataSpec:
        """What the generator makes, or what the critic scores where there is none."""
        return next(self.imported[role].spec for role in ROLES if role in self.imported)

    @property
    def parameters(self) -> dict[Role, int]:
        return {role: sum(p.numel() for p in network.net.parameters()) for role, network in self.imported.items()}

    def recipe(self) -> dict[str, Any]:
        """What stands in the header of a model file: networks, sampler, and where they are from."""
        networks = {role: check_node("network", dict(network.node)) for role, network in self.imported.items()}
        return {
            "summary": f"{self.family} checkpoint {self.file.name}",
            "data": None, "networks": networks, "sampler": check_node("sampler", "plain"), "eval": None,
            "origin": {
                "from": self.family, "file": self.file.name, "sha256": sha256_of(self.file),
                **{role: {"repo": official.repo, "cls": official.cls, "entry": self.entries[role]}
                   for role, official in self.official.items()},
            },
        }  # fmt: skip

    def model(self) -> Model:
        """The model itself, on the CPU."""
        nets: dict[str, Network] = {role: cast("Network", network.net) for role, network in self.imported.items()}
        return Model(self.recipe(), self.spec, nets, class_names=self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(str(i) for i in range(self.spec.num_classes))

    def save(self, file: Path) -> None:
        """Write the one file that `Model.load` reads.

        Raises
        ------
        CheckpointError : it cannot be written.
        """
        tensors = {
            f"{role}.{name}": tensor.clone()
            for role, network in self.imported.items()
            for name, tensor in network.net.state_dict().items()
        }
        write_tensors(file, tensors, model_header(self.recipe(), self.spec, self.class_names, 0))


def import_checkpoint(file: Path, family: str, options: Mapping[str, Any] | None = None) -> Found:
    """The networks of a published checkpoint as ours; nothing in the file is run.

    Parameters
    ----------
    family : the code base that wrote it, a key of `FAMILIES`.
    options : arguments of its constructor that the file does not tell.

    Raises
    ------
    CheckpointError : no such file, damaged, refused, of another code base, or its tensors do not fit.
    NoImporter : a network, or an option that it was made with, that is not understood yet.
    UsageError : no such family or option.
    """
    if family not in FAMILIES:
        raise UsageError(
            f"no code base is called {family!r}.{nearest(family, FAMILIES)}", where="--from",
            hint=f"there are {', '.join(FAMILIES)}",
        )  # fmt: skip
    options = dict(options or {})
    for key in options:
        if key not in FAMILIES[family].options:
            known = FAMILIES[family].options
            raise UsageError(
                f"{family} has no option {key!r}.{nearest(key, known)}", where="--option",
                hint=f"its options are {', '.join(known)}" if known else "its files tell everything",
            )  # fmt: skip
    content = read_checkpoint(file, also_inert=FAMILIES[family].inert)
    try:
        return _import(file, family, options, entries_of(content))
    except (Refused, RecursionError) as error:
        raise CheckpointError(f"it is refused: {error}", where=str(file), hint=HINT) from None
    except GanvasError as error:
        error.where = f"{file}  {error.where}".rstrip() if str(file) not in error.where else error.where
        error.hint = error.hint or HINT
        raise


def _import(file: Path, family: str, options: Mapping[str, Any], entries: list[Entry]) -> Found:
    chosen: dict[Role, tuple[Entry, Official]] = {}
    for entry in entries:  # averaged ones come first
        official = FAMILIES[family].recognise(entry)
        if official is not None and official.role not in chosen:
            chosen[official.role] = entry, with_options(family, official, options)
    if not chosen:
        _refuse(family, entries)
    imported: dict[Role, Imported] = {}
    notes = []
    for role in ROLES:
        if role not in chosen:
            continue
        try:
            network = _network(*chosen[role])
            spec = imported["generator"].spec if "generator" in imported else network.spec
            if network.spec != spec:
                raise NoImporter(f"it scores {network.spec.shape}, {network.spec.num_classes} classes")
            imported[role] = network
        except NoImporter as error:
            if "generator" not in imported:
                raise
            notes.append(f"the critic is left out: {error.problem}")
    return Found(
        file, family, imported, {role: chosen[role][1] for role in imported},
        {role: chosen[role][0].name for role in imported}, tuple(notes),
    )  # fmt: skip


def _refuse(family: str, entries: list[Entry]) -> None:
    others = looks_like(entries)
    if others:
        raise CheckpointError(
            f"it is no checkpoint of {family}; it looks like one of {' or '.join(others)}", hint=f"--from {others[0]}"
        )
    if entries:
        held = ", ".join(repr(entry.name) for entry in entries[:6] if entry.name) or "tensors"
        some = ", ".join(list(entries[0].table)[:3])
        raise CheckpointError(f"no network of {family} is in it; it holds {held} with {some}, …", hint=HINT)
    raise CheckpointError("it holds no table of named tensors", hint=HINT)


def _network(entry: Entry, official: Official) -> Imported:
    state = read_tensors(entry.table)
    case = OfficialCase(official.cls, official.repo, official.kwargs, state, model=official.model)
    try:
        with _within(state):
            return import_network(case)
    except (KeyError, IndexError, ValueError, TypeError, StopIteration) as error:
        raise CheckpointError(
            f"tensors that {official.cls} has are missing or of another shape ({type(error).__name__}: {error})",
            where=f"{official.repo} {official.cls}",
        ) from None


class _Allowance(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where more memory is asked for anew than a network of this checkpoint can need."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], list | tuple) and all(isinstance(size, int) for size in args[0]):
            self.spend(4 * prod(args[0]))  # a new tensor of this shape: asked before it is made
            return func(*args, **(kwargs or {}))
        answer = func(*args, **(kwargs or {}))
        if isinstance(answer, Tensor) and not any(isinstance(argument, Tensor) for argument in args):
            self.spend(answer.numel() * answer.element_size())
        return answer

    def spend(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise CheckpointError("its arguments describe a far larger network than its tensors are")


@contextlib.contextmanager
def _within(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Networks that are built here are no larger than their weights: arguments are not believed, either."""
    with _Allowance(ROOM + 4 * sum(tensor.numel() * tensor.element_size() for tensor in state.values())):
        yield


# ---------------------------------------------------------------------------------------------------- entries


def entries_of(content: Any) -> list[Entry]:
    """The networks in what a file holds, averaged ones first.

    Raises
    ------
    Refused : modules that lie within themselves, or without end.
    """
    named: dict[str, Any] = {"": content}
    if isinstance(content, dict):
        inner = {str(key): part for key, part in content.items() if _is_table(part) or isinstance(part, Record)}
        wrapped = [key for key in WRAPPINGS if key in inner]
        if wrapped:
            named = {"": inner[wrapped[0]]}
        elif inner:  # single tensors beside them belong to no network
            named = {str(key): part for key, part in content.items()}
    arguments = named.pop("init_kwargs", None)
    entries = []
    for name, value in named.items():
        given = arguments.get(name) if isinstance(arguments, dict) else None
        if isinstance(value, Record):
            kwargs = _plain(value.state.get("_init_kwargs"), Budget(MOST_ARGUMENTS))
            table = dict(_tensors(value, "", 0, Budget(MOST_TENSORS)))
            entries.append(Entry(name, _without_module(table), value.cls, kwargs, value, named))
        elif _is_table(value):
            table = {key: tensor for key, tensor in value.items() if isinstance(tensor, TensorView)}
            kwargs = _plain(given, Budget(MOST_ARGUMENTS))
            entries.append(Entry(name, _without_module(table), kwargs=kwargs, around=named))
        elif isinstance(value, list) and value and all(isinstance(tensor, TensorView) for tensor in value):
            averaged = _by_order(value, named.get(name.removesuffix("_ema")))
            entries += [Entry(name, averaged, around=named)] if averaged else []
    return sorted((entry for entry in entries if entry.table), key=lambda entry: entry.name not in AVERAGED)


def _is_table(value: Any) -> bool:
    """Whether something is a table of tensors; numbers of other kinds may stand between them."""
    return isinstance(value, dict) and any(
        isinstance(key, str) and isinstance(item, TensorView) and not key.isdigit() for key, item in value.items()
    )


def _by_order(values: list[TensorView], of: Any) -> dict[str, TensorView] | None:
    """Averaged parameters without names (FastGAN), with those of the network that they belong to, and its buffers."""
    if not _is_table(of):
        return None
    table = _without_module({key: tensor for key, tensor in of.items() if isinstance(tensor, TensorView)})
    learnt = [key for key in table if key.rpartition(".")[2] not in BUFFERS]
    if [table[key].shape for key in learnt] != [tensor.shape for tensor in values]:
        return None
    return {**table, **dict(zip(learnt, values, strict=True))}


def _without_module(table: dict[str, TensorView]) -> dict[str, TensorView]:
    """Names without what DataParallel puts before them."""
    if table and all(name.startswith("module.") for name in table):
        return {name.removeprefix("module."): tensor for name, tensor in table.items()}
    return table


def _tensors(record: Record, prefix: str, depth: int, budget: Budget) -> Iterator[tuple[str, TensorView]]:
    """Parameters and buffers of a pickled module and of those in it, as its state dict names them."""
    if depth > DEEPEST:
        raise Refused("its modules lie within each other without end")
    fleeting = record.state.get("_non_persistent_buffers_set") or ()
    for group in ("_parameters", "_buffers", "_modules"):
        table = record.state.get(group)
        for name, item in table.items() if isinstance(table, dict) else ():
            budget.spend(1)
            if isinstance(item, Record):
                yield from _tensors(item, f"{prefix}{name}.", depth + 1, budget)
            elif isinstance(item, TensorView) and name not in fleeting:
                yield f"{prefix}{name}", item


def _plain(value: Any, budget: Budget) -> Any:
    """Arguments as plain numbers, texts and containers; whatever else is left out."""
    budget.spend(1)
    if isinstance(value, dict):
        plain_items = {str(key): item for key, item in value.items() if not isinstance(item, Record | TensorView)}
        return {key: _plain(item, budget) for key, item in plain_items.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, budget) for item in value]
    if isinstance(value, Array):
        return value.value.tolist() if value.value is not None and value.value.size <= MOST_ARGUMENTS else None
    return value if isinstance(value, int | float | str | bool) else None
