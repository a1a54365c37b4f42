"""Nodes and sections of a recipe, checked against the schemas of parts and filled with every default."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganvas import parts
from ganvas.errors import BadValue, CheckpointError, RecipeError, RoleMissing, UnknownKey, UnknownPart, nearest
from ganvas.files.files import model_metadata
from ganvas.parts import Factory, Field, Slot, Slots, values
from ganvas.recipe.schema import RENAMED, Schema
from ganvas.recipe.trained import Weights
from ganvas.recipe.yaml12 import KeyPath, Mark

if TYPE_CHECKING:
    from ganvas.types import Role

PROTOCOLS = Path(__file__).parents[1] / "protocols"


def check_node(kind: str, raw: Any) -> dict[str, Any]:
    """One part's node, checked and filled, for parts that are chosen outside a recipe.

    Raises
    ------
    RecipeError : as for a whole recipe.
    """
    checker = Checker({})
    node = checker.node(kind, copy.deepcopy(raw), (kind,))
    if checker.problems:
        raise RecipeError.of(checker.problems)
    return node


def check_section(section: type, raw: Any, marks: Mapping[KeyPath, Mark], owner: str) -> dict[str, Any]:
    """A map of keys, checked against a dataclass and filled.

    Raises
    ------
    RecipeError : as for a whole recipe.
    """
    checker = Checker(marks)
    fields = parts.fields_of(section)
    filled = checker.keys(fields, raw, (), owner, f"its keys are {', '.join(fields)}")
    if checker.problems:
        raise RecipeError.of(checker.problems)
    return filled


def roles_of(task: Mapping[str, Any]) -> dict[str, Role]:
    """The roles of a task's resolved node: its own, and those that its terms bring."""
    part = parts.find("task", task["use"])
    roles: dict[str, Role] = dict(part.load().roles)  # type: ignore[attr-defined]
    for kind, name in sorted(set(nested_parts(part.fields(), task))):
        if kind in HOOKS:
            roles |= parts.find(kind, name).load().roles  # type: ignore[attr-defined]
    return roles


HOOKS = ("objective", "regularizer", "augment")  # kinds whose parts may bring a network


def stands_in(role: Role, network: parts.Part) -> bool:
    """Whether a network is of a kind that this role takes."""
    return issubclass(network.load(), role.kinds)  # type: ignore[arg-type]


