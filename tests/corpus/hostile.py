"""Files that a corpus should not hold, and some that only look like it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile

LEGITIMATE = ("eight channels.wav", "192 kHz.wav", "one sample.wav", "8 bit.wav", "clipped.wav", "streamed.wav")


def write_all(folder: Path, mel_bands: int = 5) -> dict[str, str]:
    """Write them, and return what should be said of each: words of its reason, or "" for what is a sound."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.4, 0.4, 8000).astype(np.float32)

    def sound(name: str, wave: np.ndarray, rate: int = 8000, **how: str) -> Path:
        soundfile.write(folder / name, wave, rate, **how)
        return folder / name

    def cut(path: Path, share: float) -> None:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    sound("eight channels.wav", rng.uniform(-0.1, 0.1, (2000, 8)))
    sound("192 kHz.wav", noise, 192_000)
    sound("one sample.wav", noise[:1])
    sound("8 bit.wav", noise, subtype="PCM_U8")
    sound("clipped.wav", 10 * noise, subtype="FLOAT")
    streamed = sound("streamed.wav", noise)
    content = bytearray(streamed.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    streamed.write_bytes(content)

    (folder / "empty.wav").write_bytes(b"")
    sound("no samples.wav", noise[:0])
    cut(sound("cut off.wav", noise), 0.5)
    cut(sound("cut off.flac", noise), 0.5)
    cut(sound("header only.wav", noise), 0.001)
    bad = noise.copy()
    bad[4000] = np.nan
    sound("nan.wav", bad, subtype="FLOAT")
    bad[4000] = np.inf
    sound("infinite.wav", bad, subtype="FLOAT")
    (folder / "picture.wav").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    (folder / "text.flac").write_text("not audio")
    (folder / "lost.wav").symlink_to(folder / "nowhere")
    (folder / "random.ogg").write_bytes(rng.bytes(5000))
    np.save(folder / "bands.npy", np.zeros((mel_bands + 3, 10), np.float32))
    np.save(folder / "objects.npy", np.array([{}], dtype=object))
    (folder / "empty.npy").write_bytes(b"")
    (folder / "code.pt").write_bytes(b"cos\nmkdir\n(S'ran'\ntR.")
    said = {
        "empty.wav": "cannot be read",
        "no samples.wav": "no samples",
        "cut off.wav": "cut off",
        "cut off.flac": "cannot be read",
        "header only.wav": "cannot be read",
        "nan.wav": "NaN",
        "infinite.wav": "NaN or infinite",
        "picture.wav": "cannot be read",
        "text.flac": "cannot be read",
        "lost.wav": "no such file",
        "random.ogg": "cannot be read",
        "bands.npy": "bands",
        "objects.npy": "cannot be read",
        "empty.npy": "cannot be read",
        "code.pt": "cannot be read",
    }
    forbidden = sound("forbidden.wav", noise)
    forbidden.chmod(0)
    if os.access(forbidden, os.R_OK):  # by root, who may read everything
        forbidden.unlink()
    else:
        said["forbidden.wav"] = "permission denied"
    return {**said, **dict.fromkeys(LEGITIMATE, "")}
