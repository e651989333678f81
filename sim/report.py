"""A backtest as one HTML page for a manager: a table, then charts; it opens without a network.

plotly draws; its script is written into the page once.
"""

from __future__ import annotations

import html
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from controller.settlement.plant import Floats
from gridpivot.shapes_backtest import BacktestShape, PolicyFigures
from sim.backtest_run import FORESIGHT, Backtest, Outcome

MOST_POINTS = 3_000  # a chart of a year is drawn in means of some hours: sharper would only be heavier
SHOWN_FIRST = ("lp", "lp-current", "merit-order", "threshold", FORESIGHT, "static")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #1c2430; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .35rem .8rem; text-align: right; }
th { border-bottom: 2px solid #8a94a3; } td { border-bottom: 1px solid #dfe3e8; }
th:first-child, td:first-child { text-align: left; } .bad { color: #b3261e; font-weight: 600; }
p.note { color: #55606e; }
"""


def write_report(result: Backtest, shape: BacktestShape, path: Path) -> None:
    """Write the page; replaces a file that is there."""
    shown = _shown(result)
    figures = [
        ("What power cost", _prices(result)),
        (f"Where power went under {shown.policy}", _split(result, shown, 0, result.scenario.intervals)),
        ("What was earned, and what was missed", _margins(result)),
        _day(result, shown),
    ]
    parts = [
        f"<h2>{html.escape(title)}</h2>\n{figure.to_html(full_html=False, include_plotlyjs=at == 0)}"
        for at, (title, figure) in enumerate(figures)
    ]
    body = "\n".join((_opening(shape), _table(shape), *parts, _notes(shape)))
    page = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>gridpivot backtest</title><style>{STYLE}"
    path.write_text(f"{page}</style></head><body>\n{body}\n</body></html>\n", encoding="utf-8")


def _shown(result: Backtest) -> Outcome:
    """The policy whose power is drawn."""
    by_name = {o.policy: o for o in result.outcomes}
    return next((by_name[name] for name in SHOWN_FIRST if name in by_name), result.outcomes[0])


def _opening(shape: BacktestShape) -> str:
    days = (shape.ends_at - shape.begins_at).total_seconds() / 86_400
    best = max(shape.policies, key=lambda p: p.margin_usd if p.policy != FORESIGHT else float("-inf"))
    said = f"{html.escape(best.policy)} earned most: {best.margin_usd:,.0f} USD after power and wear"
    if best.regret_ratio is not None:
        said += f", {100 * best.regret_ratio:.2f} % less than perfect foresight would have"
    return (
        f"<h1>Backtest of {html.escape(Path(shape.fleet).name)}</h1><p>{shape.begins_at:%d %B %Y} to "
        f"{shape.ends_at:%d %B %Y} (UTC), {days:g} days in {shape.intervals:,} intervals of "
        f"{shape.interval_s / 60:g} minutes, {shape.calls} calls from the grid. {said}.</p>"
    )


def _table(shape: BacktestShape) -> str:
    heads = (
        "policy",
        "margin USD",
        "missed",
        "mining USD",
        "AI USD",
        "power USD",
        "MWh",
        "wakes",
        "broken promises MWh",
    )
    rows = "".join(_row(p) for p in shape.policies)
    return f"<table><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr>{rows}</table>"


def _row(p: PolicyFigures) -> str:
    broken = p.guaranteed_unserved_mwh + p.dr_shortfall_mwh + p.ceiling_excess_mwh + p.feeder_excess_mwh
    broken += p.sold_shortfall_mwh
    missed = "-" if p.regret_ratio is None else f"{100 * p.regret_ratio:.2f} %"
    cells = (
        html.escape(p.policy), f"{p.margin_usd:,.0f}", missed, f"{p.mining_usd:,.0f}", f"{p.ai_usd:,.0f}",
        f"{p.power_usd:,.0f}", f"{p.energy_mwh:,.0f}", f"{p.wakes:,.0f}",
        f"<span class='bad'>{broken:,.2f}</span>" if broken > 0 else "0",
    )  # fmt: skip
    return f"<tr>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"


def _notes(shape: BacktestShape) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in shape.notes)
    return (
        "<p class='note'>Every policy is settled by the same rules at real-time prices; a policy knows no price that "
        "had not been published. Broken promises are guaranteed AI unserved, power above a grid call, a ceiling or a "
        f"feeder, and sold capacity that was not there.</p>{f'<ul>{notes}</ul>' if notes else ''}"
    )


def _times(result: Backtest, first: int, last: int, step: int) -> list[datetime]:
    starts = result.scenario.starts_unix_s[first:last:step]
    return [datetime.fromtimestamp(t, UTC) for t in starts.tolist()]


def _means(values: Floats, step: int) -> Floats:
    """Means of `step` values in a row; the last may be of fewer."""
    edges = np.arange(0, len(values), step)
    return np.asarray(np.add.reduceat(values, edges) / np.diff(np.append(edges, len(values))))


def _step(count: int) -> int:
    return max(1, -(-count // MOST_POINTS))


def _prices(result: Backtest) -> go.Figure:
    scenario, figure = result.scenario, go.Figure()
    step = _step(scenario.intervals)
    times = _times(result, 0, scenario.intervals, step)
    for region, market in scenario.markets.items():
        name = region or "real time"
        figure.add_scatter(x=times, y=_means(market.usd_per_mwh, step), name=name, mode="lines", line_shape="hv")
    return _dressed(figure, "USD/MWh")


def _split(result: Backtest, outcome: Outcome, first: int, last: int) -> go.Figure:
    """Mining and AI stacked under the ceiling, all sites together [MW at the meter]."""
    step, figure = _step(last - first), go.Figure()
    times = _times(result, first, last, step)
    loads = {
        "AI": sum(s.ai_w for s in outcome.sites),
        "mining": sum(s.mining_w for s in outcome.sites),
        "rest": sum(s.import_w - s.ai_w - s.mining_w for s in outcome.sites),
    }
    for name, watts in loads.items():
        means = _means(np.asarray(watts)[first:last], step) / 1e6
        figure.add_scatter(x=times, y=means, name=name, stackgroup="load", mode="lines", line_shape="hv")
    ceiling = np.sum([s.ceiling_w for s in result.scenario.sites], axis=0)[first:last]
    line = {"color": "#1c2430", "dash": "dot"}
    figure.add_scatter(x=times, y=_means(ceiling, step) / 1e6, name="ceiling", mode="lines", line=line)
    return _dressed(figure, "MW")


def _margins(result: Backtest) -> go.Figure:
    """Cumulative margin of every policy, and under it what each had missed by then."""
    scenario = result.scenario
    step = _step(scenario.intervals)
    times = _times(result, 0, scenario.intervals, step)
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, subplot_titles=("margin, USD", "missed, USD")
    )
    courses = {o.policy: np.cumsum(np.sum([s.margin_usd for s in o.sites], axis=0)) for o in result.outcomes}
    best = courses.get(FORESIGHT)
    colours = ("#1f5fa8", "#c2571a", "#2c8a57", "#8a4fb0", "#b3261e", "#6b7684", "#b08a1e", "#1b8a94", "#d0479b")
    for k, (policy, margin) in enumerate(courses.items()):
        look = {"name": policy, "mode": "lines", "legendgroup": policy, "line": {"color": colours[k % len(colours)]}}
        figure.add_scatter(x=times, y=margin[::step], row=1, col=1, **look)
        if best is not None and policy != FORESIGHT:
            figure.add_scatter(x=times, y=(best - margin)[::step], row=2, col=1, showlegend=False, **look)
    return _dressed(figure, None, height=620)


def _day(result: Backtest, outcome: Outcome) -> tuple[str, go.Figure]:
    """The day whose dearest interval cost most, in detail: price above, power under its ceiling below."""
    scenario = result.scenario
    per_day = max(1, round(86_400 / scenario.width_s))
    dearest = int(np.argmax(np.max([m.usd_per_mwh for m in scenario.markets.values()], axis=0)))
    first = max(0, min(dearest // per_day * per_day, scenario.intervals - per_day))
    last = min(scenario.intervals, first + per_day)
    split = _split(result, outcome, first, last)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.35, 0.65])
    times = _times(result, first, last, 1)
    for region, market in scenario.markets.items():
        look = {"name": region or "USD/MWh", "mode": "lines", "line_shape": "hv"}
        figure.add_scatter(x=times, y=market.usd_per_mwh[first:last], row=1, col=1, **look)
    for trace in split.data:
        figure.add_trace(trace, row=2, col=1)
    figure.update_yaxes(title_text="USD/MWh", row=1, col=1)
    figure.update_yaxes(title_text="MW", row=2, col=1)
    return f"The dearest day, from {times[0]:%d %B %Y %H:%M} UTC", _dressed(figure, None, height=620)


def _dressed(figure: go.Figure, unit: str | None, height: int = 380) -> go.Figure:
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 30, "b": 40}, hovermode="x unified"
    )
    if unit is not None:
        figure.update_yaxes(title_text=unit)
    return figure
