"""Text: tokens and back, files, pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import BadValue, DataError, UsageError
from ganvas.files.texts import read_text

LETTERS = ("\n", " ", "a", "b", "é", "ж", "<")


def text(*vocabulary: str) -> object:
    return parts.modality_of({"use": "text", "vocabulary": list(vocabulary or LETTERS)})


def test_a_text_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    modality, file = text(), tmp_path / "a.txt"
    data = torch.arange(7)[None].repeat(3, 1)
    files = [tmp_path / f"{i}.txt" for i in range(3)]
    modality.write(data, files)
    assert files[0].read_bytes().decode() == "\n abéж<"
    assert torch.equal(modality.read(files[2], (7,)), data[2])
    assert torch.equal(modality.restored(modality.rounded(data)), data)
    file.write_bytes("\ufeffe\u0301\r\na\r".encode())  # a byte order mark, a decomposed é, ends of lines of two kinds
    assert modality.decode(modality.read(file, (4,))) == "é\na\n"


def test_entries_of_several_characters_are_read_longest_first() -> None:
    modality = text("a", "aa", "the", "th", " ")
    assert modality.encode("aaa the").tolist() == [1, 0, 4, 2]
    assert modality.decode(modality.encode("aaa the")) == "aaa the"
    with pytest.raises(DataError, match="'x'"):
        modality.encode("a x")


def test_errors_show_the_characters_and_their_line(tmp_path: Path) -> None:
    modality, file = text(), tmp_path / "a.txt"
    file.write_text("a\nbQ€", encoding="utf-8")
    with pytest.raises(DataError, match=r"'Q' \(U\+0051\), '€' \(U\+20AC\); the first in line 2") as foreign:
        modality.read(file, (5,))
    assert foreign.value.where == str(file)
    file.write_text("ab", encoding="utf-8")
    with pytest.raises(DataError, match="2 tokens long, not 5"):
        modality.read(file, (5,))
    file.write_bytes(b"a\nb\xff")
    with pytest.raises(DataError, match="0xff") as broken:
        read_text(file)
    assert broken.value.where == f"{file}:2"
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "none.txt")
    for wrong in ((), ("a", "a"), ("a", "")):
        with pytest.raises(BadValue):
            parts.modality_of({"use": "text", "vocabulary": list(wrong)})


def test_words_that_are_given_are_filled_up_with_spaces() -> None:
    tokens, mask = text().from_text("e\u0301b", (5,))
    assert tokens.tolist() == [4, 3, 1, 1, 1]
    assert mask.tolist() == [1, 1, 0, 0, 0]
    with pytest.raises(UsageError, match="6 tokens long, not 5"):
        text().from_text("ababab", (5,))
    with pytest.raises(UsageError, match="vocabulary has not"):
        text().from_text("z", (5,))
    with pytest.raises(UsageError, match="1 tokens long, not 2"):
        text("a", "b").from_text("a", (2,))


def test_pictures_and_players_show_the_text() -> None:
    modality = text()
    picture = modality.show(torch.tensor([[2, 3, 0, 2], [2, 2, 2, 2]]))
    one = modality.show(torch.tensor([[2, 3, 0, 2]]))
    assert picture.width == one.width
    assert picture.height == one.height + 11 + 16  # one line less, and the margins
    assert np.asarray(one).min() == 0
    assert not np.array_equal(np.asarray(one), np.asarray(modality.show(torch.tensor([[2, 3, 0, 3]]))))
    long = modality.show(torch.full((1, 4000), 2))
    assert long.height == 24 * 11 + 16
    assert modality.player(torch.tensor([[6, 2, 0, 5]])) == "<pre>&lt;a\nж</pre>"
    assert modality.show(torch.tensor([[5, 5]])).size == modality.show(torch.tensor([[2, 2]])).size  # ж is a ?


def test_the_node_makes_it_again() -> None:
    modality = text()
    assert parts.modality_of(modality.node()) == modality
    assert text("a", "b") != text("b", "a")
    assert modality.categories == 7
    drawn = modality.draw(100, (3,), torch.Generator().manual_seed(0))
    assert (drawn.shape, int(drawn.min()), int(drawn.max())) == ((100, 3), 0, 6)
