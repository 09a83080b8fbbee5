"""Sources: where audio comes from, as iterables of 16 kHz mono blocks.

files: AudioSource, the interface of every source; recordings, raw samples from a pipe, blocks somebody else makes.
devices: the audio inputs of this machine, and how one is found by its name.
microphone: Microphone, which records an input and opens it again when it was lost.
recording: one opening of an input: PortAudio's callback, the blocks that wait, what was lost.
playback: Playback, which plays samples by an output.
portaudio: the only module that imports sounddevice, when it is needed.
"""

from streamkws.sources.devices import InputDevice, input_devices, open_rates
from streamkws.sources.files import AudioSource, Blocks, FileSource, RawSource, Source, open_source
from streamkws.sources.microphone import Microphone
from streamkws.sources.playback import Playback

__all__ = [
    "AudioSource",
    "Blocks",
    "FileSource",
    "InputDevice",
    "Microphone",
    "Playback",
    "RawSource",
    "Source",
    "input_devices",
    "open_rates",
    "open_source",
]
