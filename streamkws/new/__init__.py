"""streamkws new: a model of a phrase from its words alone.

phones.py        phones, a pronouncing dictionary, how alike two pronunciations are
phrase.py        a phrase with its sounds, and what speaks against it
near.py          what it must not be confused with
scripts.py       who says what
surroundings.py  made rooms, noise and music
own.py           what the user brings: takes, and sound without the phrase
training.py      the recipe of the training (recipe.toml), from the backbone
judge.py         thresholds and figures, by what was not trained on
report.py        what the user is told
making.py        all of it in order, from where it was stopped
"""
