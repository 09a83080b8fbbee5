"""Pictures, PNG or SVG: what a detector made of a recording (trace), DET curves (det), and how they look (style)."""

from streamkws.errors import MissingExtraError

try:
    import matplotlib  # noqa: F401
except ImportError:
    raise MissingExtraError('pictures need matplotlib: pip install "streamkws[plot]"') from None

from streamkws.evaluation.plots.det import draw_det
from streamkws.evaluation.plots.style import picture_path, save
from streamkws.evaluation.plots.trace import draw_trace

__all__ = ["draw_det", "draw_trace", "picture_path", "save"]
