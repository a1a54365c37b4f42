"""`ganvas eval` of sounds, texts, series and tables: files are read as what is scored, and unlike data are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas import parts
from ganvas.errors import DataError, UsageError
from ganvas.evaluation.evaluate import node_at
from ganvas.evaluation.judge import check_modality, unflipped
from ganvas.types import Dataset, DataSpec

Ganvas = Callable[..., Any]

TABLE = {"use": "table", "columns": ["age", "city"], "ranges": {"age": [0, 90]}, "names": {"city": ["x", "y", "z"]}}
SERIES = {"use": "series", "columns": ["heat", "load"], "low": [-10, 0], "high": [30, 2], "rate": 5}
KINDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "audio": ({"use": "audio", "rate": 8000}, (1, 400)),
    "video": ({"use": "video", "rate": 12.5}, (1, 4, 16, 12)),
    "text": ({"use": "text", "vocabulary": ["c", "b", "a", " "]}, (7,)),
    "series": (SERIES, (2, 6)),
    "table": (TABLE, (4,)),
    "image": ("image", (1, 8, 8)),
}


def spec_of(kind: str) -> DataSpec:
    return parts.data_spec(*KINDS[kind])


def written(spec: DataSpec, folder: Path, n: int = 5) -> torch.Tensor:
    """Random data (n, ...) that lie in the folder, as `ganvas sample --out FOLDER` writes them."""
    folder.mkdir()
    data = spec.modality.draw(n, spec.shape, torch.Generator().manual_seed(0))
    spec.modality.write(data, [folder / f"{i}{spec.modality.suffixes[0]}" for i in range(n)])
    return spec.modality.restored(spec.modality.rounded(data))


def read(dataset: Dataset) -> torch.Tensor:
    return dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).data


@pytest.mark.parametrize("kind", KINDS)
def test_a_models_own_files_are_read_as_it_wrote_them(kind: str, tmp_path: Path) -> None:
    spec = spec_of(kind)
    data = written(spec, tmp_path / "files")
    again = unflipped(node_at(tmp_path / "files", None, "--against", spec))
    check_modality(spec, again, "raw")  # they may be compared
    assert again.spec.shape == spec.shape
    torch.testing.assert_close(read(again), data, rtol=0, atol=1e-6)


def test_sound_of_another_rate_and_length_is_brought_to_that_of_the_model(tmp_path: Path) -> None:
    written(parts.data_spec({"use": "audio", "rate": 16_000}, (1, 1000)), tmp_path / "files")
    found = unflipped(node_at(tmp_path / "files", None, "--against", spec_of("audio")))
    assert (found.spec.shape, found.spec.modality) == ((1, 400), spec_of("audio").modality)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_such_files_says_what_is_missing(kind: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.doc").write_text("nothing")
    with pytest.raises(DataError, match=r"no .*(found among 1 files|ends in)") as caught:
        unflipped(node_at(tmp_path / "files", None, "--against", spec_of(kind)))
    assert "files" in caught.value.where and caught.value.hint


@pytest.mark.parametrize("kind", ["audio", "video", "text", "image"])
def test_files_say_what_they_are_where_no_model_does(kind: str, tmp_path: Path) -> None:
    written(spec_of(kind), tmp_path / "files")
    (tmp_path / "files" / "dataset.json").write_text("{}")
    assert node_at(tmp_path / "files", None, "ganvas eval")["use"] == ("folder" if kind == "image" else kind)


def test_tables_may_be_rows_or_series(tmp_path: Path) -> None:
    written(spec_of("table"), tmp_path / "files")
    with pytest.raises(UsageError, match=r"\.csv files may be series or table data") as caught:
        node_at(tmp_path / "files", None, "ganvas eval")
    assert f"'{{use: series, path: {tmp_path / 'files'}}}'" in caught.value.hint


def test_points_are_read_from_no_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no plane data at") as caught:
        node_at(tmp_path, None, "--against", parts.data_spec("plane", (2,)))
    assert "ganvas list data" in caught.value.hint


class Nothing(Dataset):
    """A set of which only the description is looked at."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.fingerprint = "nothing"

    def __len__(self) -> int:
        return 0

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Any:
        raise AssertionError("nobody reads it")


TWO_LETTERS = {"use": "text", "vocabulary": ["a", "b"]}
MANY_LETTERS = {"use": "text", "vocabulary": [chr(i) for i in range(65, 165)]}
UNLIKE = [
    (KINDS["audio"], KINDS["image"], "scored are audio data, and the reference holds image data"),
    (KINDS["audio"], ({"use": "audio", "rate": 16_000}, (1, 400)), "audio data, rate 8000, .* audio data, rate 16000"),
    (KINDS["text"], (TWO_LETTERS, (7,)), r"vocabulary \['c', 'b', 'a', ' '\], .* vocabulary \['a', 'b'\]"),
    ((MANY_LETTERS, (7,)), KINDS["text"], r"… \(100 in all\), and"),
    (KINDS["table"], ({**TABLE, "ranges": {"age": [0, 80]}}, (4,)), "ranges .*90.* ranges .*80"),
    (KINDS["series"], ({**SERIES, "high": [30, 3]}, (2, 6)), "high .*2.0.* high .*3.0"),
]


@pytest.mark.parametrize(("scored", "reference", "problem"), UNLIKE)
def test_unlike_data_are_not_compared(scored: tuple[Any, Any], reference: tuple[Any, Any], problem: str) -> None:
    spec = parts.data_spec(*scored)
    with pytest.raises(DataError, match=problem) as caught:
        check_modality(spec, Nothing(parts.data_spec(*reference)), "raw")
    assert "ganvas eval RUN --against FOLDER" in caught.value.hint
    assert spec.modality.suffixes[0] in caught.value.hint


@pytest.mark.parametrize("kind", ["video", "series"])
def test_a_rate_that_files_do_not_say_makes_no_difference(kind: str) -> None:
    node, shape = KINDS[kind]
    other = parts.data_spec({**node, "rate": 99.0}, shape)
    check_modality(spec_of(kind), Nothing(other), "raw")


def test_a_model_of_sounds(ganvas: Ganvas, workplace: Path) -> None:
    assert ganvas("train tiny/tones-wavegan train.steps=1 eval= --out run").code == 0
    written(parts.data_spec({"use": "audio", "rate": 8000}, (1, 4096)), workplace / "sounds", n=8)
    quick = "--samples 8 --metric kernel-distance --json"
    (row,) = ganvas(f"eval run --against sounds {quick}").json
    assert (row["n_real"], row["extractor"]) == (8, "log-mel")
    (workplace / "pictures").mkdir()
    for name in "ab":
        Image.new("L", (8, 8)).save(workplace / "pictures" / f"{name}.png")
    said = ganvas("eval run --against pictures")
    assert said.code == 2
    assert "nothing to compare audio data with: no sound found among 2 files (2 .png)" in said.err
    for words in ("--against digits", "--protocol digits"):
        said = ganvas(f"eval run --samples 8 {words}")
        assert said.code == 2
        assert "what is scored are audio data, and the reference holds image data" in said.err
        assert "ganvas eval RUN --against FOLDER" in said.err
