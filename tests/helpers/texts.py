"""Texts of a figure: where they lie, and what is wrong with that."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Text

SMALLEST = 6.5  # points


def in_view(fig: Figure) -> list[Text]:
    """Return every text that is drawn, tick labels included.

    Texts of ticks outside the limits are left out, which matplotlib keeps.
    """
    hidden = set()
    for ax in fig.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not (ax.axison and min(limits) <= tick.get_loc() <= max(limits)):
                    hidden |= {tick.label1, tick.label2}
    found = [
        t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden
    ]
    return [t for t in found if t.get_window_extent().width > 1]


def faults(fig: Figure) -> list[str]:
    """Return what is wrong: texts that overlap, that leave the page, that are too small."""
    fig.draw_without_rendering()
    seen = in_view(fig)
    boxes = [(t.get_text(), t.get_window_extent()) for t in seen]
    found = []
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide >= 2 and high >= 2:
            found.append(f"{one!r} and {two!r} overlap by {wide:.0f} × {high:.0f} pixels")
    for legend in fig.legends:
        a, inside = legend.get_window_extent(), set(legend.findobj(Text))
        found += [
            f"{t.get_text()!r} meets the legend"
            for t in seen
            if t not in inside and a.overlaps(t.get_window_extent())
        ]
    page = fig.get_window_extent()
    margin = 0.02 * page.width
    for text, box in boxes:
        inside = -margin <= box.x0 and box.x1 <= page.width + margin
        inside &= -margin <= box.y0 and box.y1 <= page.height + margin
        found += [] if inside else [f"{text!r} leaves the page"]
    found += [f"{t.get_text()!r} is too small" for t in seen if t.get_fontsize() < SMALLEST]
    return found
