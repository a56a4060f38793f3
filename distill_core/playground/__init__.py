"""A page to try vocoders on: hear and see what they make of a sound or of a mel.

`distill-vocoder playground` opens it. What it is made of works in other people's Gradio apps as well:

    picker = VocoderPicker()                                          # choose, see what it is, progress, stop
    picker.run(button.click, work, inputs=[mel_file], outputs=[sound])   # work(vocoder, progress, mel_file)

Gradio is imported when one of `VocoderPicker`, `build` and `serve` is first asked for; `choices`, `jobs`,
`bench` and `page` do without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import build
    from .picker import VocoderPicker
    from .server import serve

__all__ = ["VocoderPicker", "build", "serve"]

_MODULES = {"VocoderPicker": "picker", "build": "app", "serve": "server"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from ..errors import MissingDependencyError

    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "distill_core":
            raise
        raise MissingDependencyError(
            f"The playground needs {error.name}, which is not installed: pip install 'distill-core[playground]'"
        ) from error
    return getattr(module, name)
