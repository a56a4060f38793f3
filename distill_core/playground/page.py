"""What the page says, as HTML: how far a job is, what a vocoder is, what went wrong, what came out.

Everything that comes from a file, a card or an exception is escaped. No Gradio here.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .. import pictures
from .choices import Choice, Offer, lost, to_download
from .jobs import State

if TYPE_CHECKING:
    from .bench import Outcome, Picture


def progress(state: State) -> str:
    """How far a job is: a sentence and a bar, which is striped while nobody knows."""
    share = state.share
    title = "Stopping after this step" if state.stopping else state.stage or "Starting"
    if share is None:
        bar, said = '<i class="dv-busy"></i>', ""
    else:
        percent = round(100 * share)
        bar, said = f'<i style="width:{100 * share:.1f}%"></i>', f' aria-valuenow="{percent}"'
    return (
        f'<div class="dv-status"><div class="dv-line"><b>{escape(title)}</b><span>{_details(state)}</span></div>'
        f'<div class="dv-bar" role="progressbar" aria-label="{escape(title)}" aria-valuemin="0" aria-valuemax="100"'
        f"{said}>{bar}</div></div>"
    )


def failure(text: str) -> str:
    """An error, in the words of whoever raised it."""
    return f'<div class="dv-note dv-error" role="alert"><b>That did not work.</b> {_text(text)}</div>'


def remark(text: str) -> str:
    """A sentence that is neither progress nor an error."""
    return f'<div class="dv-note" role="status">{_text(text)}</div>'


def stopped(state: State) -> str:
    """That a job was ended, and what is left of it."""
    kept = " What was downloaded is kept, and the next run goes on from there." if state.unit == "B" else ""
    return remark(f"Stopped.{kept}")


def info(offer: Offer | None, choice: Choice, empty: str = "") -> str:
    """What is chosen: what it is, its format, its weights; or why it cannot be used."""
    if offer is None:
        return failure(empty)
    if offer.card is None:
        return (
            f'<div class="dv-note dv-error"><b>{escape(offer.name)} cannot be used.</b> {_text(offer.problem)}</div>'
        )
    card = offer.card
    variant = next((each for each in card.variants if each.name == choice.variant), card.variant())
    now = [to_download(variant)[1], *(f"Conversion loses {each}." for each in lost(variant, choice.mel))]
    about = [f"{variant.parameters / 1e6:.1f} M parameters" if variant.parameters else "", escape(offer.origin)]
    if card.license:
        about.append(f"licence {escape(card.license)}")
    if card.homepage.startswith(("https://", "http://")):
        about.append(f'<a href="{escape(card.homepage)}" target="_blank" rel="noreferrer noopener">homepage</a>')
    rows = [
        ("Takes", escape(variant.mel.describe())),
        ("Gives", f"{choice.sample_rate or variant.sample_rate:,} Hz"),
        ("About", " · ".join(each for each in about if each)),
    ]
    table = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return (
        f'<div class="dv-info"><p>{escape(card.summary)}</p>{"".join(f"<p>{_text(each)}</p>" for each in now)}'
        f"<details><summary>Format, licence and the rest</summary><dl>{table}</dl></details></div>"
    )


def results(outcome: Outcome, sound: Path, reference: Path | None, loaded: float = 0.0) -> str:
    """What a run made: figures to read, both sounds with their pictures, and the difference.

    Args:
        sound, reference: the files to play; Gradio has to be allowed to serve them.
        loaded: seconds that loading the vocoder took.
    """
    before, after, between = outcome.pictures
    channels = outcome.result[0].shape[0]
    kinds = {1: "mono", 2: "stereo"}
    report = outcome.report
    first = _player(before, reference, f"{outcome.source}")
    second = _player(after, sound, "", download=True)
    both = (
        '<button type="button" class="dv-ab">Play and compare</button>'
        '<span class="dv-hear" aria-live="polite"></span>'
        if reference
        else ""
    )
    loading = [f"Loading the vocoder took {_duration(loaded)} before that."] if loaded else []
    notes = _list([*outcome.remarks, *report.notes, f"The mel in between: {outcome.mel}.", *loading])
    return (
        f'<div class="dv-results"><div class="dv-facts">'
        f"<p><b>{outcome.times_real_time:.3g} ×</b> real time</p>"
        f"<p><b>{_duration(outcome.seconds)}</b> {kinds.get(channels, f'{channels} channels')}, "
        f"{outcome.result[1]:,} Hz, made in {_duration(outcome.elapsed)}</p>"
        f"<p><b>{escape(report.engine)}</b> engine on {escape(report.device)} in {escape(report.precision)}</p>"
        f"<p><b>{outcome.apart:.2g} dB</b> mean difference</p></div>"
        f'<div class="dv-compare">{both}</div><div class="dv-pair">{first}{second}</div>'
        f'<div class="dv-player">{_figure(between)}</div>'
        f'<details class="dv-why"><summary>Why this engine, and what else there is to know</summary>{notes}</details>'
        "</div>"
    )


EMPTY = (
    '<div class="dv-empty"><b>Nothing to hear yet.</b><p>Drop or record a sound, or take one of the examples, and '
    "press Vocode. You get the sound as the vocoder makes it from a mel spectrogram, beside the one you gave, with a "
    "picture of both and of what became different.</p></div>"
)

_HERE = Path(__file__).parent

CSS = pictures.CSS + (_HERE / "page.css").read_text("utf-8")
"""What the page needs once."""

SCRIPT = (_HERE / "page.js").read_text("utf-8")
"""For `gr.HTML(js_on_load=)` of what shows `results`."""


def _player(picture: Picture, sound: Path | None, name: str, *, download: bool = False) -> str:
    note = f"{name}, {picture.note}" if name else picture.note
    made = _figure(picture, note)
    if sound is not None:
        source = f"gradio_api/file={quote(str(sound))}"
        label = escape(picture.title)
        made += f'<audio controls preload="metadata" aria-label="{label}" src="{source}"></audio>'
        if download:
            name = escape(sound.name)
            made += f'<a class="dv-download" href="{source}" download="{name}">Download {name}</a>'
    return f'<div class="dv-player">{made}</div>'


def _figure(picture: Picture, note: str = "") -> str:
    return pictures.figure(picture.spectrogram, picture.title, picture.colours, note=note or picture.note)


def _details(state: State) -> str:
    if state.total is None and not state.done:
        return ""
    parts = []
    if state.unit == "B":
        of = f" of {state.total / 1e6:,.1f}" if state.total else ""
        parts.append(f"{state.done / 1e6:,.1f}{of} MB")
        elapsed = state.now - state.began
        if elapsed > 1:
            parts.append(f"{(state.done - state.first) / elapsed / 1e6:.1f} MB/s")
    elif state.share is not None:
        parts.append(f"{100 * state.share:.0f} %")
    if state.seconds_left is not None:
        parts.append(f"{_duration(float(round(state.seconds_left)), 0)} left")
    return " · ".join(parts)


def _duration(seconds: float, digits: int = 2) -> str:
    if seconds < 60:
        return f"{seconds:.{digits if seconds < 10 else 0}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _text(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    parts = escape(" ".join(text.split())).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
