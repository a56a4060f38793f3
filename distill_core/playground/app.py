"""The playground's page: a sound or a mel goes in, and there is something to hear and to look at."""

from __future__ import annotations

import re
import shutil
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from . import page
from .bench import Outcome, check_mel, check_sound, vocode_mel, vocode_sound
from .examples import write_examples
from .picker import Progress, VocoderPicker

if TYPE_CHECKING:
    from ..registry import Registry
    from ..vocoder import VocoderBase

KEPT_RUNS = 20
"""Runs whose sounds can still be played; older files are deleted."""

SOUND, MEL = "sound", "mel"
TITLE = (
    "<h1>Vocoder playground</h1><p>Hear and see what a vocoder makes of a sound, or of a mel. "
    "Nothing you put in leaves this machine.</p>"
)
HINT = (
    '<p class="dv-hint">[bands, frames] or [1, bands, frames], in the format that the vocoder takes, or in the one '
    "chosen under Mel format. A file that would run code when it is read is refused.</p>"
)
# A template that Gradio evaluates in the browser: as long as there is no result, what to do.
EMPTY = f"${{value || '{page.EMPTY}'}}"
_QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}


class Files:
    """The sounds of the last runs, as files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: deque[Path] = deque()
        self._count = 0
        self._lock = threading.Lock()

    def write(self, outcome: Outcome, vocoder: str) -> tuple[Path, Path | None]:
        """The result as a file, and the reference if there is one."""
        from ..audio import write_audio

        with self._lock:
            self._count += 1
            run = self.folder / f"run-{self._count}"
            self._runs.append(run)
            while len(self._runs) > KEPT_RUNS:
                shutil.rmtree(self._runs.popleft(), ignore_errors=True)
        stem = re.sub(r"[^\w.-]+", "-", Path(outcome.source).stem)[:80].strip("-") or "sound"
        sound, reference = run / f"{stem}.{vocoder}.wav", None
        write_audio(sound, *outcome.result)
        if outcome.reference is not None:
            reference = run / f"{stem}.reference.wav"
            write_audio(reference, *outcome.reference)
        return sound, reference


def build(folder: Path, registry: Registry | None = None, *, vocoder: str | None = None) -> gr.Blocks:
    """The page as `gr.Blocks`, with nothing that reports to anybody.

    Args:
        folder: for the sounds that are made; whoever serves the page has to allow it.
        registry: where vocoders come from; default: the process-wide one.
        vocoder: the name chosen at first; default: one that runs without a download.
    """
    files = Files(folder)
    examples = write_examples(folder / "examples")

    def check(kind: str, sound: str | None, mel: str | None) -> None:
        check_mel(mel) if kind == MEL else check_sound(sound)

    def work(vocoder: VocoderBase, progress: Progress, kind: str, sound: str, mel: str) -> str:
        made = (
            vocode_mel(Path(mel), vocoder, progress.job)
            if kind == MEL
            else vocode_sound(Path(sound), vocoder, progress.job)
        )
        progress.stage("Writing the sounds")
        return page.results(made, *files.write(made, vocoder.variant.name), loaded=progress.loading)

    blocks: gr.Blocks = gr.Blocks(title="distill: vocoder playground", analytics_enabled=False)
    with blocks:
        gr.HTML(TITLE, elem_id="dv-title")
        kind = gr.State(SOUND)
        with gr.Row(elem_id="dv-main"):
            with gr.Column(elem_id="dv-in"), gr.Tabs():
                with gr.Tab("Sound") as sounds:
                    sound = gr.Audio(
                        sources=["upload", "microphone"],
                        type="filepath",
                        label="Drop a sound, or record one",
                        buttons=[],
                        elem_id="dv-sound",
                    )
                    with gr.Row(elem_id="dv-examples"):
                        for name, path in examples.items():
                            button = gr.Button(name, size="sm", min_width=100)
                            button.click(_constant(str(path)), None, sound, **_QUIET)
                with gr.Tab("Mel file") as mels:
                    mel = gr.File(label="Drop a mel: .npy, .pt or .safetensors", type="filepath", elem_id="dv-mel")
                    gr.HTML(HINT)
            with gr.Column(elem_id="dv-out"):
                run = gr.Button("Vocode", variant="primary", size="lg", elem_id="dv-run")
                status = gr.Column()
                result = gr.HTML("", html_template=EMPTY, js_on_load=page.SCRIPT, elem_id="dv-results")
            with gr.Column(elem_id="dv-choose"):
                picker = VocoderPicker(registry, vocoder=vocoder, status=status)
        sounds.select(_constant(SOUND), None, kind, **_QUIET)
        mels.select(_constant(MEL), None, kind, **_QUIET)
        picker.run(run.click, work, [kind, sound, mel], result, check=check)
    return blocks


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value
