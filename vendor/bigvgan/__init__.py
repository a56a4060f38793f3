"""BigVGAN (Lee et al., ICLR 2023, arXiv:2206.04658): generator, mel and published configurations.

Written for this project against the published architecture and checkpoint layout; the public
names are upstream's, so that either package can stand in for the other.
"""

from ..common.checkpoint import StateDictError, load_file
from ..common.config import AttrDict, ConfigError
from .activation import Activation1d, Snake, SnakeBeta, kaiser_sinc_taps
from .configs import CONFIGS
from .generator import BigVGAN, BigVGANConfig, context, expected_shapes, halo
from .mel import get_mel_spectrogram, mel_spectrogram

__all__ = [
    "CONFIGS",
    "Activation1d",
    "AttrDict",
    "BigVGAN",
    "BigVGANConfig",
    "ConfigError",
    "Snake",
    "SnakeBeta",
    "StateDictError",
    "context",
    "expected_shapes",
    "get_mel_spectrogram",
    "halo",
    "kaiser_sinc_taps",
    "load_file",
    "mel_spectrogram",
]
