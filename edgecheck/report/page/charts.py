"""How the page's charts look: Vega-Lite specifications without data.

The page's script fills in data and draws. Colours are the page's custom properties, so that a chart
follows its light and dark style.
"""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
PALETTE = [f"var(--series-{number})" for number in range(1, 7)]

_INK, _MUTED, _LINE = "var(--ink)", "var(--muted)", "var(--line)"
_ACCENT, _FAILED = "var(--accent)", "var(--failed)"

CONFIG: Spec = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _MUTED,
        "titleColor": _MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "gridColor": _LINE,
        "domainColor": _LINE,
        "tickColor": _LINE,
        "labelOverlap": "greedy",
        "labelSeparation": 10,
    },
    "legend": {
        "labelColor": _INK,
        "titleColor": _MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "symbolStrokeWidth": 0,
        "symbolBaseFillColor": _MUTED,
        "orient": "bottom",
        "columns": 2,
    },
    "text": {"color": _INK},
    "range": {"category": PALETTE},
}


def specs() -> dict[str, Spec]:
    """All kinds of charts by name; the data sets that each draws are named in it."""
    found = {
        "latency": _latency(),
        "errors": _errors(),
        "growth": _growth(),
        "live": _live(),
        "front": _front(),
        "trend": _trend(),
    }
    common = {"$schema": _SCHEMA, "width": "container", "autosize": {"type": "fit-x"}}
    return {name: {**common, **spec, "config": CONFIG} for name, spec in found.items()}


def _quantity(field: str, title: str, **options: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **options}


def _latency() -> Spec:
    bars: Spec = {
        "data": {"name": "values"},
        "mark": {"type": "bar", "binSpacing": 0, "opacity": 0.55},
        "encoding": {
            "x": _quantity("from", "time of one inference", bin="binned", scale={"zero": False}),
            "x2": {"field": "to"},
            "y": _quantity("samples", "samples", stack=None),
            "color": {
                "field": "series",
                "type": "nominal",
                "title": None,
                "scale": {"domain": ["wall time", "CPU time"], "range": PALETTE[:2]},
            },
            "tooltip": [
                {"field": "series", "title": "series"},
                {"field": "from", "title": "from"},
                {"field": "to", "title": "to"},
                {"field": "samples", "title": "samples"},
            ],
        },
    }
    return {"height": 180, "layer": [bars, *_marks()]}


def _marks() -> list[Spec]:
    """Vertical lines at quantiles and limits, each with its name."""
    at = _quantity("at", "")
    return [
        {
            "data": {"name": "marks"},
            "mark": {"type": "rule", "color": _INK, "strokeDash": [4, 3]},
            "encoding": {"x": at, "tooltip": [{"field": "mark"}, {"field": "at"}]},
        },
        {
            "data": {"name": "marks"},
            "mark": {"type": "text", "angle": 270, "align": "right", "dy": -6, "fontSize": 11},
            "encoding": {"x": at, "y": {"value": 4}, "text": {"field": "mark"}},
        },
    ]


def _errors() -> Spec:
    return {
        "height": 160,
        "data": {"name": "values"},
        "mark": {"type": "bar", "binSpacing": 0, "color": _ACCENT},
        "encoding": {
            "x": _quantity("from", "error", bin="binned", axis={"format": ".2~g"}),
            "x2": {"field": "to"},
            "y": _quantity("elements", "elements", scale={"type": "symlog"}),
            "tooltip": [{"field": name} for name in ("from", "to", "elements")],
        },
    }


def _growth() -> Spec:
    return {
        "height": 140,
        "data": {"name": "values"},
        "mark": {"type": "line", "interpolate": "step-after", "point": {"size": 12}},
        "encoding": {
            "x": _quantity("inferences", "inferences"),
            "y": _quantity("kB", "kB"),
            "color": {"value": _ACCENT},
            "tooltip": [{"field": "inferences"}, {"field": "kB"}],
        },
    }


