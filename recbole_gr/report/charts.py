"""Figures of a page, as plain data in the form of Plotly, which draws them in the browser.

Colours are those of Okabe and Ito, which people tell apart who see fewer of them; what stands
beside another differs by its mark or its dashes too. "ink" is the colour of text, which the page
knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c8c8c")
_MARKS = ("circle", "square", "diamond", "triangle-up", "x", "star", "pentagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

Figure = dict[str, Any]


def intervals(
    names: Sequence[str],
    values: Sequence[float | None],
    ends: Sequence[Sequence[float] | None],
    title: str,
    line: float | None = None,
) -> Figure:
    """Values with their intervals, one row a name, from the top down.

    Args:
        names: of the rows.
        values: None where there is none.
        ends: low and high of each; None where it is not known.
        title: of the axis.
        line: a value to compare with, dotted.
    """
    known = [(low_high or (value, value)) for low_high, value in zip(ends, values)]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": list(values),
        "y": list(names),
        "marker": {"size": 9, "color": COLOURS[0]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [_less(high, value) for (_, high), value in zip(known, values)],
            "arrayminus": [_less(value, low) for (low, _), value in zip(known, values)],
            "color": COLOURS[0],
            "thickness": 1.6,
            "width": 5,
        },
        "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
    }
    layout: Figure = {
        "title": {"text": title, "font": {"size": 13}},
        "yaxis": {"autorange": "reversed", "type": "category", "ticklabelstandoff": 6},
        "showlegend": False,
    }
    if line is not None:
        layout["shapes"] = [_line("x", line)]
    return {"data": [trace], "layout": layout}


def curves(
    lines: Mapping[str, tuple[Sequence[Any], Sequence[float | None]]],
    title: str,
    x_title: str = "epoch",
    marks: Iterable[float] = (),
    whole: bool = True,
) -> Figure:
    """Lines over numbers, told apart by colour, mark and dashes.

    Args:
        lines: x and y by name; None leaves a gap.
        title: what y is.
        x_title: what x is.
        marks: values of x to mark with a dotted line.
        whole: whether x is of whole numbers.
    """
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": list(x),
            "y": list(y),
            "line": {"color": _nth(COLOURS, number), "dash": _nth(_DASHES, number)},
            "marker": {"symbol": _nth(_MARKS, number), "size": 6},
        }
        for number, (name, (x, y)) in enumerate(lines.items())
    ]
    places = [value for x, _ in lines.values() for value in x] if whole else []
    step = {"dtick": max(1, math.ceil((max(places) - min(places)) / 8))} if places else {}
    layout: Figure = {
        "title": {"text": title, "font": {"size": 13}},
        "xaxis": {"title": {"text": x_title}, **step},
        "showlegend": len(traces) > 1,
        "shapes": [_line("x", value) for value in marks],
    }
    return {"data": traces, "layout": layout}


def bars(groups: Mapping[str, tuple[Sequence[str], Sequence[float | None]]], title: str) -> Figure:
    """Bars over names, those of a group in one colour."""
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": list(names),
            "y": list(values),
            "marker": {"color": _nth(COLOURS, number)},
        }
        for number, (name, (names, values)) in enumerate(groups.items())
    ]
    layout: Figure = {
        "title": {"text": title, "font": {"size": 13}},
        "xaxis": {"type": "category"},
        "showlegend": len(traces) > 1,
    }
    return {"data": traces, "layout": layout}


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
        "title": {"text": title, "font": {"size": 13}},
        "xaxis": {"title": {"text": "code"}, "showgrid": False},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
        "showlegend": bool(points),
    }
    return {"data": traces, "layout": layout}


def _line(axis: str, value: float) -> Figure:
    other = "y" if axis == "x" else "x"
    across = {f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    ends = {f"{axis}0": value, f"{axis}1": value}
    style = {"color": "#8c8c8c", "dash": "dot", "width": 1.4}
    return {"type": "line", **ends, **across, "line": style, "layer": "below"}


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _nth(values: Sequence[str], number: int) -> str:
    return values[number % len(values)]
