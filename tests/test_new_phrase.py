"""Phrases: their sounds, what speaks against them, and what is near to them."""

import pytest

from streamkws import ConfigError
from streamkws.new.near import holds, near_phrases, split_syllables
from streamkws.new.phones import PHONES, Dictionary, distance, from_ipa
from streamkws.new.phrase import advice, known, pronounce, read_phrase

LINES = """
a AH0
alexa AH0 L EH1 K S AH0
alexi AH0 L EH1 K S IY0
alex AE1 L AH0 K S
cat K AE1 T
cap K AE1 P
computer K AH0 M P Y UW1 T ER0
computers K AH0 M P Y UW1 T ER0 Z
commuter K AH0 M Y UW1 T ER0
day D EY1
good G UH1 D
hay HH EY1
hey HH EY1
hey(2) HH EY0
morning M AO1 R N IH0 NG
robot R OW1 B AA2 T
robots R OW1 B AA2 T S
roebuck R OW1 B AH2 K # a name
rowboat R OW1 B OW2 T
warning W AO1 R N IH0 NG
don't D OW1 N T
"""
IPA = {"hey robot": "hˈeɪ ɹˈoʊbɑːt", "alexa": "ɐlˈɛksə", "snowboy": "snˈoʊbɔɪ", "hey": "hˈeɪ", "robot": "ɹˈoʊbɑːt"}


@pytest.fixture
def dictionary(tmp_path):
    path = tmp_path / "cmudict.dict"
    path.write_text(LINES.lstrip(), encoding="utf-8")
    return Dictionary(path)


def asked(texts):
    return [IPA.get(text, "hˈeɪ") for text in texts]


def phrase_of(text, dictionary, **spoken):
    (phrase,) = pronounce([text], spoken, dictionary, asked)
    return phrase


def test_phones_of_ipa_and_of_the_dictionary_agree(dictionary):
    assert from_ipa("ɐlˈɛksə") == dictionary.pronunciations["alexa"][0]
    assert from_ipa("kəmpjˈuːɾɚ") == dictionary.pronunciations["computer"][0]
    assert from_ipa("tʃˈɑːɹdʒ") == ("CH", "AA", "R", "JH")
    assert dictionary.pronunciations["hey"] == [("HH", "EY"), ("HH", "EY")]
    assert "don't" not in dictionary
    assert dictionary.pronunciations["roebuck"] == [("R", "OW", "B", "AH", "K")]


def test_distance_is_small_for_what_sounds_alike():
    cat = ("K", "AE", "T")
    assert distance(cat, cat) == 0
    assert distance(cat, ("K", "AE", "D")) < distance(cat, ("K", "AE", "M")) < distance(cat, ("K", "AE", "IY"))
    assert distance(cat, ("K", "AE")) == distance(("K", "AE"), cat) == pytest.approx(0.8)
    assert distance(("AH", *cat), cat) < distance(("S", *cat), cat)  # a weak vowel less is hardly heard
    for one in PHONES:
        for other in PHONES:
            assert distance((one,), (other,)) == distance((other,), (one,)) >= (one != other) * 0.5


def test_nearest_words_come_in_order_and_each_sound_once(dictionary):
    found = dictionary.nearest(("HH", "EY"), 3)
    assert [word.text for _, word in found][:2] == ["hay", "day"]
    assert [far for far, _ in found] == sorted(far for far, _ in found)
    assert all(far >= 0.5 for far, _ in dictionary.nearest(("HH", "EY"), 3, least=0.5))


def test_a_phrase_is_read_in_lower_case_words_of_letters():
    assert read_phrase("  Hey   Robot ") == "hey robot"
    assert read_phrase("o'clock") == "o'clock"
    for text in ("", "  ", "route 66", "привет", "a/b", "../x", "hey\nrobot;"):
        if text != "hey\nrobot;":
            with pytest.raises(ConfigError, match="expected a phrase in English letters"):
                read_phrase(text)
    with pytest.raises(ConfigError):
        read_phrase("hey\nrobot;")


def test_pronunciations_come_from_the_dictionary_then_from_the_synthesizer(dictionary):
    assert phrase_of("hey robot", dictionary).words == (("HH", "EY"), ("R", "OW", "B", "AA", "T"))
    snowboy = phrase_of("snowboy", dictionary)
    assert snowboy.words == (("S", "N", "OW", "B", "OY"),) and snowboy.n_syllables == 2
    given = phrase_of("snowboy", dictionary, snowboy="/snˈuːbɔɪ/")
    assert given.words == (("S", "N", "UW", "B", "OY"),) and given.ipa == "snˈuːbɔɪ"
    respelled = phrase_of("snowboy", dictionary, snowboy="hey robot")
    assert respelled.text == "snowboy" and respelled.spoken == "hey robot" and len(respelled.words) == 2
    with pytest.raises(ConfigError, match="expected a pronunciation of 'snowboy'"):
        phrase_of("snowboy", dictionary, snowboy="/123/")


def test_unfit_phrases_are_refused_and_others_warned_of(dictionary):
    (short,) = [one for one in advice(phrase_of("hey", dictionary), dictionary) if one.refused]
    assert "too short: 2 sounds in 1 syllable" in short.text
    (common,) = [one for one in advice(phrase_of("good morning", dictionary), dictionary) if "common" in one.text]
    assert not common.refused and "hey good morning" in common.text
    assert advice(phrase_of("hey robot", dictionary), dictionary) == []
    long = phrase_of("computer computer computer computer", dictionary)
    assert any(one.refused and "too long" in one.text for one in advice(long, dictionary))
    assert [one.text for one in known(["hey robot", "snowboy"], dictionary)] == ["hey robot"]


def test_near_phrases_resemble_the_phrase_and_never_hold_it(dictionary):
    phrase = phrase_of("hey robot", dictionary)
    near = near_phrases(phrase, dictionary)
    texts = {kind: [one.text for one in several] for kind, several in near.items()}
    assert any(text.startswith("what about") for text in texts["parts"])
    assert "robot hey" in texts["halves"] and "/hˈeɪ/" in texts["halves"]
    everything = [text for several in texts.values() for text in several]
    assert len(everything) == len(set(everything)) and "hey robot" not in everything
    assert {"day robot", "hey roebuck", "robot"} <= {*everything}
    assert not {"hay robot", "hey robots"} & {*everything}  # the same sounds, and one sound more
    for kind in ("words", "replaced"):
        assert [one.distance for one in near[kind]] == sorted(one.distance for one in near[kind])
        assert all(one.distance >= 1 for one in near[kind])


def test_syllables_are_cut_before_the_consonant_of_their_vowel():
    assert split_syllables("ɐlˈɛksə") == ["ɐ", "lˈɛk", "sə"]
    assert split_syllables("hˈeɪ ɹˈoʊbɑːt") == ["hˈeɪ ", "ɹˈoʊ", "bɑːt"]
    assert split_syllables("st") == ["st"]
    assert holds(("A", "B", "C"), ("B", "C")) and not holds(("A", "B", "C"), ("A", "C"))
