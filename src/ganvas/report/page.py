"""The page: its sections from top to bottom, each left out where the run has nothing for it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ganvas.report.charts import Point, line_chart, numbers
from ganvas.report.embedding import embed
from ganvas.report.figures import figure
from ganvas.report.markup import Html, join, table, tag
from ganvas.report.players import players
from ganvas.report.record import Record, Row, how_made

_STYLE = Path(__file__).with_name("style.css")
_MOST_CLASSES = 20  # columns of a sample sheet
_LONG_NAME = 4  # letters of a class name that fit over a column on a telephone
_NARROW = 760  # pixels: beside a sheet up to this wide the scores have room
_SHEET = {"width": 1600, "most_bytes": 1_200_000}
_THUMBNAIL = {"width": 360, "most_bytes": 60_000}
_MOST_THUMBNAILS = 12
_SPOKEN = {"frechet": "Fréchet"}  # words of score names that plain ASCII spells wrong


def page(record: Record) -> str:
    """The whole HTML page of a run."""
    body = tag(
        "main",
        _head(record),
        _alarms(record),
        _hero(record),
        _timeline(record),
        *_inspection(record),
        _score_charts(record),
        _loss_charts(record),
        _score_tables(record),
        _commands(record),
        _recipe(record),
        _provenance(record),
        tag("footer", "Written by Ganvas. Everything shown is in this one file."),
    )
    return _document(f"{record.name} · Ganvas report", body)


def simple_page(title: str, summary: str, pieces: Sequence[Html]) -> str:
    """A page of the same looks with a title, a sentence and whatever follows."""
    header = tag(
        "header",
        tag("p", "Ganvas", class_="kicker"),
        tag("h1", title),
        tag("p", summary, class_="summary") if summary else None,
    )
    footer = tag("footer", "Written by Ganvas. Everything shown is in this one file.")
    return _document(f"{title} · Ganvas", tag("main", header, *pieces, footer))


def _document(title: str, body: Html) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _section(title: str, *children: str | None, id_: str) -> Html:
    return tag("section", tag("h2", title, id=id_), *children, aria_labelledby=id_)


# --------------------------------------------------------------------------------------------------- top


def _head(record: Record) -> Html:
    summary, system = record.resolved.get("summary"), record.resolved.get("system")
    state = f"{record.step:,} of {record.steps:,} steps" if record.steps else f"{record.step:,} steps"
    status = "diverged" if record.diverged else "finished" if record.finished else "not finished"
    chips = [
        tag("li", status, class_="done" if record.finished else "open"),
        tag("li", state),
        tag("li", "system ", tag("b", str(system))) if system else None,
        tag("li", f"data {record.setting('data', 'use')}") if record.setting("data", "use") else None,
        tag("li", f"seed {record.setting('train', 'seed')}") if record.resolved.get("train") else None,
    ]
    text = str(summary) if summary else None
    return tag(
        "header",
        tag("p", "Ganvas run report", class_="kicker"),
        tag("h1", record.name),
        tag("p", text[:1].upper() + text[1:], class_="summary") if text else None,
        tag("ul", *chips, class_="chips"),
        tag("p", _ending(record), class_="summary") if record.diverged else None,
    )


def _ending(record: Record) -> str:
    """Why training ended early, with the last losses that were numbers."""
    last = record.log[-1]
    losses = "  ".join(
        f"{key} {value:.4g}" for key, value in last.items() if key != "step" and _finite(value) is not None
    )
    return f"Training ended in step {last['step']:,}: {record.diverged}. {f'Last means: {losses}.' if losses else ''}"


def _hero(record: Record) -> Html | None:
    sheet, tiles = _sheet(record), _tiles(record)
    if sheet is None and tiles is None:
        return tag("p", "There are neither samples nor scores yet.", class_="note")
    side_by_side = sheet is not None and tiles is not None and "wide" not in sheet[:40]
    return tag("div", sheet, tiles, class_="hero beside" if side_by_side else "hero")


def _sheet(record: Record) -> Html | None:
    """The last sample sheet, class names over its columns."""
    if not record.samples:
        return None
    step, file = record.samples[-1]
    picture = embed(file, **_SHEET)
    if picture is None:
        return None
    names = record.class_names[:_MOST_CLASSES] if record.columns_are_classes else ()
    seed = record.setting("train", "seed")
    caption = f"Samples at step {step:,}, latents fixed" + (f" by seed {seed}" if seed is not None else "")
    alt = f"sheet of generated samples at step {step}"
    heads = None
    if names:
        alt += f"; its columns are the classes {', '.join(names)}"
        caption += "; each column is one class"
        if len(record.class_names) > len(names):
            caption += f" (the first {len(names)} of {len(record.class_names)})"
        long = max(map(len, names)) > _LONG_NAME
        heads = tag(
            "div",
            *(tag("span", name) for name in names),
            class_="names long" if long else "names",
            style=f"grid-template-columns:repeat({len(names)},minmax(0,1fr))",
            aria_hidden="true",  # the alternative text says them
        )
    image = tag("img", src=picture.uri, width=picture.width, height=picture.height, alt=alt)
    return tag(
        "figure",
        tag("div", heads, image, class_="fit", style=f"max-width:{picture.width}px"),
        tag("figcaption", caption),
        class_="sheet wide" if picture.width > _NARROW else "sheet",
    )


def _tiles(record: Record) -> Html | None:
    rows = record.headline
    if not rows:
        return None
    return tag(
        "div",
        tag("ul", *(_tile(row) for row in rows), class_="tiles"),
        tag("p", f"Scores at step {rows[0].get('step', 0):,} by protocol {rows[0].get('protocol')}; ",
            tag("a", "how they were made", href="#scores"), class_="note"),
        class_="scores",
    )  # fmt: skip


def _tile(row: Row) -> Html:
    value, interval = _value(row)
    return tag(
        "li",
        tag("span", spoken(row["metric"]), class_="what"),
        tag("b", value),
        tag("span", interval, class_="interval") if row.get("low") is not None else None,
        tag("span", _better(row), class_="better"),
    )


def spoken(name: str) -> str:
    """`frechet_distance` as a person writes it."""
    words = " ".join(_SPOKEN.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]


def _value(row: Row) -> tuple[str, str]:
    """(value, interval) in words."""
    value, low, high = numbers(row["value"], row.get("low"), row.get("high"))
    return value, "–" if _finite(row.get("low")) is None else f"{low} … {high}"


def _better(row: Row) -> str:
    return "↓ lower is better" if row.get("lower_is_better") else "↑ higher is better"


def _alarms(record: Record) -> Html | None:
    """What metrics say is wrong with the images, before anything that looks well."""
    alarms = dict.fromkeys(str(row["alarm"]) for row in record.last_scores if row.get("alarm"))
    return tag("ul", *(tag("li", text) for text in alarms), class_="alarms", role="alert") if alarms else None


# --------------------------------------------------------------------------------------------------- inspection


def _inspection(record: Record) -> Iterator[Html]:
    """The sections that `ganvas inspect` left."""
    for i, panel in enumerate(record.panels):
        sheets = []
        for caption, file, played in panel.sheets:
            picture = embed(file, **_SHEET)
            if picture is not None:
                image = tag("img", src=picture.uri, width=picture.width, height=picture.height, alt=caption)
                sheets.append(tag("figure", tag("figcaption", caption), image, players(played)))
        yield _section(
            panel.title,
            tag(
                "div",
                tag("p", panel.text, class_="note"),
                tag("div", *sheets, class_="sheets") if sheets else None,
                tag("div", *map(figure, panel.charts), class_="charts") if panel.charts else None,
                class_="panels",
            ),
            id_=f"panel-{i}",
        )
    if record.panels:
        facts = record.panel_facts
        yield tag(
            "p",
            f"Looked at by ganvas inspect at step {facts.get('step', 0):,}: {facts.get('samples')} samples, "
            f"{facts.get('reference')} data of the reference of protocol {facts.get('protocol')} and "
            f"{facts.get('training')} training data, features of {facts.get('extractor')}.",
            class_="note",
        )


# --------------------------------------------------------------------------------------------------- over time


def _timeline(record: Record) -> Html | None:
    if len(record.samples) < 2:
        return None
    figures = []
    for step, file in evenly(record.samples, _MOST_THUMBNAILS):
        picture = embed(file, **_THUMBNAIL)
        if picture is not None:
            image = tag(
                "img", src=picture.uri, width=picture.width, height=picture.height,
                alt=f"the same sample sheet at step {step}",
            )  # fmt: skip
            figures.append(tag("figure", image, tag("figcaption", f"step {step:,}")))
    return _section("Samples over time", tag("div", *figures, class_="thumbnails"), id_="time")


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items at even distances, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _score_charts(record: Record) -> Html | None:
    ways = {how_made(row) for row in record.headline}
    series: dict[str, dict[int, Point]] = {}
    notes: dict[str, str] = {}
    for row in record.scores:
        if how_made(row) in ways and _finite(row["value"]):
            step = int(row.get("step", 0))
            point = Point(step, row["value"], _finite(row.get("low")), _finite(row.get("high")))
            series.setdefault(row["metric"], {})[step] = point
            notes[row["metric"]] = _better(row)
    charts = [
        line_chart(spoken(name), [points[step] for step in sorted(points)], note=notes[name])
        for name, points in series.items()
        if len(points) > 1
    ]
    return _section("Scores over steps", tag("div", *charts, class_="charts"), id_="course") if charts else None


def _loss_charts(record: Record) -> Html | None:
    series: dict[str, list[Point]] = {}
    for row in record.log:
        for name, value in row.items():
            if name not in ("step", "images") and _finite(value) is not None:
                series.setdefault(name, []).append(Point(int(row["step"]), float(value)))
    roles = list(dict.fromkeys(name.split(".")[0] for name in series if not name.startswith("lr.")))
    charts = []
    for name in sorted(series, key=lambda name: name.startswith("lr.")):  # rates last, losses as they were logged
        role, _, term = name.partition(".")
        values = {point.value for point in series[name]}
        if role == "lr":
            if len(values) > 1:
                charts.append(line_chart(f"Learning rate, {term}", series[name], colour=3, noisy=False))
        else:
            charts.append(
                line_chart(f"{spoken(role)}, {term.replace('_', ' ')}", series[name], colour=1 + roles.index(role) % 2)
            )
    if not charts:
        return None
    every = record.setting("train", "log_every")
    note = f"Means over {every} steps. Each term counts as much as the recipe weighs it." if every else None
    return _section(
        "Losses", tag("p", note, class_="note") if note else None, tag("div", *charts, class_="charts"), id_="losses"
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


# --------------------------------------------------------------------------------------------------- tables


def _score_tables(record: Record) -> Html | None:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in record.last_scores:
        groups.setdefault(how_made(row), []).append(row)
    if not groups:
        return None
    return _section(
        "Scores and how they were made", *(_score_table(record, rows) for rows in groups.values()), id_="scores"
    )


def _score_table(record: Record, rows: Sequence[Row]) -> Html:
    first = rows[0]
    meanings = record.meanings(str(first.get("protocol")))
    head = ["Score", "Value", "Interval", "Better"] + (["What it says"] if meanings else [])
    body = []
    for row in rows:
        cells = [spoken(row["metric"]), *(tag("span", text, class_="n") for text in _value(row)), _better(row)]
        body.append([*cells, tag("span", meanings.get(row["metric"], ""), class_="prose")] if meanings else cells)
    notes = sorted({str(note) for row in rows for note in row.get("notes") or ()})
    return tag(
        "div",
        table(head, body, class_="scores", caption=f"Protocol {first.get('protocol')}, step {first.get('step', 0):,}"),
        tag("dl", *(join((tag("dt", name), tag("dd", text))) for name, text in _making(first)), class_="making"),
        tag("ul", *(tag("li", note) for note in notes), class_="warnings") if notes else None,
    )  # fmt: skip


def _making(row: Row) -> Iterator[tuple[str, Html | str]]:
    if row.get("n_fake") is not None:
        seeds = row.get("seeds") or ()
        times = f", {len(seeds)} times (sampling seeds {', '.join(map(str, seeds))})" if len(seeds) > 1 else ""
        yield "Images", f"{row['n_fake']:,} generated against {row.get('n_real', 0):,} real{times}"
    if row.get("interval"):
        yield "Interval", str(row["interval"])
    if row.get("extractor"):
        weights = [", weights ", tag("code", str(row["sha256"])[:12])] if row.get("sha256") else []
        layer = f"; {row['layer']}" if row.get("layer") else ""
        yield "Features", join((str(row["extractor"]), *weights, layer))
    if row.get("resizer"):
        yield "Resizing", str(row["resizer"])
    if row.get("source"):
        yield "Extractor from", str(row["source"])
    if row.get("reference"):
        yield "Reference data", tag("code", str(row["reference"])[:12])


def _recipe(record: Record) -> Html | None:
    if not record.recipe_text:
        return None
    changed = [
        (
            tag("code", key),
            tag("code", plain(value)),
            tag("span", "has none", class_="note") if default is ... else tag("code", plain(default)),
        )
        for key, value, default in record.changed_settings()
    ]
    resolved = record.resolved_text.rstrip()
    return _section(
        "Recipe",
        tag("pre", record.recipe_text.rstrip()),
        table(
            ("Setting", "This run", "Default"),
            changed,
            class_="settings",
            caption="Settings that are not at their default",
        )
        if changed
        else None,
        tag("details", tag("summary", "Every setting that ran, defaults filled in"), tag("pre", resolved))
        if resolved
        else None,
        id_="recipe",
    )


def plain(value: Any) -> str:
    """A setting as YAML writes it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(plain, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else "as it comes" if value == {} else str(value)


_PROVENANCE = {
    "ganvas": "Ganvas", "commit": "Commit", "torch": "PyTorch", "python": "Python", "machine": "Machine",
    "device": "Device", "threads": "Threads", "seed": "Seed", "data": "Data fingerprint", "data_count": "Training data",
}  # fmt: skip


def _provenance(record: Record) -> Html | None:
    began = {key: value for key, value in record.provenance.items() if not isinstance(value, (list, dict))}
    if not began:
        return None
    rows = [(_PROVENANCE.get(key, spoken(key)), tag("code", value)) for key, value in _shown(began).items()]
    resumed = record.provenance.get("resumed")
    for later in resumed if isinstance(resumed, list) else ():
        if isinstance(later, dict):  # a later session that was not like the first
            changed = {key: value for key, value in later.items() if value != began.get(key)}
            for key, value in _shown(changed).items():
                rows.append((f"{_PROVENANCE.get(key, spoken(key))}, when it went on", tag("code", value)))
    ended = record.provenance.get("diverged")
    endings = [ending for ending in ended if isinstance(ending, dict)] if isinstance(ended, list) else []
    rows += [("Diverged", tag("span", f"step {ending.get('step')}: {ending.get('problem')}")) for ending in endings]
    return _section("Provenance", table((), rows), id_="provenance")


def _shown(provenance: Row) -> dict[str, str]:
    return {
        key: f"{value:,}" if key == "data_count" and isinstance(value, int) else str(value)
        for key, value in provenance.items()
        if value is not None
    }


# --------------------------------------------------------------------------------------------------- commands


def _commands(record: Record) -> Html:
    place = shlex.quote(str(record.folder))
    going_on = f"ganvas train --resume --out {place}"
    if record.finished:
        going_on += f" --allow-changes train.steps={2 * record.step}"
    rows = [("Train longer" if record.finished else "Go on", going_on), ("Train anew", f"ganvas train {place}")]
    if (record.folder / "model.safetensors").is_file():
        rows = [
            *_sampling(record, place),
            ("Score again", f"ganvas eval {place}"),
            ("Look closer", f"ganvas inspect {place}"),
            *rows,
            ("In Python", _in_python(record)),
        ]
    listed = [join((tag("dt", name), tag("dd", tag("code", command)))) for name, command in rows]
    return _section("What to do with it", tag("dl", *listed, class_="commands"), id_="commands")


def _sampling(record: Record, place: str) -> list[tuple[str, str]]:
    """How samples are drawn: of nothing, or of what they cannot be made without, as far as files and words can hold it.

    FOLDER and TEXT stand for what only a person can give.
    """
    if not record.needed:
        return [("Draw 64 samples", f"ganvas sample {place} --n 64 --seed 1")]
    said, options = [], []
    for name, spec in record.needed.items():
        if name.endswith("_mask") and name.removesuffix("_mask") in record.needed:
            continue  # it comes with the text
        if spec.modality is None:
            return []  # numbers alone: from Python
        shape = " × ".join(map(str, spec.shape))
        if spec.modality.categories:
            said.append(f"TEXT: a text for {name}, at most {shape} long")
            options.append(f"--text {name}=TEXT")
        else:
            said.append(f"FOLDER: files for {name}, {spec.modality.called()} of {shape} ({spec.modality.suffixes[0]})")
            options.append(f"--given {name}=FOLDER")
    return [(f"Make samples of yours; {'; '.join(said)}", f"ganvas sample {place} {' '.join(options)}")]


def _in_python(record: Record) -> str:
    """The same from Python; a condition is a tensor of the shape that is said behind it."""
    load = f"ganvas.load({str(record.folder)!r})"
    if not record.needed:
        return f"{load}.sample(64, seed=1)"
    given = ", ".join(f"{name!r}: {name}" for name in record.needed)
    shapes = ", ".join(f"{name} ({', '.join(map(str, ('N', *spec.shape)))})" for name, spec in record.needed.items())
    return f"{load}.transform({{{given}}})  # {shapes}"
