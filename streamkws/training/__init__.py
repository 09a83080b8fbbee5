"""Training: recordings in, model files out. Needs PyTorch, the extra `train`.

recipe.py           the sections of a recipe as dataclasses; recipe_file.py reads the TOML file
stages.py           the stages of a recipe, and what each needs; chain.py runs them; provenance.py describes them
loop.py             train: the loop, from a recipe to a checkpoint
losses.py           what is minimized; teacher.py and ensemble.py: networks to learn from
pool.py             the latest examples, and batches of them; producer.py: the process that makes examples
optimizer.py        a step, the learning rate, the average of the weights, when quantization sets in
validation.py       misses while a network trains; progress.py shows them and writes the log
checkpoint.py       states on disk; export.py writes models from them
network.py          the network in PyTorch; fake_quant.py quantizes in it
data.py             [data]; recordings.py reads what it names; blocks.py: examples as arrays
examples.py         examples from recordings; sound.py, augment.py and devices.py change how they sound
pack.py             packs of features, small and without sound; packed.py: examples from them
"""

from importlib.util import find_spec

from streamkws.errors import MissingExtraError

if find_spec("torch") is None:  # found, not imported: the process that makes examples does without it
    raise MissingExtraError('training needs PyTorch: pip install "streamkws[train]"')
