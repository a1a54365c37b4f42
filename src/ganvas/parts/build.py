"""Parts from their validated recipe nodes, nested parts first."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ganvas.errors import BadValue
from ganvas.parts.index import Part, every, find
from ganvas.parts.schema import Entry, Factory, Field, Slot, Slots, fields_of, section_of
from ganvas.parts.values import read_value

if TYPE_CHECKING:
    from ganvas.types import ConditionSpec, DataSpec, Extractor, Modality


def build(kind: str, node: Mapping[str, Any], *given: Any) -> Any:
    """A part from its validated recipe node, nested parts first.

    `given` are the positional arguments of its kind. A function part comes back with its keys bound.
    """
    part = find(kind, node["use"])
    values = _arguments(part.fields(), {key: value for key, value in node.items() if key != "use"})
    thing = part.load()
    if isinstance(thing, type):
        return thing(*given, **values)
    return functools.partial(thing, *given, **values)


def preview(part: Part, node: Mapping[str, Any]) -> Any:
    """What a data set's `preview` promises for these keys, without touching its files.

    A data set that it is made of is handed in as its own preview.
    """
    fields = part.fields()
    keys = {key: value for key, value in node.items() if key != "use"}
    nested = {key: keys.pop(key) for key in [*keys] if fields[key].marker == Slot("dataset")}
    promised = {
        fields[key].parameter: None if inner is None else preview(find("dataset", inner["use"]), inner)
        for key, inner in nested.items()
    }
    return part.load().preview(**_arguments(fields, keys), **promised)  # type: ignore[attr-defined]


def build_set(kind: str, nodes: Mapping[str, Mapping[str, Any]], extra: type, *given: Any) -> dict[str, Entry]:
    """Every node of a set, each an `Entry`; a `BadValue` that a part raises is told its place in the set."""
    built = {}
    for name, node in nodes.items():
        part_node, beside = split(extra, node)
        try:
            built[name] = Entry(name, build(kind, part_node, *given), build_section(extra, beside))
        except BadValue as error:
            error.where = error.where or ".".join(filter(None, (name, error.key)))
            raise
    return built


def modality_of(node: str | Mapping[str, Any]) -> Modality:
    """The modality of a name, or of a recipe node."""
    modality: Modality = build("modality", {"use": node} if isinstance(node, str) else node)
    return modality


def data_spec(
    modality: str | Mapping[str, Any], shape: tuple[int, ...], conditions: Mapping[str, ConditionSpec] | None = None
) -> DataSpec:
    """What data of a modality, by name or recipe node, look like."""
    from ganvas.types import DataSpec  # it loads torch, and parts are listed without

    return DataSpec(tuple(shape), modality_of(modality), dict(conditions or {}))


def image_spec(shape: tuple[int, ...], num_classes: int = 0) -> DataSpec:
    """What images (C, H, W) with so many classes look like."""
    from ganvas.types import label_of

    return data_spec("image", shape, label_of(num_classes))


def extractor_for(extractor: Extractor, modality: Modality) -> Extractor:
    """An extractor made ready for data of a modality.

    Raises
    ------
    BadValue : it takes data of other modalities; the hint names those for these data.
    """
    kind = modality.part_name
    if extractor.modalities and kind not in extractor.modalities:
        known = {part.name: cast("type[Extractor]", part.load()).modalities for part in every("extractor")}
        fitting = [name for name, modalities in known.items() if not modalities or kind in modalities]
        raise BadValue(
            f"extractor {extractor.name!r} takes {' or '.join(extractor.modalities)} data, and these are {kind}",
            key="extractor", hint=f"extractors for them: {', '.join(fitting)}",
        )  # fmt: skip
    return extractor.suited(modality)


def build_section(section: type, node: Mapping[str, Any]) -> Any:
    """A dataclass from its validated recipe section."""
    return section(**_arguments(fields_of(section), node))


def split(extra: type, node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the part's own node, the keys that belong to its owner) of a slot with extra keys."""
    keys = fields_of(extra)
    return {k: v for k, v in node.items() if k not in keys}, {k: v for k, v in node.items() if k in keys}


def _arguments(fields: Mapping[str, Field], node: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    groups: dict[tuple[str, type], dict[str, Any]] = {}
    for key, raw in node.items():
        field = fields[key]
        value = _value(field, raw)
        if field.group:
            groups.setdefault(field.group, {})[field.parameter] = value
        else:
            values[field.parameter] = value
    for (parameter, section), members in groups.items():
        values[parameter] = section(**members)
    return values


def _value(field: Field, raw: Any) -> Any:
    if field.marker is None:
        section = section_of(field.annotation)
        if section and raw is not None:
            return build_section(section, raw)
        return read_value(field.annotation, raw)
    if raw is None:
        return None
    if isinstance(field.marker, Factory):
        return functools.partial(build, field.marker.kind, raw)
    if isinstance(field.marker, Slot):
        return _entry(field.marker, field.key, raw)
    return {name: _entry(field.marker, name, node) for name, node in raw.items()}


def _entry(marker: Slot | Slots, name: str, node: Mapping[str, Any]) -> Any:
    if marker.extra is None:
        return build(marker.kind, node)
    part_node, extra = split(marker.extra, node)
    return Entry(name, build(marker.kind, part_node), build_section(marker.extra, extra))
