"""What all pictures share: sizes, greys and hatches that survive a black-and-white printer, and how they are written.

No pyplot: nothing global, no windows. Colours are of Okabe and Ito's palette ("Color Universal Design", 2008), which
colour-blind people can tell apart, chosen so that they differ in brightness as well; each comes with a hatch or a
marker of its own.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from workers.protocol import Pass

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: By pass: colour, hatch, marker, how a line is drawn.
PASSES: Final = {
    Pass.FORWARD: ("#56b4e9", "", "o", "-"),
    Pass.FORWARD_BACKWARD: ("#0072b2", "///", "s", "--"),
    Pass.BACKWARD_DATA: ("#e69f00", "...", "^", ":"),
    Pass.BACKWARD_WEIGHTS: ("#d55e00", "xxx", "D", "-."),
}

#: What was published, and not measured here.
PUBLISHED: Final = "#dddddd"

#: Lines that are told apart by more than colour, in turns.
LINES: Final = (
    ("#000000", "o", "-"), ("#0072b2", "s", "--"), ("#d55e00", "^", ":"), ("#009e73", "D", "-."),
    ("#cc79a7", "v", "-"), ("#e69f00", "P", "--"), ("#56b4e9", "X", ":"), ("#666666", "*", "-."),
)  # fmt: skip

_FORMS: Final = ("png", "svg")

#: What is drawn is the same text in every process: identifiers come from this and not from chance.
_SALT: Final = "muster"

_DPI: Final = 150


def forms() -> tuple[str, ...]:
    """Return the forms that a picture can be written in."""
    return _FORMS


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size, inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes) -> None:
    """Take away what carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="both", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def written(figure: Figure, form: str) -> bytes:
    """Return the figure as PNG or SVG; the same figure gives the same bytes."""
    target = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(target, format=form, dpi=_DPI, metadata=metadata)
    return target.getvalue()
