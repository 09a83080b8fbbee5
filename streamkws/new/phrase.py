"""A phrase that is to become a keyword: how it is said, and whether it can be told from other speech."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from streamkws.errors import ConfigError
from streamkws.new.phones import Dictionary, Phones, from_ipa, is_vowel
from streamkws.voices.sounds import WORDS as COMMON

LEAST_PHONES, LEAST_SYLLABLES = 4, 2
"""A phrase with fewer sounds fires in the middle of other words; it is refused."""
FEW_PHONES = 6
"""With fewer there will be false accepts, or a high threshold and misses."""
MANY_PHONES, MOST_PHONES = 15, 20
"""The network sees 1.4 s: of a phrase with more sounds it does not see the beginning."""
CLOSE = 1.3
"""Words at less distance than this sound much like the phrase."""
LETTERS = re.compile(r"[a-z]+(?:['-][a-z]+)*(?: [a-z]+(?:['-][a-z]+)*)*")

Pronouncer = Callable[[Sequence[str]], Sequence[str]]
"""Texts to what espeak-ng would say, in IPA."""


@dataclass(frozen=True)
class Phrase:
    """A phrase and its sounds.

    text: the keyword, lower case. spoken: what the voices are given: another spelling, or IPA between slashes.
    ipa: as espeak-ng says it, in American English. words: the phones of each word.
    """

    text: str
    spoken: str
    ipa: str
    words: tuple[Phones, ...]

    @property
    def phones(self) -> Phones:
        """All of its phones."""
        return tuple(phone for word in self.words for phone in word)

    @property
    def n_syllables(self) -> int:
        """Its vowels."""
        return sum(is_vowel(phone) for phone in self.phones)


@dataclass(frozen=True)
class Advice:
    """What is to be said about a phrase. refused: whether it is too bad to go on."""

    text: str
    refused: bool = False


def read_phrase(text: str) -> str:
    """A phrase as a keyword is written. Raises ConfigError for what cannot be said as English words."""
    phrase = " ".join(text.lower().split())
    if not LETTERS.fullmatch(phrase):
        raise ConfigError(
            f"expected a phrase in English letters, numbers written out, such as 'hey robot', got {text!r}"
        )
    return phrase


def pronounce(
    texts: Sequence[str], spoken: Mapping[str, str], dictionary: Dictionary, pronouncer: Pronouncer
) -> list[Phrase]:
    """The phrases with their sounds.

    texts: as read_phrase gives them. spoken: how some of them are said: another spelling, or IPA between slashes.
    pronouncer: asked for what espeak-ng says, since the synthesizer says it so.
    Raises ConfigError for a pronunciation that is none.
    """
    said = [spoken.get(text, text) for text in texts]
    spelled = [one for one in said if not one.startswith("/")]
    unknown = [word for one in spelled for word in one.split() if word not in dictionary]
    ask = list(dict.fromkeys([*spelled, *unknown]))
    ipa = dict(zip(ask, pronouncer(ask), strict=True)) if ask else {}
    phrases = []
    for text, one in zip(texts, said, strict=True):
        if one.startswith("/"):
            words = tuple(from_ipa(word) for word in one.strip("/").split())
        else:  # the dictionary's phones are surer than those of espeak-ng's guess
            words = tuple((dictionary.pronunciations.get(word) or [from_ipa(ipa[word])])[0] for word in one.split())
        if not words or not all(words):
            raise ConfigError(
                f"expected a pronunciation of {text!r}, in letters or in IPA between slashes, got {one!r}"
            )
        phrases.append(Phrase(text, one, ipa.get(one, one.strip("/")), words))
    return phrases


def known(texts: Sequence[str], dictionary: Dictionary) -> list[Phrase]:
    """Those phrases all of whose words the dictionary has, without what espeak-ng says."""
    spelled = [text for text in texts if all(word in dictionary for word in text.split())]
    words = [tuple(dictionary.pronunciations[word][0] for word in text.split()) for text in spelled]
    return [Phrase(text, text, "", one) for text, one in zip(spelled, words, strict=True)]


def advice(phrase: Phrase, dictionary: Dictionary) -> list[Advice]:
    """What speaks against a phrase, and what to say instead."""
    found: list[Advice] = []
    phones, syllables, text = phrase.phones, phrase.n_syllables, phrase.text
    instead = f"'hey {text}' or 'okay {text}'" if not text.startswith(("hey", "okay")) else "a longer name"
    sounds = f"{len(phones)} sounds in {syllables} syllable{'s' * (syllables != 1)}"
    if len(phones) < LEAST_PHONES or syllables < LEAST_SYLLABLES:
        found.append(Advice(f"too short: {sounds}, it is part of many words; say {instead}", refused=True))
    elif len(phones) < FEW_PHONES:
        found.append(Advice(f"short: {sounds}; {instead} is easier to tell from other speech"))
    if len(phones) > MOST_PHONES:
        found.append(Advice(f"too long: {sounds}, of which the network sees the last 1.4 s; say less", refused=True))
    elif len(phones) > MANY_PHONES:
        found.append(Advice(f"long: {sounds}; said slowly, its beginning is not seen; two words are enough"))
    if all(word in COMMON for word in text.split()):
        found.append(Advice(f"common words: whoever says them in passing will be heard; {instead} is rarer"))
    near = [word.text for far, word in dictionary.nearest(phones, 60, least=0.01) if far < CLOSE]
    near = [word for word in near if word in COMMON and word not in text.split()]
    if near:
        found.append(Advice(f"sounds much like {', '.join(near[:4])}; {instead} is easier to tell from other speech"))
    return found
