"""The ratios as a picture: a bar for each server and piece of work, right of the line where it is faster."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from bench.report import Results

BASE = "rest-server"
COLOURS = {"resticd": "#1f6feb", "resticd:--workers 2": "#79b8ff", "rclone": "#b0b0b0"}
#: Where the scale, which is logarithmic, ends on both sides.
LEAST, MOST = 1 / 16, 16
LABELS, WIDTH, BAR, GAP = 260, 560, 9, 10


def picture(results: Results) -> str:
    """An SVG of every row that both the base and another server have."""
    parts: list[str] = []
    y = 40.0
    for row, peers in results.items():
        others = [name for name in COLOURS if name in peers]
        if BASE not in peers or not others:
            continue
        parts.append(_text(LABELS - 8, y + BAR * len(others) / 2 + 4, row, "end"))
        for name in others:
            value = _ratio(results, row, name)
            start, end = sorted((_x(1), _x(value)))
            size = f'width="{end - start:.1f}" height="{BAR - 1}"'
            parts.append(f'<rect x="{start:.1f}" y="{y:.1f}" {size} fill="{COLOURS[name]}"/>')
            anchor, shift = ("start", 4) if value >= 1 else ("end", -4)
            parts.append(_text(_x(value) + shift, y + BAR - 1.5, f"{value:.2f}", anchor, size=8))
            y += BAR
        y += GAP
    scale = [_line(_x(value), y) + _text(_x(value), 30, f"{value:g}×", "middle", size=9) for value in _ticks()]
    legend = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        x = LABELS + number * 180
        legend.append(f'<rect x="{x}" y="{y:.1f}" width="10" height="10" fill="{colour}"/>')
        legend.append(_text(x + 14, y + 9, name.replace(":", " "), "start"))
    height = y + 24
    title = _text(LABELS, 14, f"Speed relative to {BASE}", "start", size=13)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABELS + WIDTH}" height="{height:.0f}" '
            'font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
            *(title, *scale, *parts, *legend),
            "</svg>\n",
        ]
    )


def _ratio(results: Results, row: str, name: str) -> float:
    own, base = (median(sample.value for sample in results[row][which]) for which in (name, BASE))
    return base / own if results[row][name][0].unit == "s" else own / base


def _ticks() -> list[float]:
    return [2.0**power for power in range(-4, 5)]


def _x(value: float) -> float:
    place = math.log(min(max(value, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LABELS + 20 + place * (WIDTH - 60)


def _text(x: float, y: float, text: str, anchor: str, size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _line(x: float, bottom: float) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="36" y2="{bottom:.1f}" stroke="#dddddd"/>'
