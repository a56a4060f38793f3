"""The state of the whole installation, for the person in front of it and for bug reports.

Works when torch is absent, or so broken that importing it ends the process: torch is looked at from a
process of its own. Opens no socket.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .discovery import normalized
from .errors import DistillError
from .explain import Explanation, hiding_nothing, leftover_line
from .wording import without_login

if TYPE_CHECKING:
    from .registry import Registry

VARIABLES = (
    "DISTILL_VOCODERS_AUTOLOAD",
    "DISTILL_VOCODERS_DISABLE",
    "DISTILL_VOCODER_PREFER",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "NUMBA_CPU_FEATURES",
    "NUMBA_CPU_NAME",
    "NUMBA_DISABLE_JIT",
    "TRITON_CACHE_DIR",
    "TRITON_INTERPRET",
    "PYTHONPATH",
    "PYTHONNOUSERSITE",
)
"""Environment variables that change what distill does; proxies count in lower case as well."""

PACKAGES = ("torch", "numpy", "pluggy", "huggingface_hub", "safetensors", "tqdm", "numba", "soundfile", "soxr")
OPTIONAL = {"numba": "cpu", "soundfile": "audio", "soxr": "audio"}  # the extra of distill-core that brings it

# torch can end the process (a library that does not fit), or hang (a driver): both have happened to users.
_TORCH_TIMEOUT = 120.0
_TORCH_PROBE = """
import json, sys, time
started = time.perf_counter()
import torch
seconds = time.perf_counter() - started
from distill_core.device import KINDS, why_unusable
devices = {kind: why_unusable(torch.device(kind)) for kind in KINDS}
def name(card):
    try:
        return torch.cuda.get_device_name(card)
    except Exception:  # its driver may be what does not work
        return f"cuda:{card}"
names = {"cuda": [name(card) for card in range(torch.cuda.device_count())]}
print(json.dumps({"version": torch.__version__, "file": torch.__file__, "seconds": round(seconds, 2),
    "threads": torch.get_num_threads(), "built_for_cuda": torch.version.cuda, "built_for_rocm": torch.version.hip,
    "devices": devices, "names": names}))
