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
    "mel-adapter-speech.png": ("speech", "bigvgan-44khz-128band-512x", 0.0),
    "mel-adapter-speech-noisy.png": ("speech", "bigvgan-44khz-128band-512x", 0.05),
    "mel-adapter-music.png": ("held_out", "bigvgan-44khz-128band-512x", 0.0),
    "mel-adapter-hifigan.png": ("speech", "hifigan-22khz-80band", 0.0),
}


def draw(path: Path, group: str, target_name: str, sigma: float) -> None:
    """One row of four spectrograms, `path` as PNG."""
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
    figure, axes = pyplot.subplots(1, 4, figsize=(15, 3.2), constrained_layout=True)
    noise = f", σ {sigma:g}" if sigma else ""
    mean = float((made - true)[true > AUDIBLE].abs().mean())
    panels = (
        (mel[0], f"distill-vae{noise} (log1p power)", "magma", None),
        (made, f"converted to {target_name}", "magma", (-11.5, 2.0)),
        (true, "true (ln magnitude)", "magma", (-11.5, 2.0)),
        (difference, f"difference where above -9: {mean:.3f} nats", "RdBu_r", (-2.0, 2.0)),
    )
    for axis, (values, title, colours, limits) in zip(axes, panels, strict=True):
        low, high = limits or (None, None)
        image = axis.imshow(values, origin="lower", aspect="auto", cmap=colours, vmin=low, vmax=high)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("frame", fontsize=8)
        axis.tick_params(labelsize=7)
        figure.colorbar(image, ax=axis).ax.tick_params(labelsize=7)
    axes[0].set_ylabel(f"band ({file.stem})", fontsize=8)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (group, target, sigma) in PICTURES.items():
        draw(folder / name, group, target, sigma)
        print(folder / name)


if __name__ == "__main__":
    main()
