"""How every picture looks and is written. The same figures give the same bytes.

Colours are Okabe and Ito's, which the colour-blind tell apart. What a colour says, a line style, a marker or a label
says too, so that a grey print holds everything.

Source: Okabe, Ito, "Color universal design", 2008.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from streamkws.errors import ConfigError
from streamkws.whole import write_whole

SUFFIXES = (".png", ".svg")
WIDTH_IN = 7.5  # what a page holds
DPI = 144
BLACK, BLUE, VERMILLION, ORANGE, GREEN = "#000000", "#0072b2", "#d55e00", "#e69f00", "#009e73"
GREY, PALE = "#666666", "#ececec"
SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 7.5,
    "grid.color": "#d8d8d8",
    "grid.linewidth": 0.5,
    "image.composite_image": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.0,
    "savefig.dpi": DPI,
    "svg.fonttype": "none",
    "svg.hashsalt": "streamkws",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}

SCORE_LIMITS = (0.01, 0.9999)  # of logit axes; what lies beyond is drawn there


def picture_path(name: str | os.PathLike[str]) -> Path:
    """Return the path of a picture to write.

    Raises ConfigError for a name that ends in neither .png nor .svg, or in a folder that does not exist.
    """
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: expected the name of a picture, which ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: expected a folder that exists, {path.parent} does not")
    return path


def save(figure: Figure, name: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG or SVG, as the name ends, and return its path.

    Raises ConfigError for another name, OSError when it cannot be written.
    """
    path = picture_path(name)
    with picture_style():
        if path.suffix.lower() == ".png":
            picture = io.BytesIO()
            figure.savefig(picture, format="png", metadata={"Software": "streamkws"})
            write_whole(path, picture.getvalue())
        else:
            drawn = io.StringIO()
            figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": "streamkws"})
            # hundredths of a point, and no indentation: a third fewer bytes
            text = re.sub(r' d="[^"]+"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), drawn.getvalue())
            write_whole(path, re.sub(r"\n +", "\n", text).encode())
    return path


@contextmanager
def picture_style() -> Iterator[None]:
    """Use the pictures' own settings instead of the user's. A character that the font lacks becomes a box, silently."""
    with matplotlib.style.context(["default", SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def shortened(text: str, n_characters: int) -> str:
    """A text of any origin as it can be drawn: without line ends and surrogates, its middle left out if it is long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= n_characters:
        return text
    return f"{text[: n_characters // 2]}…{text[-(n_characters // 2 - 1) :]}"
