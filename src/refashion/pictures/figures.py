"""What all drawings share: an empty figure, its colours, and PNG files of it."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110
TRAIN, VALIDATION, WRONG = "#1f5fa8", "#e0802b", "#c22f2f"


def blank(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def plain(axes: Axes) -> None:
    """Leave a light grid behind the data, and no frame above and to the right of it."""
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """Render a figure; the same figure gives the same bytes."""
    file = BytesIO()
    # The canvas's own method draws once; savefig draws twice for the same picture.
    FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 2})
    return file.getvalue()


def save(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as ``folder``/NAME.png; the folder exists."""
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png(figure))
