"""Every exception a user of distill can meet.

Each message says what was wrong, what was expected and what to do. All of them derive from
`DistillError`; those about a bad argument are also `ValueError`, those about a missing name
also `LookupError`, so that code which knows nothing of distill catches them as usual.
"""

from __future__ import annotations

from collections.abc import Sequence


class DistillError(Exception):
    """Base of all errors raised on purpose by distill and its plug-ins."""


# Registry and plug-ins


class UnknownVocoderError(DistillError, LookupError):
    """No installed plug-in offers this name. `suggestions` are the closest names that exist."""

    def __init__(self, message: str, *, name: str = "", suggestions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.suggestions = tuple(suggestions)


class UnknownVariantError(DistillError, LookupError):
    """The vocoder exists, but has no variant of this name."""


class OptionError(DistillError, ValueError):
    """An option that the vocoder does not take, or a value that an option cannot have."""


class PluginError(DistillError):
    """A plug-in cannot be used; `distribution` names the package it came in, if known."""

    def __init__(self, message: str, *, distribution: str | None = None) -> None:
        super().__init__(message)
        self.distribution = distribution


class PluginBrokenError(PluginError):
    """A plug-in failed while it was imported, validated or loaded; `__cause__` is the original error."""


class PluginConflictError(PluginError):
    """Two distributions offer the same vocoder name and nothing says which one is meant."""


class PluginApiError(PluginError):
    """A card speaks another version of the contract than this distill-core."""


class PluginBlockedError(PluginError):
    """The name is hidden by `DISTILL_VOCODERS_DISABLE`."""


# What goes through a vocoder


class InvalidMelError(DistillError, ValueError):
    """A tensor that cannot be a mel spectrogram for this vocoder: rank, bands, dtype, NaN, no frames."""


class InvalidAudioError(DistillError, ValueError):
    """A waveform or an audio file that cannot be read or analysed."""


class MelFormatError(DistillError, ValueError):
    """A mel format that does not exist (no such preset) or cannot exist (a field out of range)."""


class MelMismatch(DistillError, ValueError):
    """The mel is in another format than the vocoder was trained on, and cannot be converted to it."""


# Where a vocoder runs


class DeviceError(DistillError, ValueError):
    """A device that was asked for by name does not exist or does not work."""


class PrecisionError(DistillError, ValueError):
    """A precision that is unknown, or that this engine or device cannot run."""


class EngineError(DistillError, ValueError):
    """An engine that is unknown, or that cannot run here."""


# Weights


class WeightsError(DistillError):
    """Weights cannot be had or cannot be used."""


class WeightsNotFoundError(WeightsError, LookupError):
    """The folder, file, repository or revision holds no such weights."""


class WeightsOfflineError(WeightsError):
    """The weights are not in the cache, and the network may not be used or cannot be reached."""


class WeightsDownloadError(WeightsError):
    """The download failed; what has arrived is kept, and the next call goes on from there."""


class WeightsIntegrityError(WeightsError):
    """A file's size or sha256 is not the pinned or recorded one."""


class CheckpointError(WeightsError, ValueError):
    """A checkpoint that is damaged, belongs to another model, or does not fit its configuration."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that would run code on loading. It was not run."""


# Files the command line writes


class OutputExistsError(DistillError):
    """An output file exists already, and nothing says that it may be overwritten."""


class CorpusError(DistillError):
    """A corpus cannot be enumerated or written: a source that is not there, a manifest's line, a full disk."""


class MissingDependencyError(DistillError, ImportError):
    """An optional package is needed for what was asked; the message says what to `pip install`."""
