"""What all drawings share: empty figures, colours, and PNG files."""

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110
TRAIN, VALIDATION, WRONG = "#1f5fa8", "#e0802b", "#c22f2f"


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


def png(figure: Figure) -> bytes:
    """Render a figure; the same figure gives the same bytes."""
    file = BytesIO()
    # The canvas's own method draws once; savefig draws twice for the same picture.
    FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 2})
    return file.getvalue()
