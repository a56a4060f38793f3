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

STYLE = """
.gradio-container { max-width: 1180px !important; margin: 0 auto; }
#dv-title h1 { margin: 0 0 .15rem; font-size: 1.5rem; }
#dv-title p { margin: 0; opacity: .8; }
#dv-examples { align-items: center; }
"""


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

    def shown(vocoder: VocoderBase, progress: Progress, made: Outcome) -> str:
        progress.stage("Writing the sounds")
        return page.results(made, *files.write(made, vocoder.variant.name))

    def sound(vocoder: VocoderBase, progress: Progress, path: str) -> str:
        return shown(vocoder, progress, vocode_sound(Path(path), vocoder, progress.job))

    def mel(vocoder: VocoderBase, progress: Progress, path: str) -> str:
        return shown(vocoder, progress, vocode_mel(Path(path), vocoder, progress.job))

    blocks: gr.Blocks = gr.Blocks(title="distill: vocoder playground", analytics_enabled=False)
    with blocks:
        gr.HTML(
            "<h1>Vocoder playground</h1><p>Hear and see what a vocoder makes of a sound, or of a mel. "
            "Nothing you put in leaves this machine.</p>",
            elem_id="dv-title",
        )
        with gr.Row():
            with gr.Column(scale=3, min_width=320), gr.Tabs():
                with gr.Tab("Sound"):
                    source = gr.Audio(
                        sources=["upload", "microphone"],
                        type="filepath",
                        label="Drop a sound, or record one",
                        buttons=[],
                        elem_id="dv-sound",
                    )
                    with gr.Row(elem_id="dv-examples"):
                        for name, path in examples.items():
                            button = gr.Button(name, size="sm", min_width=110)
                            button.click(_constant(str(path)), None, source, api_visibility="private", queue=False)
                    play = gr.Button("Vocode", variant="primary", size="lg", elem_id="dv-run-sound")
                with gr.Tab("Mel file"):
                    spectrum = gr.File(
                        label="Drop a mel: .npy, .pt or .safetensors, [bands, frames]",
                        type="filepath",
                        elem_id="dv-mel",
                    )
                    gr.HTML(
                        '<p class="dv-hint">It has to be in the format under "Takes", or in one that is chosen '
                        "under Mel format. Files are read as numbers: one that would run code is refused.</p>"
                    )
                    sing = gr.Button("Vocode", variant="primary", size="lg", elem_id="dv-run-mel")
            with gr.Column(scale=2, min_width=300):
                picker = VocoderPicker(registry, vocoder=vocoder)
        result = gr.HTML(page.EMPTY, js_on_load=page.SCRIPT, elem_id="dv-results")
        picker.run(play.click, sound, source, result, check=check_sound)
        picker.run(sing.click, mel, spectrum, result, check=check_mel)
    return blocks


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value

