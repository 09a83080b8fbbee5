"""What synthesized speakers say: keywords, and phrases that resemble the six words of the shipped model."""

from __future__ import annotations

from collections.abc import Sequence

KEYWORDS = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
CONFUSABLE = (
    # alexa
    "alex", "alexis", "election", "electric", "a lettuce", "elect her", "a lecture", "all eggs are", "lexicon", "Texas",
    "Alaska", "Melissa", "unless a", "electra", "relax a bit", "I'll ask her", "collects a", "selects a",
    # computer
    "commuter", "compute", "competitor", "come here later", "compete", "contributor", "computing", "can you do it",
    "compute a score", "reporter", "company", "complete her", "commute", "suitor", "tutor", "pewter", "communicator",
    "come to tea", "contour", "conduct her", "disputed", "neuter", "conjure",
    # jarvis
    "service", "harvest", "java is", "travis", "Davis", "jar of this", "charge us", "carve this", "marvelous", "jars",
    "starve us", "jarring", "Elvis", "Charles is", "John is", "nervous", "Jarrett", "chart this", "gravis", "tardis",
    # smart mirror
    "smart", "mirror", "smart phone", "smarter", "start near her", "small mirror", "smart meter", "market", "nearer",
    "marmalade", "smart manner", "art mirror", "Mark Miller", "sport mirror", "the mirror", "smart one", "my mirror",
    "smile at her", "smart men are", "minor", "broken mirror", "rear view mirror", "smart television",
    # snowboy
    "snow", "boy", "snowball", "cowboy", "no boy", "snow day", "slow boy", "snowy", "so boy", "noble", "snowman",
    "show boy", "playboy", "small boy", "oh boy", "snowboard", "snow boots", "the boy", "know boys", "enjoy", "annoy",
    "snow plow", "sonar buoy", "tomboy", "bellboy",
    # view glass
    "view", "glass", "few glasses", "new class", "blue grass", "view the glass", "fuel gas", "you guess", "viewer",
    "looking glass", "glasses", "view class", "view grass", "value glass", "beautiful glass", "review class",
    "hourglass", "viewing", "interview", "a glass of water", "wine glass", "few guests",
    # parts in a row
    "alex commuter", "view mirror", "smart glass", "snow glass", "boy alex", "mirror boy", "smart boy", "snow mirror",
)  # fmt: skip
MORE_CONFUSABLE = (
    *CONFUSABLE,
    # alexa
    "a legs up", "the lexicons", "elixir", "a flexible", "eggs are", "a letter", "all lacks", "elects the", "plexus",
    "reflects a", "Alec", "taxi", "galaxy", "a lesser", "annexes a", "lessons", "a Tesla", "a wrecked car",
    # computer
    "compact her", "come to her", "pewter mug", "refuter", "recruiter", "the shooter", "compound", "complaint",
    "combine", "confuse her", "commuted", "computed", "computes", "a scooter", "come due to", "comb through her",
    # jarvis
    "jar", "jargon", "Marcus", "Garfield", "Harris", "surface", "novice", "carve it", "garnish", "tarnish", "charm us",
    "jarful", "John's vice", "chalices", "Paris", "Jack is", "Jeffries", "darkness", "large vase", "jaw bone",
    # smart mirror
    "smart mayor", "smart mop", "chart maker", "start near", "smart mailer", "Bart Miller", "smart murmur",
    "hearts near", "a mirage", "dirt mirror", "what a mirror", "sharp mirror", "smart neighbour", "smart military",
    "smart dinner", "smart era", "mirror me", "smart metal", "smart watch", "smart speaker", "smart window",
    # snowboy
    "snow boar", "snow voice", "slow buoy", "no boil", "snow bound", "snow bike", "this no boy", "snow pile",
    "sowed oil", "snow toy", "know boring", "sewn by", "snow by", "zone boy", "stone boy", "phone boy", "son of a boy",
    "sold boy", "home boy", "flow by", "a low point", "go by", "snow box",
    # view glass
    "view gas", "dew glass", "new glass", "two glasses", "few grass", "blue class", "view glance", "view gloss",
    "you glance", "few lasses", "true glass", "views pass", "view clause", "fuel class", "view a glass", "hue glass",
    "the last view", "mew glass", "view cast", "who glass", "view the grass", "view blast",
)  # fmt: skip
"""Those of a speaker's second file, which also holds pairs of words and sentences drawn at random."""

NAMES = (
    "Adela", "Agatha", "Alberta", "Amanda", "Anita", "Antonia", "Aurora", "Belinda", "Bernardo", "Bettina", "Bianca",
    "Camilla", "Carlotta", "Cecilia", "Christina", "Clarissa", "Claudia", "Cordelia", "Dakota", "Delilah", "Denisa",
    "Diego", "Dolores", "Dominic", "Edwina", "Elena", "Eliza", "Emilio", "Eugene", "Fabian", "Felicia", "Fiona",
    "Francisco", "Gabriel", "Georgia", "Gilbert", "Giselle", "Gregory", "Hannah", "Helena", "Hugo", "Ingrid", "Isabel",
    "Ivana", "Jacob", "Jasmine", "Jeremy", "Joanna", "Josephine", "Julian", "Katrina", "Kimberley", "Lavinia", "Leo",
    "Leonora", "Lorenzo", "Lucinda", "Madonna", "Marcus", "Marina", "Matilda", "Maxwell", "Melinda", "Michaela",
    "Miranda", "Mohammed", "Monica", "Natasha", "Nelson", "Nicola", "Octavia", "Oliver", "Olivia", "Ophelia", "Pamela",
    "Patricia", "Penelope", "Priscilla", "Ramona", "Rebecca", "Regina", "Ricardo", "Rosanna", "Sabrina", "Samantha",
    "Sebastian", "Serena", "Sienna", "Sophia", "Stella", "Susanna", "Tabitha", "Tamara", "Theresa", "Tobias", "Valeria",
    "Vanessa", "Veronica", "Victoria", "Viola", "Vivian", "Wilhelmina", "Winston", "Yolanda", "Zachary", "Zelda",
)  # fmt: skip
"""Words said alone that resemble keywords in length and rhythm only."""


def without_keywords(phrases: Sequence[str], keywords: Sequence[str]) -> list[str]:
    """The phrases in which no keyword occurs, and the single words of keywords of several words.

    For other keywords than the shipped six, these words are all that resembles them; the table knows no others.
    """
    parts = [word for keyword in keywords for word in keyword.split()]
    said = dict.fromkeys([*phrases, *parts])
    return [phrase for phrase in said if not any(keyword in phrase.lower() for keyword in keywords)]
