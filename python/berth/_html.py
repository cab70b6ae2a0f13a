"""How a cluster shows itself in a notebook: one small table, with nothing from elsewhere."""

from __future__ import annotations

from html import escape

from ._errors import Diagnosis
from ._info import ClusterInfo

_COLOURS = {"running": "#2e7d32", "starting": "#b26a00", "stopping": "#b26a00", "stopped": "#757575", "failed": "#c62828"}


def cluster(info: ClusterInfo, dashboard: str, stale: str = "") -> str:
    """Returns HTML. All texts of others are escaped."""
    rows = []

    def row(name: str, html: str) -> None:
        rows.append(f'<tr><td style="text-align:left;padding-right:1.5em"><b>{name}</b></td><td style="text-align:left">{html}</td></tr>')

    colour = _COLOURS.get(info.state, "#757575")
    state = f'<span style="color:{colour}">&#9679;</span> {escape(info.state)}'
    if info.reason:
        state += f": {escape(info.reason)}"
    row("State", state)
    if info.diagnosis is not None:
        row("Diagnosis", _diagnosis(info.diagnosis))
    for g in info.groups:
        text = f"{g.ready} of {g.wanted} ready"
        text += f", {g.waiting} waiting" if g.waiting else ""
        text += f", {g.draining} draining" if g.draining else ""
        if g.lost:
            text += ", replaced: " + ", ".join(f"{n} {cause}" for cause, n in sorted(g.lost.items()))
        html = escape(text)
        if g.diagnosis is not None and g.ready < g.wanted:
            html += "<br>" + _diagnosis(g.diagnosis)
        row("Workers" if len(info.groups) == 1 else f"Workers of {escape(g.name)}", html)
    for warning in info.warnings:
        row("Warning", escape(warning))
    if info.infrastructure:
        row("Runs on", escape(info.infrastructure))
    if info.image:
        row("Image", escape(info.image))
    if info.ends_at is not None:
        row("Ends", escape(f"{info.ends_at:%Y-%m-%d %H:%M} UTC, if nothing changes"))
    if dashboard:
        row("Dashboard", f'<a href="{escape(dashboard)}" target="_blank">{escape(dashboard)}</a>')
    if stale:
        row("Not current", escape(stale))
    return (
        f'<div><h3 style="margin-bottom:4px">{escape(info.name or info.id)}</h3>'
        f'<p style="color:#757575;margin:0 0 6px 0">Berth cluster {escape(info.id)}</p>'
        f'<table style="text-align:left">{"".join(rows)}</table></div>'
    )


def _diagnosis(d: Diagnosis) -> str:
    html = f"<b>{escape(d.cause)}</b>: {escape(d.summary)}"
    if d.remedy:
        html += f"<br>What to do ({escape(d.remedy_by or 'you')}): {escape(d.remedy)}"
    return html