def nested_parts(fields: Mapping[str, Field], node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, name) of every part below a resolved node."""
    for key, field in fields.items():
        below = node.get(key)
        if not field.marker or not below:
            continue
        for nested in below.values() if isinstance(field.marker, Slots) else (below,):
            if nested.get("use"):
                yield field.marker.kind, nested["use"]
                yield from nested_parts(parts.find(field.marker.kind, nested["use"]).fields(), nested)


def shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


class Checker:
    """Walks a recipe along the schemas; gathers every problem instead of stopping at the first."""

    def __init__(self, marks: Mapping[KeyPath, Mark]) -> None:
        self.marks = marks
        self.problems: list[RecipeError] = []
        self.lost: set[KeyPath] = set()  # nodes whose one problem is told already

    def where(self, path: KeyPath) -> str:
        for cut in range(len(path), -1, -1):
            if path[:cut] in self.marks:
                return f"{self.marks[path[:cut]]}  {'.'.join(path)}".rstrip()
        return ".".join(path)

    def tell(self, kind: type[RecipeError], problem: str, path: KeyPath, hint: str) -> None:
        self.problems.append(kind(problem, where=self.where(path), hint=hint))

    # ------------------------------------------------------------------ the whole

    def recipe(self, raw: dict[str, Any]) -> dict[str, Any]:
        raw = self.without_old_keys(raw)
        self.borrow_networks(raw)
        filled = self.keys(parts.fields_of(Schema), raw, (), "a recipe", "ganvas show recipe")
        if task := (filled.get("task") or {}).get("use"):
            self.roles(parts.find("task", task), filled)
        if filled.get("optim") and "networks" in filled:
            self.optimizer_of_roles(filled)
        self.protocol(filled)
        return filled

    def without_old_keys(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The recipe without keys of version 0.1, each of which is refused by its new name."""
        for key in raw.keys() & RENAMED.keys():
            self.tell(UnknownKey, f"{key!r} is called {RENAMED[key]!r} now", (key,), f"rename it: {RENAMED[key]}: …")
        return {key: value for key, value in raw.items() if key not in RENAMED}

    def borrow_networks(self, raw: dict[str, Any]) -> None:
        """`from:` without `use:` means the network that is there, as it was built there."""
        networks = raw.get("networks")
        for role, node in networks.items() if isinstance(networks, dict) else ():
            if not (isinstance(node, dict) and isinstance(node.get("from"), str)) or "use" in node:
                continue
            try:
                source = model_metadata(Path(node["from"]))["recipe"]["networks"]
                net_name = str(node.get("net") or role)
                if net_name not in source:
                    raise CheckpointError(
                        f"it has no network {net_name!r}, but {', '.join(sorted(source))}",
                        hint=f"say which: networks.{role}.net=NAME",
                    )
            except CheckpointError as error:
                path = ("networks", role)
                self.tell(BadValue, f"{node['from']}: {error.problem}", (*path, "from"), error.hint)
                self.lost.add(path)
                continue
            borrowed = {key: value for key, value in source[net_name].items() if key not in parts.fields_of(Weights)}
            raw["networks"][role] = {**borrowed, **node}

    def roles(self, task: parts.Part, filled: dict[str, Any]) -> None:
        expected = roles_of(filled["task"])
        present: Mapping[str, Any] = filled.get("networks", {})
        for role, requirement in expected.items() if "networks" in filled else ():
            if role not in present and not requirement.optional:
                have = ", ".join(present) or "none"
                self.tell(
                    RoleMissing, f"task {task.name!r} needs a network {role!r}; the recipe has {have}",
                    ("networks",), f"set networks.{role}=NAME (ganvas list networks {role})",
                )  # fmt: skip
        for role, node in present.items():
            if role not in expected:
                self.tell(
                    UnknownKey, f"task {task.name!r} has no role {role!r}.{nearest(role, expected)}",
                    ("networks", role), f"its roles are {', '.join(expected)}",
                )  # fmt: skip
            elif node.get("use") and not stands_in(expected[role], parts.find("network", node["use"])):
                fitting = [part.name for part in parts.every("network") if stands_in(expected[role], part)]
                more = f" and {len(fitting) - 12} more" if len(fitting) > 12 else ""
                self.tell(
                    BadValue, f"network {node['use']!r} is no {expected[role].words}", ("networks", role),
                    f"set networks.{role}=NAME (ganvas list networks); there are {', '.join(fitting[:12])}{more}",
                )  # fmt: skip
        if "sampler" in filled and filled["sampler"] is None:
            filled["sampler"] = self.node("sampler", task.load().sampler, ("sampler",))  # type: ignore[attr-defined]

    def optimizer_of_roles(self, filled: dict[str, Any]) -> None:
        """`optim.roles` holds some of the optimizer's keys, for one role alone."""
        optimizer = parts.find("optimizer", filled["optim"]["use"])
        fields = {key: dataclasses.replace(field, default=None) for key, field in optimizer.fields().items()}
        roles = filled["optim"].get("roles")
        for role, keys in roles.items() if isinstance(roles, dict) else ():
            path = ("optim", "roles", role)
            if role not in filled["networks"]:
                known = ", ".join(filled["networks"])
                self.tell(
                    UnknownKey, f"the recipe has no network {role!r}.{nearest(role, filled['networks'])}",
                    path, f"its networks are {known}; drop it: optim.roles.{role}=~",
                )  # fmt: skip
            elif isinstance(keys, dict):
                self.keys(
                    fields, keys, path, f"optimizer {optimizer.name!r}", f"ganvas show optimizer {optimizer.name}"
                )

    def protocol(self, filled: dict[str, Any]) -> None:
        name = (filled.get("eval") or {}).get("protocol")
        if not isinstance(name, str):
            return
        if name.endswith((".yaml", ".yml")):
            if not Path(name).is_file():
                self.tell(BadValue, f"there is no file {name}", ("eval", "protocol"), "check the path")
        elif not (PROTOCOLS / f"{name}.yaml").is_file():
            known = sorted(file.stem for file in PROTOCOLS.glob("*.yaml"))
            self.tell(
                BadValue, f"no protocol is called {name!r}.{nearest(name, known)}", ("eval", "protocol"),
                f"there are {', '.join(known)}",
            )  # fmt: skip

    # ------------------------------------------------------------------ the pieces

    def keys(self, fields: Mapping[str, Field], raw: Any, path: KeyPath, owner: str, hint: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.tell(BadValue, f"{owner} is a map of keys, not {raw!r}", path, hint)
            return {}
        for key in raw:
            if key not in fields:
                self.tell(UnknownKey, f"{owner} has no parameter {key!r}.{nearest(key, fields)}", (*path, key), hint)
        filled = {}
        for key, field in fields.items():
            key_path = (*path, key)
            if raw.get(key) is not None:
                filled[key] = self.value(field, raw[key], key_path, hint)
            elif field.required:
                self.tell(BadValue, f"{owner} needs {key!r}", key_path, _missing_hint(field, key_path, hint))
            else:
                filled[key] = self.default(field, key_path)
        return filled

    def default(self, field: Field, path: KeyPath) -> Any:
        if field.marker is not None and field.default is not None:
            return self.value(field, values.plain(field.default), path, "")
        return values.plain(field.default)

    def value(self, field: Field, raw: Any, path: KeyPath, hint: str) -> Any:
        marker = field.marker
        if isinstance(marker, (Slot, Factory)):
            if isinstance(raw, dict) and "use" not in raw and isinstance(field.default, str):
                raw = {"use": field.default, **raw}
            return self.node(marker.kind, raw, path, marker.extra)
        if isinstance(marker, Slots):
            return self.set(marker, raw, path)
        section = parts.section_of(field.annotation)
        if section is not None:
            return self.keys(parts.fields_of(section), raw, path, repr(path[-1]), hint)
        if isinstance(raw, dict):
            raw = {key: value for key, value in raw.items() if value is not None}
        try:
            values.read_value(field.annotation, raw)
        except (ValueError, TypeError):
            clue = nearest(raw, values.choices(field.annotation)) if isinstance(raw, str) else ""
            problem = f"{path[-1]!r} is {shortened(repr(raw))}, but must be {values.words(field.annotation)}.{clue}"
            self.tell(BadValue, problem, path, hint)
        return raw

    def node(self, kind: str, raw: Any, path: KeyPath, extra: type | None = None) -> dict[str, Any]:
        if isinstance(raw, str):
            raw = {"use": raw}
        if not (isinstance(raw, dict) and isinstance(raw.get("use"), str)):
            hint = f"write {path[-1]}: {{use: NAME}}; ganvas list {parts.SHELVES[kind]}"
            self.tell(BadValue, f"{path[-1]!r} names no {kind}: {shortened(repr(raw))}", path, hint)
            return {}
        part = self.exists(kind, raw["use"], (*path, "use") if (*path, "use") in self.marks else path)
        if part is None:
            return {}
        fields = {**part.fields(), **(parts.fields_of(extra) if extra else {})}
        keys = {key: value for key, value in raw.items() if key != "use"}
        return {
            "use": part.name,
            **self.keys(fields, keys, path, f"{kind} {part.name!r}", f"ganvas show {kind} {part.name}"),
        }

    def exists(self, kind: str, name: str, path: KeyPath) -> parts.Part | None:
        try:
            return parts.find(kind, name)
        except UnknownPart as error:
            self.tell(UnknownPart, error.problem, path, error.hint)
            return None

    def set(self, marker: Slots, raw: Any, path: KeyPath) -> dict[str, Any]:
        if not isinstance(raw, dict):
            hint = f"write {path[-1]}: {{NAME: {{…}}}}; ganvas list {parts.SHELVES[marker.kind]}"
            self.tell(BadValue, f"{path[-1]!r} is a set of parts of kind {marker.kind}, not {raw!r}", path, hint)
            return {}
        filled: dict[str, Any] = {}
        for key, node in raw.items():
            key_path = (*path, key)
            if node is None:  # dropped, though it is not there; a name that is nowhere was meant to be another
                if marker.keys == "name":
                    self.exists(marker.kind, key, key_path)
            elif key_path in self.lost:
                filled[key] = {}
            else:
                if marker.keys == "name" and isinstance(node, dict):
                    node = {"use": key, **node}
                filled[key] = self.node(marker.kind, node, key_path, marker.extra)
        return filled


def _missing_hint(field: Field, path: KeyPath, otherwise: str) -> str:
    kind = field.marker.kind if field.marker else None
    return (
        f"set {'.'.join(path)} (ganvas list {parts.SHELVES[kind]})" if kind else f"set {'.'.join(path)}=…; {otherwise}"
    )
