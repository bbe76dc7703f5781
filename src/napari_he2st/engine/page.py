"""What self-contained web pages are made of: style, pictures, cells."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { margin-bottom: 0 } .note { color: #666 } .warning { background: #fff3cd; padding: .5rem 1rem }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .2rem .7rem; text-align: right }
th { border-bottom: 2px solid #888 } tr:nth-child(even) td { background: #f6f6f6 } td { overflow-wrap: anywhere }
td:first-child, th:first-child { text-align: left } img { max-width: 100% }
.columns { display: flex; flex-wrap: wrap; gap: 2rem }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page from pieces of HTML."""
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def rows_of(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table with a head; values are written as :func:`text_of` does."""
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(text_of(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def text_of(value: Any) -> str:
    """A value as a person reads it; a dash for what is unknown."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def draw_boxes(axes: Axes, values: Sequence[NDArray], names: Sequence[str], width: float) -> None:
    """One lying box per name, the first on top, with a line at zero; a name without values has an empty place."""
    axes.boxplot(
        [known if len(known) else np.array([np.nan]) for known in values],
        positions=np.arange(len(names)),
        orientation="horizontal",
        widths=width,
        showmeans=True,
        showfliers=False,
        tick_labels=names,
    )
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.invert_yaxis()


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def picture(figure: Figure, text: str) -> str:
    """A figure inside the page, with words for those who do not see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(text)}' src='data:image/png;base64,{data}'>"
