"""The pictures of docs/mel-formats.md: source mel, converted, true, and the difference.

python -m benchmarks.mel_pictures [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from distill_core.mel import MelAdapter, MelSpec
from training import recordings

from .mel_adapter import AUDIBLE, noisy

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {
    "mel-adapter-speech.webp": ("speech", "bigvgan-44khz-128band-512x", 0.0),
    "mel-adapter-speech-noisy.webp": ("speech", "bigvgan-44khz-128band-512x", 0.05),
    "mel-adapter-music.webp": ("held_out", "bigvgan-44khz-128band-512x", 0.0),
    "mel-adapter-hifigan.webp": ("speech", "hifigan-22khz-80band", 0.0),
}


def draw(path: Path, group: str, target_name: str, sigma: float) -> None:
    """Four spectrograms, two by two, `path` as its ending says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    source, target = MelSpec.preset("distill-vae"), MelSpec.preset(target_name)
    files = getattr(recordings.find(), group)
    # The longest of the group that still fits: of speech all are short.
    file = max(files, key=lambda each: recordings.load(each, 48_000, seconds=3.0).numel())
    mel = noisy(source.analyze(recordings.load(file, source.sample_rate, seconds=3.0)), sigma, seed=0)
    true = target.analyze(recordings.load(file, target.sample_rate, seconds=3.0))
    made = MelAdapter(source, target)(mel)
    frames = min(true.shape[-1], made.shape[-1])
    true, made = true[0, :, :frames], made[0, :, :frames]
    difference = (made - true).where(true > AUDIBLE, 0.0)
    figure, axes = pyplot.subplots(2, 2, figsize=(7.2, 5.6), sharex=True, constrained_layout=True)
    noise = f", σ {sigma:g}" if sigma else ""
    mean = float((made - true)[true > AUDIBLE].abs().mean())
    panels = (
        (mel[0], source, f"distill-vae{noise}", "log1p of the power", "magma", None),
        (made, target, "converted", "ln of the magnitude", "magma", (-11.5, 2.0)),
        (true, target, "analysed from the sound", "ln of the magnitude", "magma", (-11.5, 2.0)),
        (difference, target, f"difference, {mean:.3f} on average", "nats", "RdBu_r", (-2.0, 2.0)),
    )
    for axis, (values, spec, title, unit, colours, limits) in zip(axes.flat, panels, strict=True):
        low, high = limits or (None, None)
        bands, frames = values.shape
        extent = (0, frames * spec.hop_length / spec.sample_rate, 0, bands)
        image = axis.imshow(values, origin="lower", aspect="auto", extent=extent, cmap=colours, vmin=low, vmax=high)
        axis.set_title(title, fontsize=11)
        axis.tick_params(labelsize=10)
        bar = figure.colorbar(image, ax=axis)
        bar.set_label(unit, fontsize=10)
        bar.ax.tick_params(labelsize=10)
    for row in axes:
        row[0].set_ylabel("band", fontsize=10)
    for axis in axes[1]:
        axis.set_xlabel("seconds", fontsize=10)
    figure.suptitle(f"{file.stem}, to {target_name}", fontsize=11)
    figure.savefig(path, dpi=140, pil_kwargs={"quality": 85})
    pyplot.close(figure)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (group, target, sigma) in PICTURES.items():
        draw(folder / name, group, target, sigma)
        print(folder / name)


if __name__ == "__main__":
    main()