def _live() -> Spec:
    return {
        "height": 160,
        "data": {"name": "values"},
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "x": _quantity("kB", "kB"),
            "y": {
                "field": "tensor",
                "type": "nominal",
                "title": None,
                "sort": None,
                "axis": {"labelLimit": 220},
            },
            "color": {"value": _ACCENT},
            "tooltip": [{"field": name} for name in ("tensor", "type", "kB")],
        },
    }


def _front() -> Spec:
    """Accuracy against latency; the front as a line through its candidates."""
    scale = {"type": "log", "nice": False, "padding": 16}
    ticks = {"tickCount": 6, "format": "~g"}
    x = _quantity("latency_ms", "latency p50, ms (log)", scale=scale, axis=ticks)
    y = _quantity("accuracy", "accuracy", scale={"zero": False, "padding": 12})
    return {
        "height": 300,
        "layer": [
            {
                "data": {"name": "values"},
                "transform": [{"filter": "datum.on_front"}],
                "mark": {"type": "line", "color": _MUTED, "strokeDash": [5, 4]},
                "encoding": {"x": x, "y": y, "order": {"field": "latency_ms"}},
            },
            {
                "data": {"name": "values"},
                "mark": {"type": "point", "filled": True, "strokeWidth": 1.5, "stroke": _INK},
                "encoding": {
                    "x": x,
                    "y": y,
                    "size": _quantity(
                        "kB",
                        "file, kB",
                        scale={"range": [40, 600]},
                        legend=None,
                    ),
                    "color": {"field": "target", "type": "nominal", "title": "target"},
                    "shape": {"field": "precision", "type": "nominal", "title": "precision"},
                    "opacity": {"condition": {"test": "datum.on_front", "value": 1}, "value": 0.55},
                    "strokeOpacity": {
                        "condition": {"test": "datum.on_front", "value": 1},
                        "value": 0,
                    },
                    "tooltip": [
                        {"field": "candidate", "title": "candidate"},
                        {"field": "accuracy", "title": "accuracy", "format": ".4~g"},
                        {"field": "latency", "title": "latency p50"},
                        {"field": "file", "title": "file"},
                        {"field": "edge_score", "title": "edge score"},
                        {"field": "verdict", "title": "verdict"},
                    ],
                },
            },
        ],
    }


def _trend() -> Spec:
    """A number over runs: its interval as a band, levels as steps, shifts as lines."""
    x = _quantity("run", "", axis={"tickMinStep": 1, "grid": False, "labels": False})
    return {
        "height": 110,
        "layer": [
            {
                "data": {"name": "shifts"},
                "mark": {"type": "rule", "color": _FAILED, "strokeWidth": 1.5},
                "encoding": {"x": x, "tooltip": [{"field": "told", "title": "shift"}]},
            },
            {
                "data": {"name": "values"},
                "mark": {"type": "area", "opacity": 0.18, "color": _ACCENT},
                "encoding": {
                    "x": x,
                    "y": _quantity("low", "", scale={"zero": False}),
                    "y2": {"field": "high"},
                },
            },
            {
                "data": {"name": "levels"},
                "mark": {"type": "rule", "color": _MUTED, "strokeDash": [5, 4]},
                "encoding": {
                    "x": _quantity("start", ""),
                    "x2": {"field": "end"},
                    "y": _quantity("level", ""),
                },
            },
            {
                "data": {"name": "values"},
                "mark": {"type": "line", "point": {"size": 16, "filled": True, "color": _ACCENT}},
                "encoding": {
                    "x": x,
                    "y": _quantity("value", "", scale={"zero": False}),
                    "color": {"value": _ACCENT},
                    "tooltip": [
                        {"field": "told", "title": "value"},
                        {"field": "commit", "title": "commit"},
                        {"field": "started", "title": "run of"},
                        {"field": "id", "title": "run"},
                    ],
                },
            },
        ],
    }
