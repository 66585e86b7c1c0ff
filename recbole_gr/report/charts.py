"""Figures of a page, as plain data in the form of Plotly, which draws them in the browser.

Colours are those of Okabe and Ito, which people tell apart who see fewer of them; what stands
beside another differs by its mark or its dashes too. Names are texts, in which nothing is markup.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c8c8c")
_MARKS = ("circle", "square", "diamond", "triangle-up", "x", "star", "pentagon")
_LINE = 26  # letters of a line of a name
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

Figure = dict[str, Any]


def intervals(
    names: Sequence[str],
    groups: Mapping[str, tuple[Sequence[float | None], Sequence[Sequence[float] | None]]],
    title: str,
    line: float | None = None,
) -> Figure:
    """Values with their intervals, a row a name from the top down; groups stand apart in a row, so
    that none hides another.

    Args:
        names: of the rows.
        groups: by name the values, None where there is none, and the low and high end of each, None
            where it is not known.
        title: what the values are.
        line: a value to compare with, dotted.
    """
    traces = []
    for number, (group, (values, ends)) in enumerate(groups.items()):
        known = [low_high or (value, value) for low_high, value in zip(ends, values)]
        apart = 0.62 * ((number + 0.5) / len(groups) - 0.5)
        colour = _nth(COLOURS, number)
        shown = {"symbol": _nth(_MARKS, number), "size": 9, "color": colour}
        reach = {
            "type": "data",
            "symmetric": False,
            "array": [_less(high, value) for (_, high), value in zip(known, values)],
            "arrayminus": [_less(value, low) for (low, _), value in zip(known, values)],
            "color": colour,
            "thickness": 1.6,
            "width": 4,
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": _shown(group),
                "x": list(values),
                "y": [place + apart for place in range(len(names))],
                "text": list(map(_text, names)),
                "marker": shown,
                "error_x": reach,
                "hovertemplate": "%{text}: %{x:.4f}<extra>" + _text(group) + "</extra>",
            }
        )
    places = list(range(len(names)))
    layout: Figure = {
        "xaxis": {"nticks": 5, "tickangle": 0},
        "yaxis": {
            "range": [len(names) - 0.5, -0.5],
            "tickvals": places,
            "ticktext": list(map(_shown, names)),
            "zeroline": False,
            "showgrid": False,
        },
        "showlegend": len(groups) > 1,
        "shapes": [] if line is None else [_line("x", line)],
    }
    return {"title": title, "data": traces, "layout": layout}


def curves(
    lines: Mapping[str, tuple[Sequence[Any], Sequence[float | None]]],
    title: str,
    x_title: str = "epoch",
    marks: Iterable[float] = (),
) -> Figure:
    """Lines over whole numbers, told apart by colour, mark and dashes.

    Args:
        lines: x and y by name; None leaves a gap.
        title: what y is.
        x_title: what x is.
        marks: values of x to mark with a dotted line.
    """
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": _shown(name),
            "x": list(x),
            "y": list(y),
            "line": {"color": _nth(COLOURS, number), "dash": _nth(_DASHES, number)},
            "marker": {"symbol": _nth(_MARKS, number), "size": 6},
        }
        for number, (name, (x, y)) in enumerate(lines.items())
    ]
    places = [value for x, _ in lines.values() for value in x]
    step = {"dtick": max(1, math.ceil((max(places) - min(places)) / 8))} if places else {}
    layout: Figure = {
        "xaxis": {"title": {"text": x_title}, **step},
        "showlegend": len(traces) > 1,
        "shapes": [_line("x", value) for value in marks],
    }
    return {"title": title, "data": traces, "layout": layout}


def points(
    groups: Mapping[str, tuple[Sequence[Any], Sequence[Any]]],
    title: str,
    x_title: str,
    log: bool = False,
    names: Sequence[str] = (),
) -> Figure:
    """Points over numbers or names.

    Args:
        groups: x and y by name.
        title: what y is.
        x_title: what x is.
        log: whether x is on a scale of powers.
        names: what stands beside a point under the pointer, of the first group.
    """
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": _shown(name),
            "x": list(x),
            "y": list(y),
            "marker": {"color": _nth(COLOURS, number), "symbol": _nth(_MARKS, number), "size": 9},
        }
        for number, (name, (x, y)) in enumerate(groups.items())
    ]
    if names and traces:
        traces[0]["text"] = list(names)
    axis: Figure = {"title": {"text": x_title}, **({"type": "log"} if log else {})}
    layout: Figure = {"xaxis": axis, "showlegend": len(traces) > 1}
    return {"title": title, "data": traces, "layout": layout}


def bars(groups: Mapping[str, tuple[Sequence[str], Sequence[float | None]]], title: str) -> Figure:
    """Bars over names, those of a group in one colour."""
    traces = [
        {
            "type": "bar",
            "name": _shown(name),
            "x": list(names),
            "y": list(values),
            "marker": {"color": _nth(COLOURS, number)},
        }
        for number, (name, (names, values)) in enumerate(groups.items())
    ]
    layout: Figure = {
        "xaxis": {"type": "category"},
        "showlegend": len(traces) > 1,
    }
    return {"title": title, "data": traces, "layout": layout}


def heat_map(
    rows: Sequence[Sequence[float | None]],
    names: Sequence[str],
    title: str,
    ends: tuple[float, float],
    points: Sequence[int] = (),
    point_name: str = "",
    unit: str = "",
) -> Figure:
    """Numbers as colours, one row a name, with a cross in each row.

    Args:
        rows: the numbers; None where a row has none.
        names: of the rows.
        title: of the figure.
        ends: the values of the first and the last colour.
        points: the column of the cross of each row.
        point_name: what the crosses are.
        unit: what the colours are.
    """
    traces: list[Figure] = [
        {
            "type": "heatmap",
            "z": [list(row) for row in rows],
            "y": list(names),
            "zmin": ends[0],
            "zmax": ends[1],
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": unit, "side": "right"}, "thickness": 12},
        }
    ]
    if points:
        cross = {"symbol": "x", "color": COLOURS[1], "size": 9}
        place = {"x": list(points), "y": list(names)}
        traces.append(
            {"type": "scatter", "mode": "markers", "name": point_name, "marker": cross, **place}
        )
    layout = {
        "xaxis": {"title": {"text": "code"}, "showgrid": False},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
        "showlegend": bool(points),
    }
    return {"title": title, "data": traces, "layout": layout}


def _line(axis: str, value: float) -> Figure:
    other = "y" if axis == "x" else "x"
    across = {f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    ends = {f"{axis}0": value, f"{axis}1": value}
    style = {"color": "#8c8c8c", "dash": "dot", "width": 1.4}
    return {"type": "line", **ends, **across, "line": style, "layer": "below"}


def _text(name: str) -> str:
    """A name of which Plotly takes nothing for markup."""
    return html.escape(name, quote=False)


def _shown(name: str) -> str:
    """A name beside an axis or in a legend: two short lines, without its middle if it is longer."""
    lines = textwrap.wrap(name, _LINE)
    if len(lines) > 2:
        end = name[-_LINE:]
        whole = end.partition(" ")[2]  # from a word on, where that keeps most of it
        end = whole if len(whole) > _LINE // 2 else end
        lines = [f"{name[: _LINE - 2].rstrip()} \u2026", end.lstrip()]
    return "<br>".join(map(_text, lines))


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _nth(values: Sequence[str], number: int) -> str:
    return values[number % len(values)]
