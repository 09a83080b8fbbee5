"""What a phrase must not be confused with: phrases made from its sounds."""

from __future__ import annotations

from dataclasses import dataclass

from streamkws.new.phones import Dictionary, Phones, distance
from streamkws.new.phrase import Phrase

LEAST_DISTANCE = 1.0
"""What sounds more alike than this may be the phrase in somebody's accent, and is left alone."""
N_WHOLE, N_PAIRS, N_REPLACED, N_WORDS = 50, 50, 30, 25
"""How many words near the whole phrase, pairs of words near it, phrases with one word replaced (for each word), and
words near each of its words."""
CARRIERS = (
    "the {} is over there", "I saw {} yesterday", "what about {} now", "we need more {}", "is that {} again", "my {}",
    "this {} was cheap", "tell me about {}", "they like {} a lot", "no {} today",
)  # fmt: skip
"""Sentences in which parts of a phrase are said."""
VOWEL_SIGNS = "aeiouæɑɐɒɔəɚɛɜɝɪʊʌᵻ"
"""What a vowel of espeak-ng's begins with."""
LONG, STRESS = "ː", "ˈˌ"


@dataclass(frozen=True)
class Near:
    """Something that is nearly a phrase. text: for the voices: words, or IPA between slashes. distance: from it."""

    text: str
    distance: float


def near_phrases(phrase: Phrase, dictionary: Dictionary) -> dict[str, list[Near]]:
    """What resembles a phrase, by kind, the nearest first.

    "words": single words that sound like the whole phrase, and pairs of words. "replaced": the phrase with one word
    replaced. "parts": its words and words like them, alone and in sentences. "halves": its beginnings and ends, and its
    halves swapped or repeated.
    None of them holds the phrase.
    """
    found = {
        "words": _whole(phrase, dictionary),
        "replaced": _replaced(phrase, dictionary),
        "parts": _parts(phrase, dictionary),
        "halves": _halves(phrase),
    }
    seen: set[str] = {phrase.text, phrase.spoken}
    kinds: dict[str, list[Near]] = {}
    for kind, several in found.items():
        kinds[kind] = []
        for one in sorted(several, key=lambda near: (near.distance, near.text)):
            if one.text not in seen:
                seen.add(one.text)
                kinds[kind].append(one)
    return kinds


def holds(phones: Phones, phrase: Phones) -> bool:
    """Whether the phones of a phrase are among others, in a row."""
    n = len(phrase)
    return any(phones[start : start + n] == phrase for start in range(len(phones) - n + 1))


def _whole(phrase: Phrase, dictionary: Dictionary) -> list[Near]:
    """Words, and pairs of words, that sound like the whole phrase."""
    phones = phrase.phones
    single = dictionary.nearest(phones, N_WHOLE + 20, least=LEAST_DISTANCE)
    found = [Near(word.text, far) for far, word in single if not holds(word.phones, phones)][:N_WHOLE]
    pairs: dict[str, Near] = {}
    for cut in range(2, len(phones) - 1):
        firsts, seconds = (dictionary.nearest(part, 8) for part in (phones[:cut], phones[cut:]))
        for _, first in firsts:
            for _, second in seconds:
                both = first.phones + second.phones
                far = distance(phones, both)
                if far >= LEAST_DISTANCE and not holds(both, phones):
                    text = f"{first.text} {second.text}"
                    pairs[text] = Near(text, far)
    return found + sorted(pairs.values(), key=lambda one: (one.distance, one.text))[:N_PAIRS]


def _replaced(phrase: Phrase, dictionary: Dictionary) -> list[Near]:
    """A phrase of several words with one of them replaced by a word that sounds like it."""
    names = phrase.spoken.split()
    if len(phrase.words) < 2 or len(names) != len(phrase.words):
        return []
    found = []
    for place, word in enumerate(phrase.words):
        others = dictionary.nearest(word, N_REPLACED, least=LEAST_DISTANCE)
        for far, other in others:
            if not holds(other.phones, word):
                found.append(Near(" ".join([*names[:place], other.text, *names[place + 1 :]]), far))
    return found


def _parts(phrase: Phrase, dictionary: Dictionary) -> list[Near]:
    """The words of a phrase, and words like them, alone and in sentences; of one word, only words like it."""
    several = len(phrase.words) > 1
    names = phrase.spoken.split()
    texts: list[tuple[str, Phones]] = []
    for place, word in enumerate(phrase.words):
        if several and len(names) == len(phrase.words):
            texts.append((names[place], word))
        near = dictionary.nearest(word, N_WORDS, least=0.4 if several else LEAST_DISTANCE)
        texts += [(one.text, one.phones) for _, one in near if several or not holds(one.phones, word)]
    phones = phrase.phones
    alone = [Near(text, distance(phones, theirs)) for text, theirs in texts if several]
    said = [
        Near(carrier.format(text), distance(phones, theirs))
        for number, (text, theirs) in enumerate(texts)
        for carrier in (CARRIERS[number % len(CARRIERS)], CARRIERS[(number + 3) % len(CARRIERS)])
    ]
    return alone + said


def _halves(phrase: Phrase) -> list[Near]:
    """Beginnings and ends of a phrase, its halves swapped or said twice, and its words in another order."""
    syllables = split_syllables(phrase.ipa)
    n = len(syllables)
    whole = phrase.phones
    texts = []
    for cut in range(1, n):
        first, second = "".join(syllables[:cut]), "".join(syllables[cut:])
        texts += [first, second, second + first]
        if n == 2 or cut == n // 2:
            texts += [first + first, second + second]
    names = phrase.spoken.split()
    found = [Near(f"/{text.strip()}/", float(abs(len(text) - len(phrase.ipa)))) for text in texts if text.strip()]
    if len(names) > 1 and not phrase.spoken.startswith("/"):
        found += [Near(" ".join(names[::-1]), float(len(whole))), Near(f"{names[0]} {names[0]}", float(len(whole)))]
    return found


def split_syllables(ipa: str) -> list[str]:
    """IPA cut into syllables, each with the one consonant before its vowel (and the stress before that)."""
    starts: list[int] = []
    in_vowel = False
    for place, sign in enumerate(ipa):
        vowel = sign in VOWEL_SIGNS
        if vowel and not in_vowel:
            start = len(ipa[:place].rstrip(STRESS))
            if start > 0 and ipa[start - 1] not in VOWEL_SIGNS + LONG + " ":
                start -= 1
            starts.append(len(ipa[:start].rstrip(STRESS)))
        in_vowel = vowel or (in_vowel and sign == LONG)
    if not starts:
        return [ipa]
    starts[0] = 0
    return [ipa[start:end] for start, end in zip(starts, [*starts[1:], len(ipa)], strict=True)]
