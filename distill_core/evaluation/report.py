"""The report: one HTML file with everything in it, to be sent to somebody."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
from importlib import resources
from pathlib import Path

from ..audio import check_folder, check_free, replacing
from ..errors import InvalidAudioError, MissingDependencyError
from .listening import Style, gradients, listening
from .markup import duration, escape, listed
from .metrics import METRICS
from .packages import load, version, versions
from .plots import distributions
from .runner import Comparison
from .sounds import Audio
from .tables import definitions, figures_table, summary_table

ENDINGS = (".html", ".htm")


def write(
    comparison: Comparison,
    path: str | os.PathLike[str],
    *,
    audio: Audio = "wav",
    title: str = "Vocoders compared",
    overwrite: bool = False,
) -> int:
    """Write the report, whole or not at all; returns its size in bytes.

    Args:
        path: an .html file.
        audio: "wav" (16 bits, nothing lost), "opus" (about an eighth of that), "none".
        title: its heading.
        overwrite: replace a file that is there.

    Raises:
        OutputExistsError: it exists and `overwrite` is False.
        InvalidAudioError: another ending, or the folder cannot be written to.
    """
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    content = page(comparison, audio=audio, title=title).encode()
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InvalidAudioError(f"{path}: cannot be written ({error.strerror}).") from error
    return len(content)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """See before any work is done that the report could be written there.

    Raises:
        OutputExistsError, InvalidAudioError: as `write`.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InvalidAudioError(f"{path}: a report is an .html file.")
    check_free(path, overwrite=overwrite)
    check_folder(path)


def page(comparison: Comparison, *, audio: Audio = "wav", title: str = "Vocoders compared") -> str:
    """The report as HTML. Nothing in it asks for anything from outside, and its policy forbids it."""
    style = Style(audio, _pictures_missing() is None)
    css, script = _file("report.css"), _file("report.js")
    parts = {
        "distributions": ("Distributions", distributions(comparison)),
        "files": ("Listen and look" if audio != "none" else "Look", listening(comparison, style)),
        "figures": ("All figures", _figures(comparison)),
        "method": ("Method", _method(comparison, style)),
    }
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, (name, part) in parts.items() if part)
    summary = (
        '<section id="summary" aria-labelledby="summary-h"><h2 id="summary-h">Summary</h2>'
        f'<p class="lead">{_summary_lead(comparison)}</p>{summary_table(comparison)}</section>'
    )
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{_digest(css)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{css}</style></head>\n'
        f'<body>{gradients(style)}<header class="top"><h1>{escape(title)}</h1><p>{escape(_about(comparison))}</p>'
        f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>{_notes(comparison, style)}</header>\n'
        f"<main>{summary}\n{''.join(part + chr(10) for _, part in parts.values())}</main>\n"
        f"<footer>{escape(_made_by())}</footer>\n<script>{script}</script></body></html>\n"
    )


def _about(comparison: Comparison) -> str:
    files = comparison.measured
    total = sum(each.seconds for each in files)
    vocoders = len(comparison.columns)
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return " · ".join(
        [
            "1 recording" if len(files) == 1 else f"{len(files)} recordings",
            duration(total),
            "1 vocoder" if vocoders == 1 else f"{vocoders} vocoders",
            day,
        ]
    )


def _summary_lead(comparison: Comparison) -> str:
    text = "Each recording was analysed and made again from its mel. "
    if len(comparison.measured) > 1:
        text += "± is the standard deviation between files. "
    if len(comparison.labels) > 1:
        text += "The best is set in bold on green; "
        text += "that does not say that the difference could not be chance. "
    speech = sum(1 for each in comparison.measured if each.speech)
    if 0 < speech < len(comparison.measured):
        text += f"{speech} of {len(comparison.measured)} recordings are taken for speech. "
    return text


def _notes(comparison: Comparison, style: Style) -> str:
    """What is not in the report, and why."""
    notes = comparison.failures()
    packages: dict[str, list[str]] = {}
    for key, reason in comparison.missing.items():
        packages.setdefault(reason, []).append(METRICS[key].label)
    notes += [f"{listed(labels)} left out: {reason}" for reason, labels in packages.items()]
    if (why := _pictures_missing()) is not None:
        notes.append(f"Pictures left out: {why}")
    if not notes:
        return ""
    shown = "".join(f"<li>{escape(note)}</li>" for note in notes[:50])
    more = f"<li>and {len(notes) - 50} more</li>" if len(notes) > 50 else ""
    return (
        '<section class="notes" aria-labelledby="notes-h"><h2 id="notes-h">Left out</h2>'
        f"<ul>{shown}{more}</ul></section>"
    )


def _figures(comparison: Comparison) -> str:
    if not comparison.measured or not comparison.labels:
        return ""
    lead = "One line for each recording and vocoder."
    if len(comparison.labels) > 1:
        lead += " The best of each recording is set in bold on green."
    return (
        '<section id="figures" aria-labelledby="figures-h"><h2 id="figures-h">All figures</h2>'
        f'<p class="lead">{lead}<span class="only-js"> A click on a heading sorts.</span></p>'
        f"{figures_table(comparison)}</section>"
    )


def _method(comparison: Comparison, style: Style) -> str:
    used = [key for key in METRICS if key in comparison.summary()]
    packages = [package for key in used if (package := METRICS[key].package)]
    installed = ", ".join(f"{name} {number}" for name, number in versions(*packages).items() if number)
    limit = comparison.max_seconds
    text = "Channels are mixed to one before anything else. Sounds are brought to the rate of each metric by soxr. "
    text += "Results start with their references and are as long; nothing was shifted, scaled or normalised. "
    if limit is not None and not all(each.whole for each in comparison.measured):
        text += f"Of longer recordings the first {limit:g} s were compared. "
    if comparison.speech == "auto" and "pyworld" not in " ".join(comparison.missing.values()):
        text += "What is speech was decided by its pitch, which now and then takes an instrument for a voice. "
    if style.pictures:
        text += "Frequency is drawn on the mel scale. "
    return (
        '<section id="method" aria-labelledby="method-h"><h2 id="method-h">Method</h2>'
        f"{definitions(used)}<p>{escape(text)}</p>{_vocoders(comparison)}"
        f"<p>Versions: {escape(installed)}.</p></section>"
    )


def _vocoders(comparison: Comparison) -> str:
    lines = []
    for column in comparison.columns:
        if column.vocoder is None:
            continue
        notes = column.vocoder.report()
        told = f"{column.label}: variant {column.vocoder.variant.name}, engine {notes.engine} on {notes.device} in "
        told += f"{notes.precision}; mel {column.vocoder.mel.describe()}."
        lines.append(f"<p>{escape(told)}</p>")
    return "".join(lines)


def _made_by() -> str:
    return f"Made by distill-vocoder compare, distill-core {version('distill-core') or 'unknown'}."


def _pictures_missing() -> str | None:
    try:
        load("matplotlib")
        load("PIL.Image")
    except MissingDependencyError as error:
        return str(error)
    return None


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A Content-Security-Policy source for an inline element with exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
