"""What all pictures share: sizes, greys and hatches that survive a black-and-white printer, and how they are written.

No pyplot: nothing global, no windows. Colours are of Okabe and Ito's palette ("Color Universal Design", 2008), which
colour-blind people can tell apart, chosen so that they differ in brightness as well; each comes with a hatch or a
marker of its own.
"""

from __future__ import annotations

import contextlib
import enum
import io
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from orchestrator.report.printable import printable
from workers.protocol import Pass

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes

    from orchestrator.results import Run

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


#: Colours of the lines, letters and paper of a picture on a dark page; the light one is matplotlib's own.
_DARK: Final[dict[Any, Any]] = {
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "lines.color"), "#ececec"
    ),
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), "#161616"),
}


class Theme(str, enum.Enum):
    """On what a picture is looked at."""

    LIGHT = "light"
    DARK = "dark"


def drawn_for(theme: Theme) -> AbstractContextManager[None]:
    """Return a context within which pictures are drawn and written for such a page; one thread at a time."""
    return mpl.rc_context(_DARK) if theme is Theme.DARK else contextlib.nullcontext()


def shown(text: str) -> str:
    """Return a text from a config or a host for a picture, where ``$`` would begin a formula."""
    return printable(text).replace("$", r"\$")


def heading(run: Run) -> str:
    """Return what stands above a picture of a run."""
    return shown(f"{run.name}, run {run.id}{', simulated' if run.simulated else ''}")


def ink() -> str:
    """Return the colour of lines and letters."""
    return str(mpl.rcParams["text.color"])


def faint(share: float) -> str:
    """Return a grey that is so far from the ink towards the paper: 0 is ink, 1 is paper."""
    paper, dark = to_rgb(mpl.rcParams["figure.facecolor"]), to_rgb(ink())
    red, green, blue = (low + share * (high - low) for low, high in zip(dark, paper, strict=True))
    return to_hex((red, green, blue))


def line(number: int) -> tuple[str, str, str]:
    """Return the colour, marker and dashes of a picture's line of that number."""
    colour, marker, dashes = LINES[number % len(LINES)]
    return (ink() if colour == "#000000" else colour), marker, dashes


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
    axes.grid(visible=True, axis="both", color=faint(0.9), linewidth=0.6)
    axes.set_axisbelow(True)


def written(figure: Figure, form: str) -> bytes:
    """Return the figure as PNG or SVG; the same figure gives the same bytes."""
    target = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(target, format=form, dpi=_DPI, metadata=metadata)
    return target.getvalue()
