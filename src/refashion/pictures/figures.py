"""What all drawings share: empty figures, colours, heat maps, and PNG files."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 110
COLOURS = ("#1f5fa8", "#e0802b", "#3c8d40", "#c22f2f", "#7b52ab", "#4a4a4a", "#b8860b", "#2a9d9d")
TRAIN, VALIDATION, WRONG = COLOURS[0], COLOURS[1], COLOURS[3]

matplotlib.rcdefaults()  # a user's own style may ask for LaTeX


def blank(width: float, height: float, title: str) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def plain(*several: Axes) -> None:
    """Put a light grid behind the data, no frame above and to the right, and name what is drawn."""
    for axes in several:
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)


def heat_map(
    axes: Axes, values: np.ndarray, cells: Mapping[tuple[int, int], str], label: str, **how: Any
) -> None:
    """Draw a matrix by `Axes.imshow`, with texts in its cells and a colour bar."""
    image = axes.imshow(values, **how)
    dark = image.to_rgba(values)[..., :3].mean(2) < 0.5
    for (i, j), text in cells.items():
        colour = "0.75" if text == "0" else "white" if dark[i, j] else "0.15"
        centred = axes.text(j, i, text, ha="center", va="center", in_layout=False)
        centred.set(color=colour, fontsize=8.5)
    axes.tick_params(length=0)
    image.figure.colorbar(image, label=label, shrink=0.8, format="{x:g}")


def png(figure: Figure) -> bytes:
    """Render a figure; the same figure gives the same bytes."""
    file = BytesIO()
    with matplotlib.rc_context({"text.parse_math": False}):  # a name may have dollar signs
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        # The canvas's own method draws once; savefig draws twice for the same picture.
        FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 2})
    return file.getvalue()
