"""How every picture looks, and how it becomes SVG inside a page: the same bytes for the same data."""

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar
from xml.sax.saxutils import quoteattr

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# One paper-white page; hues that stay apart for colour-blind readers, and a line style or marker beside each.
INK: Final = "#1c2733"
MUTED: Final = "#5a6775"
GRID: Final = "#e3e7eb"
PRIVATE: Final = "#0f5c78"
POOLED: Final = "#1c2733"
FEDERATED: Final = "#4f9a94"
OPACUS: Final = "#a8741a"
GOOD: Final = "#3b7ea1"
BAD: Final = "#b4492e"
SERIES: Final = ("#0f5c78", "#d0973b", "#8a4f7d", "#6b7f3a", "#7a8794")

# 360 units wide at size 9.5: readable at the width of a phone, where the picture is not scaled down.
WIDTH_INCHES: Final = 5.0
HEIGHT_INCHES: Final = 3.9
STYLE: Final[Any] = {  # Any: the keys are a closed set that only matplotlib can spell
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#aab4be",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#aab4be",
    "ytick.color": "#aab4be",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "legend.handlelength": 1.8,
    "text.color": INK,
    "lines.linewidth": 1.8,
}


def new_picture(height_inches: float = HEIGHT_INCHES) -> tuple[Figure, Axes]:
    """An empty figure of the page's width, and its axes; nobody else's: no pyplot, no shared state."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    return figure, figure.add_subplot()


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """`draw` with the page's style in force: matplotlib reads it whenever an artist is made."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def inline_svg(figure: Figure, name: str, description: str, *, not_private: bool) -> str:
    """The figure as one `<svg>` element, for a page with other pictures in it.

    `name` makes identifiers unique in the page; `description` is read to people who do not see the picture.
    A picture travels without its page, so a run that protects nobody says so in each.
    """
    if not_private:
        figure.text(0.005, 0.005, "NOT PRIVATE", color=BAD, fontsize=8, weight="bold")
        description = f"NOT PRIVATE. {description}"
    out = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page's own type face
    svg = _only_referenced_ids(svg, prefix=f"{name}-")
    svg = re.sub(r"<[^>]*>", lambda tag: _shorter(tag[0]), svg)
    svg = re.sub(r">\s+<", "><", svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None, "matplotlib always writes a viewBox"  # noqa: S101 (for the type checker)
    head = f'<svg {view_box[0]} role="img" aria-label={quoteattr(description)} focusable="false">'
    return re.sub(r"^<svg\b[^>]*>", lambda _: head, svg).strip()


def _shorter(tag: str) -> str:
    """Coordinates to a hundredth of a unit; the text between tags is left alone."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag)


def _only_referenced_ids(svg: str, prefix: str) -> str:
    """Identifiers are one name space in a page: those that something refers to, under a name of their own."""
    wanted = set(re.findall(r'xlink:href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in wanted else "", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
