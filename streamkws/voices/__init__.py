"""Voices and sounds to train on: tools that make or fetch what a recipe names beside recordings.

    speakers.py     synthesized speakers of keywords (data.synthetic), by kokoro.py in an environment of its own
    phrases.py      the six shipped keywords, and phrases that resemble them
    kokoro.py       the worker: speakers mixed of Kokoro-82M's voices, and accents
    mining.py       hard negatives (data.negatives): what models take for keywords
    sounds.py       made music, noise, babble, near words, and numbers in other languages
    fetch.py        the teacher (data.teacher): Google's speech embedding
    environment.py  Python environments of tools
    segments.py     segments.csv, the table of a set that grows

Each tool continues where its last call stopped.
"""

from streamkws.voices.fetch import fetch_teacher
from streamkws.voices.mining import mine
from streamkws.voices.speakers import synthesize

__all__ = ["fetch_teacher", "mine", "synthesize"]