"""


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `str()` of it is the report.

    Args:
        python: version, executable, platform of the interpreter.
        core: version and place of distill-core.
        packages: package -> version, None if it is not installed.
        torch: version, devices and threads, or `error` with the last lines of what torch said.
        environment: the variables that are set; secrets are not shown.
        cache: the folder of downloaded weights, and the bytes free there.
        vocoders: the story of every name, hidden ones included.
        problems: what is wrong, and what to do, one sentence or two each.
    """

    python: dict[str, str]
    core: dict[str, str]
    packages: dict[str, str | None]
    torch: dict[str, Any]
    environment: dict[str, str]
    cache: dict[str, Any]
    vocoders: tuple[Explanation, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(_report(self))

    __repr__ = __str__


def diagnose(registry: Registry) -> Diagnosis:
    """Look at everything. Never raises for what is wrong with the installation: that is in `problems`."""
    import importlib_metadata

    from . import __version__

    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib_metadata.version(name) or "unknown"
        except importlib_metadata.PackageNotFoundError:
            packages[name] = None
    torch = _torch()
    vocoders, problems = _vocoders(registry)
    return Diagnosis(
        python={
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
            "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        },
        core={"version": __version__, "folder": str(Path(__file__).parent)},
        packages=packages,
        torch=torch,
        environment=_environment(os.environ),
        cache=_cache(),
        vocoders=vocoders,
        problems=(*_problems(packages, torch), *problems),
    )


def _torch() -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH_PROBE],
            capture_output=True,
            text=True,
            timeout=_TORCH_TIMEOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"importing it took longer than {_TORCH_TIMEOUT:g} seconds"}
    except OSError as error:
        return {"error": f"{sys.executable} cannot be started: {error}"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    said = "\n".join(done.stderr.strip().splitlines()[-5:])
    ended = f"the process ended with code {done.returncode}"
    return {"error": f"{said}\n({ended})" if said else ended}


def _vocoders(registry: Registry) -> tuple[tuple[Explanation, ...], list[str]]:
    try:
        settings = registry.settings
    except DistillError as error:  # a variable that cannot be read; nothing can be said about vocoders
        return (), [str(error)]
    names = {candidate.name for candidate in (*registry.candidates(), *registry.ignored())}
    stories = tuple(registry.explain(name) for name in sorted(names | settings.disabled))
    problems = []
    for story in stories:
        failing = [each for each in story.candidates if each.verdict in ("broken", "wrong api")]
        problems += [f"{each.reason} {each.advice}" for each in failing]
        problems += [advice for advice in story.advice if advice not in problems]
    problems += [leftover_line(each) for each in registry.discovery.duplicates if each.empty]
    problems += hiding_nothing(registry).values()
    offered = {normalized(each.distribution) for each in (*registry.candidates(), *registry.ignored())}
    for wanted, distribution in settings.preferred.items():
        if normalized(distribution) not in offered:
            problems.append(f"DISTILL_VOCODER_PREFER={wanted}={distribution} names a distribution that offers nothing.")
    if not names:
        problems.append(registry.why_none())
    return stories, problems


def _problems(packages: Mapping[str, str | None], torch: Mapping[str, Any]) -> Iterator[str]:
    if packages["torch"] is None and "error" in torch:
        yield "torch is not installed, and no vocoder runs without it. pip install torch"
    elif "error" in torch:
        last = torch["error"].splitlines()[-2:]
        yield f"torch cannot be imported: {' '.join(last)}. Reinstall it: pip install --force-reinstall torch"
    else:
        for kind, reason in torch["devices"].items():
            if reason and torch["names"].get(kind):
                yield f"The device {kind} is there but does not work: {reason}"
    for name, version in packages.items():
        if version is None and name not in OPTIONAL and name != "torch":
            yield f"{name}, which distill-core needs, is not installed. pip install {name}"


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    shown = {}
    for name in VARIABLES:
        for spelling in (name, name.lower()) if name.endswith("_PROXY") else (name,):
            if spelling in environ:
                shown[spelling] = _without_secrets(spelling, environ[spelling])
    return shown


def _without_secrets(name: str, value: str) -> str:
    if name == "HF_TOKEN":
        return "(set)"
    if name.upper().endswith("_PROXY") and "://" not in value:  # HTTP clients put http:// before it themselves
        return without_login(f"http://{value}").removeprefix("http://")
    return without_login(value)


def _cache() -> dict[str, Any]:
    try:
        from .weights.cache import hub_cache

        folder = hub_cache()
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        free = shutil.disk_usage(there).free
        return {
            "folder": str(folder),
            "exists": folder.exists(),
            "writable": os.access(there, os.W_OK),
            "free_bytes": free,
        }
    except Exception as error:  # huggingface_hub may be what is broken
        return {"error": f"{type(error).__name__}: {error}"}


def _report(found: Diagnosis) -> Iterator[str]:
    yield f"distill-core  {found.core['version']} in {found.core['folder']}"
    yield f"python        {found.python['version']}, {found.python['executable']}"
    yield f"platform      {found.python['platform']}, {found.python['machine']}"
    torch = found.torch
    if "error" in torch:
        first, *rest = torch["error"].splitlines()
        yield f"torch         cannot be imported: {first}"
        yield from (f"  | {line}" for line in rest)
    else:
        built = "without CUDA"
        for kind, version in (("CUDA", torch["built_for_cuda"]), ("ROCm", torch["built_for_rocm"])):
            built = f"for {kind} {version}" if version else built
        took = f"{torch['threads']} threads, import takes {torch['seconds']:.1f} s"
        yield f"torch         {torch['version']}, built {built}, {took}"
        for kind, reason in torch["devices"].items():
            names = ", ".join(torch["names"].get(kind, ()))
            works = f"works ({names})" if names else "works"
            yield f"  {kind:11} {f'not usable: {reason}' if reason else works}"
    yield f"packages      {', '.join(_package(name, version) for name, version in found.packages.items())}"
    cache = found.cache
    if "error" in cache:
        yield f"cache         cannot be looked at: {cache['error']}"
    else:
        state = "" if cache["exists"] else ", not there yet"
        state += "" if cache["writable"] else ", not writable"
        yield f"cache         {cache['folder']}{state}, {cache['free_bytes'] / 1e9:.1f} GB free"
    yield "environment" + ("" if found.environment else "   no variable that matters is set")
    yield from (f"  {name}={value}" for name, value in found.environment.items())
    yield ""
    for story in found.vocoders:
        yield from story.lines()
        yield ""
    if found.problems:
        yield f"To do ({len(found.problems)}):"
        yield from (f"  {number}. {problem}" for number, problem in enumerate(found.problems, 1))
    else:
        yield "Nothing is wrong."


def _package(name: str, version: str | None) -> str:
    if version is not None:
        return f"{name} {version}"
    extra = OPTIONAL.get(name)
    return f"{name} not installed" + (f" (optional: pip install 'distill-core[{extra}]')" if extra else "")
