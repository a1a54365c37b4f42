"""Official names of modules and tensors -> ours, word by word."""

from __future__ import annotations

from collections.abc import Mapping


class Renamer:
    """Translates the longest known beginning of a name, then every known word, or pair of words, of the rest.

    Parameters
    ----------
    top : official beginnings of names, whole words, such as "logits.2", and ours for them.
    inside : official words of the rest, one or two, such as "attn" or "h.0", and ours for them.
    """

    def __init__(self, top: Mapping[str, str], inside: Mapping[str, str]) -> None:
        self.top = dict(sorted(top.items(), key=lambda item: -len(item[0])))
        self.inside = dict(inside)

    def __call__(self, name: str) -> str:
        """The whole name of a tensor or module -> ours."""
        for official, ours in self.top.items():
            if name == official or name.startswith(f"{official}."):
                remainder = name.removeprefix(official).removeprefix(".")
                return ".".join([ours, *self._words(remainder)]) if remainder else ours
        return ".".join(self._words(name))

    def _words(self, name: str) -> list[str]:
        words, translated = name.split("."), []
        while words:
            pair = ".".join(words[:2])
            if len(words) > 1 and pair in self.inside:
                translated.append(self.inside[pair])
                words = words[2:]
            else:
                translated.append(self.inside.get(words[0], words[0]))
                words = words[1:]
        return [word for word in translated if word]
