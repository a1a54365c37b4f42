"""A tiny English grammar: sentences whose being right can be checked exactly.

sentence = subject verb object "."      the verb agrees with the subject's number
subject, object = determiner [adjective] noun       "a" and "every" go with the singular alone
"""

from __future__ import annotations

import numpy as np

NOUNS = ("bird", "boat", "cloud", "dog", "lamp", "owl", "river", "tree")
ADJECTIVES = ("big", "calm", "dark", "old", "red")
VERBS = ("find", "follow", "hear", "know", "see")
DETERMINERS = (("every", "one", "the"), ("many", "some", "the"))
"""Of the singular, of the plural."""

NUMBERS = ("singular", "plural")
"""Of the subject: the classes of sentences."""

VOCABULARY = tuple(sorted({*" .", *"".join((*NOUNS, *ADJECTIVES, *VERBS, *DETERMINERS[0], *DETERMINERS[1], "s"))}))
LENGTH = 42
"""Characters of the longest sentence, "every calm cloud follows every calm river."; shorter ones end in spaces."""

DIFFERENT = 2 * (3 * 6 * 8) * 5 * 2 * (3 * 6 * 8)
"""How many sentences there are."""


def _phrase(rng: np.random.RandomState, plural: int) -> str:
    words = [DETERMINERS[plural][rng.randint(len(DETERMINERS[plural]))]]
    if rng.random_sample() < 0.5:
        words.append(ADJECTIVES[rng.randint(len(ADJECTIVES))])
    return " ".join([*words, NOUNS[rng.randint(len(NOUNS))] + "s" * plural])


def sentences(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Random sentences and the numbers (count,) of their subjects; a longer list begins with a shorter one."""
    rng = np.random.RandomState(seed)  # its streams are frozen
    texts, labels = [], np.empty(count, dtype=np.int64)
    for i in range(count):
        plural, other = rng.randint(2), rng.randint(2)
        verb = VERBS[rng.randint(len(VERBS))] + ("" if plural else "s")
        texts.append(f"{_phrase(rng, plural)} {verb} {_phrase(rng, other)}.")
        labels[i] = plural
    return texts, labels


def number_of(text: str) -> int | None:
    """0 for a right sentence with a singular subject, 1 for one with a plural, None for what is no sentence.

    Spaces at the end do not count.
    """
    text = text.rstrip(" ")
    if not text.endswith("."):
        return None
    words = text[:-1].split(" ")
    subject, rest = _read_phrase(words)
    if subject is None or not rest:
        return None
    if rest[0] not in {verb + ("" if subject else "s") for verb in VERBS}:
        return None
    other, rest = _read_phrase(rest[1:])
    return subject if other is not None and not rest else None


def _read_phrase(words: list[str]) -> tuple[int | None, list[str]]:
    """The number of the phrase that words begin with, None where there is none, and the words behind it."""
    for plural in (0, 1):
        if words and words[0] in DETERMINERS[plural]:
            at = 2 if len(words) > 1 and words[1] in ADJECTIVES else 1
            if len(words) > at and words[at] in {noun + "s" * plural for noun in NOUNS}:
                return plural, words[at + 1 :]
    return None, words
