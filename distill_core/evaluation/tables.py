"""The report's tables: the summary, and every figure of every file."""

from __future__ import annotations

from .markup import breakable, direction, escape, swatch, unit
from .metrics import METRICS, Metric
from .runner import Column, Compared, Comparison, Result
from .summary import Summary


def summary_table(comparison: Comparison) -> str:
    """A row a metric, a column a vocoder."""
    summaries = comparison.summary()
    files = len(comparison.measured)
    head = "".join(_column_head(comparison, column) for column in comparison.columns)
    rows = "".join(_summary_row(comparison, summary, files) for summary in summaries.values())
    return (
        '<div class="scroll" role="region" aria-labelledby="summary-h" tabindex="0"><table class="summary">'
        f'<thead><tr><th scope="col">Mean over the files</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _column_head(comparison: Comparison, column: Column) -> str:
    vocoder = column.vocoder
    if vocoder is None:
        about = "not loaded"
    else:
        report = vocoder.report()
        about = f"{vocoder.sample_rate:,} Hz, {report.precision} on {report.device}"
        if vocoder.variant.parameters:
            about = f"{vocoder.variant.parameters / 1e6:.1f} M parameters, {about}"
    return (
        f'<th scope="col"><span class="name">{swatch(comparison, column.label)}{breakable(column.label)}</span>'
        f'<span class="about">{escape(about)}</span></th>'
    )


def _summary_row(comparison: Comparison, summary: Summary, files: int) -> str:
    metric = summary.metric
    cells = []
    counts = {each.count for each in summary.vocoders.values()}
    for column in comparison.columns:
        each = summary.vocoders.get(column.label)
        if each is None:
            cells.append('<td class="none">–</td>')
            continue
        best = column.label in summary.best
        value = f"<strong>{metric.text(each.mean)}</strong>" if best else metric.text(each.mean)
        mark = '<span class="hidden"> (best)</span>' if best else ""
        spread = "" if each.deviation is None else f" <small>±&#8239;{each.deviation:.{metric.digits}f}</small>"
        several = f'<small class="count">{_files(each.count)}</small>' if len(counts) > 1 else ""
        cells.append(f'<td class="{"best" if best else ""}">{value}{mark}{spread}{several}</td>')
    note = f'<small class="count">{_files(min(counts))} of {files}</small>' if counts != {files} else ""
    return (
        f'<tr><th scope="row">{escape(metric.label)}{unit(metric)} {direction(metric)}{note}</th>{"".join(cells)}</tr>'
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def figures_table(comparison: Comparison) -> str:
    """A row for each file and vocoder; the best of each file is marked."""
    summaries = comparison.summary()
    metrics = [METRICS[key] for key in summaries]
    head = "".join(
        f'<th scope="col" data-sort="number">{escape(metric.short)}{unit(metric)} {direction(metric)}</th>'
        for metric in metrics
    )
    rows = "".join(
        _figures_row(comparison, index, each, label, result, metrics)
        for index, each in enumerate(comparison.files)
        for label, result in each.results.items()
    )
    return (
        '<div class="scroll" role="region" aria-labelledby="figures-h" tabindex="0"><table class="figures">'
        f'<thead><tr><th scope="col" data-sort="text">File</th><th scope="col" data-sort="text">Vocoder</th>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _figures_row(
    comparison: Comparison, index: int, each: Compared, label: str, result: Result, metrics: list[Metric]
) -> str:
    name = breakable(each.name)
    if each.recording is not None:
        name = f'<a href="#file-{index}">{name}</a>'
    dot = f'<span class="only-narrow">{swatch(comparison, label)}</span>'  # where the vocoder is scrolled away
    head = (
        f'<th scope="row" data-value="{escape(each.name)}">{dot}{name}</th>'
        f'<td class="who" data-value="{escape(label)}">{swatch(comparison, label)}{breakable(label)}</td>'
    )
    if result.scores is None:
        return f'<tr>{head}<td class="failed" colspan="{len(metrics)}">{escape(result.error)}</td></tr>'
    return f"<tr>{head}{''.join(_figure(each, label, result, metric) for metric in metrics)}</tr>"


def _figure(each: Compared, label: str, result: Result, metric: Metric) -> str:
    assert result.scores is not None
    value = result.scores.values.get(metric.key)
    if value is None:
        return f'<td class="none" title="{escape(result.scores.absent.get(metric.key, ""))}">–</td>'
    best = is_best(each, label, metric)
    mark = '<span class="hidden"> (best)</span>'
    text = f"<strong>{metric.text(value)}</strong>{mark}" if best else metric.text(value)
    return f'<td class="{"best" if best else ""}" data-value="{value:.9g}">{text}</td>'


def is_best(each: Compared, label: str, metric: Metric) -> bool:
    """Whether a vocoder has the best value of a file, as far as the digits shown tell, and another has not."""
    losses = {
        other: round(metric.loss(result.scores.values[metric.key]), metric.digits)
        for other, result in each.results.items()
        if result.scores is not None and metric.key in result.scores.values
    }
    lowest = min(losses.values(), default=0.0)
    return losses.get(label) == lowest and len(set(losses.values())) > 1


def definitions(keys: list[str]) -> str:
    """What each metric is."""
    return "<dl>" + "".join(_definition(METRICS[key]) for key in keys) + "</dl>"


def _definition(metric: Metric) -> str:
    source = f" <span class='unit'>{escape(metric.package)}</span>" if metric.package else ""
    return f"<div><dt>{escape(metric.label)}{source} {direction(metric)}</dt><dd>{escape(metric.about)}</dd></div>"
