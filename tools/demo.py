"""What `make demo` runs: a sound to a mel and back through HiFi-GAN, and a picture of both spectrograms.

    python tools/demo.py [SOUND]

Leaves demo-output/: the vocoded sound, the original beside it at the same rate, and spectrograms.png.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from distill_core import DistillError, registry
from distill_core.audio import read_audio, write_audio
from distill_core.resample import resample
from distill_core.resynthesis import resynthesize

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "demo-output"


def main(argv: list[str]) -> int:
    source = Path(argv[0]) if argv else ROOT / "samples" / "speech.flac"
    vocoder = registry.get("hifigan")
    wave, rate = read_audio(source)
    print("Making the engine ready (the first time on a machine, its kernels are compiled) ...", flush=True)
    started = time.perf_counter()
    engine = vocoder.report().engine
    ready = time.perf_counter() - started
    started = time.perf_counter()
    result = resynthesize(wave, rate, vocoder, progress=True)
    elapsed = time.perf_counter() - started
    original = resample(wave[:, None], rate, vocoder.sample_rate)[:, 0]

    stem = source.stem
    vocoded_path, original_path = OUT / f"{stem}.vocoded.wav", OUT / f"{stem}.original.wav"
    write_audio(vocoded_path, result, vocoder.sample_rate, overwrite=True)
    write_audio(original_path, original, vocoder.sample_rate, overwrite=True)
    picture = OUT / "spectrograms.png"
    draw(picture, {"original": original[0], f"vocoded by {vocoder.variant.name} HiFi-GAN": result[0]}, vocoder)

    seconds = result.shape[-1] / vocoder.sample_rate
    print(f"{vocoder}")
    print(f"The {engine} engine was ready after {ready:.1f} s.")
    print(f"{seconds:.1f} s of audio in {elapsed:.2f} s: {seconds / elapsed:.1f} x real time")
    print("Listen to:   ", vocoded_path)
    print("Compare with:", original_path)
    print("Look at:     ", picture)
    return 0


def draw(path: Path, waves: dict, vocoder) -> None:
    """The mels of several waveforms in the vocoder's own format, one above the other, on one scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from distill_core.mel.filters import band_edges

    spec = vocoder.mel
    figure, axes = plt.subplots(len(waves), 1, figsize=(10, 3 * len(waves)), sharex=True, layout="constrained")
    centres = band_edges(spec)[1:-1]
    ticks = [hz for hz in (200, 500, 1000, 2000, 4000, 8000, 16000) if hz < centres[-1]]
    for axis, (title, wave) in zip(axes, waves.items(), strict=True):
        mel = spec.analyze(wave)[0].numpy()
        decibel = mel * 20 / np.log(10)
        duration = mel.shape[1] * spec.hop_length / spec.sample_rate
        image = axis.imshow(
            decibel,
            origin="lower",
            aspect="auto",
            extent=(0, duration, 0, spec.n_mels),
            vmin=-80,
            vmax=10,
            cmap="magma",
        )
        axis.set_title(title, loc="left")
        axis.set_yticks(np.interp(ticks, centres, np.arange(spec.n_mels) + 0.5), [f"{hz:,}" for hz in ticks])
        axis.set_ylabel("Hz (mel scale)")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DistillError as error:
        sys.exit(f"error: {error}")
