"""Fetch the real recordings that tests and benchmarks listen to, without root.

    python tools/recordings.py

They are two packages of Debian's: `sound-theme-freedesktop` (48 kHz, speech among it) and
`sonic-pi-samples` (44.1 kHz music and effects, CC0). Where the system has them installed they are used
from there; else `apt-get download` and `dpkg -x` unpack them under build/recordings. Without either, the
tests that need them are skipped and say so. With `--training`, also `klettres-data` and `ktuberling-data`,
86 MB of words that people of many languages recorded at home: what `training.mel_refinement` trains on.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / "build" / "recordings"
PACKAGES = {
    "sound-theme-freedesktop": Path("usr/share/sounds/freedesktop/stereo"),
    "sonic-pi-samples": Path("usr/share/sonic-pi/samples"),
}
# Recorded speech in many voices and rooms, GPL-2+: only for training the mel adapter's refinement.
TRAINING = {
    "klettres-data": Path("usr/share/klettres"),
    "ktuberling-data": Path("usr/share/ktuberling/sounds"),
}


def folder(package: str) -> Path | None:
    """Where the recordings of one of `PACKAGES` or `TRAINING` are, or None."""
    for root in (Path("/"), UNPACKED):
        place = root / (PACKAGES | TRAINING)[package]
        if place.is_dir():
            return place
    return None


def fetch(package: str) -> str | None:
    """Download and unpack one package; returns why that was not possible, or None."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return "this is no Debian system"
    UNPACKED.mkdir(parents=True, exist_ok=True)
    for command in (["apt-get", "download", package], ["apt-get", "update"], ["apt-get", "download", package]):
        if subprocess.run(command, cwd=UNPACKED, capture_output=True).returncode == 0 and command[1] == "download":
            break
    archives = sorted(UNPACKED.glob(f"{package}_*.deb"))
    if not archives:
        return "apt-get could not download it"
    subprocess.run(["dpkg", "-x", str(archives[-1]), str(UNPACKED)], check=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", action="store_true", help="also what the refinement of mels is trained on")
    args = parser.parse_args()
    for package in PACKAGES | (TRAINING if args.training else {}):
        if folder(package) is None:
            reason = fetch(package)
            if reason:
                print(f"recordings: {package} is missing ({reason}); tests that need it are skipped", file=sys.stderr)
                continue
        print(f"recordings: {package} in {folder(package)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
