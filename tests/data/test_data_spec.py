"""What a datum looks like: sides by the names of its axes, not by where they stand."""

from __future__ import annotations

import pytest

from ganvas import parts
from ganvas.errors import BadValue

TEXT = {"use": "text", "vocabulary": list("abc")}
NO_GRID = [
    ({"use": "audio", "rate": 8000}, (1, 16384), "audio data of (1, 16384) (channel, time) have no height"),
    (TEXT, (64,), "text data of (64,) (position) have no height"),
    ("plane", (2,), "plane data of (2,) (coordinate) have no height"),
    ("image", (28, 28), "image data of (28, 28) (channel, height, width) have no height"),
]


@pytest.mark.parametrize(("modality", "shape", "problem"), NO_GRID)
def test_data_without_sides_say_what_they_are(modality: object, shape: tuple[int, ...], problem: str) -> None:
    spec = parts.data_spec(modality, shape)
    with pytest.raises(BadValue) as caught:
        _ = spec.height
    assert caught.value.problem == problem
    assert "ganvas list networks" in caught.value.hint
    with pytest.raises(BadValue, match="have no width"):
        _ = spec.width


def test_sides_are_found_by_name() -> None:
    image = parts.image_spec((3, 24, 32))
    assert (image.height, image.width) == (24, 32)
    film = parts.data_spec({"use": "video", "rate": 8}, (3, 10, 24, 32))
    assert (film.height, film.width) == (24, 32)
