"""Configurations that cannot be of the architecture are refused with one clear sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vendor.bigvgan import CONFIGS, BigVGAN, ConfigError, halo
from vendor.hifigan import CONFIGS as HIFIGAN_CONFIGS
from vendor.hifigan import HiFiGAN

H = {**CONFIGS["bigvgan_base_22khz_80band"], "upsample_initial_channel": 32}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"resblock": "3"}, "resblock is '3'"),
    ({"upsample_rates": [8, 8, 2]}, "3 upsample_rates but 4 upsample_kernel_sizes"),
    ({"upsample_kernel_sizes": [16, 16, 4, 1]}, "upsample kernel 1 does not fit rate 2"),
    ({"upsample_kernel_sizes": [16, 16, 4, 5]}, "upsample kernel 5 does not fit rate 2"),
    ({"upsample_rates": []}, "upsample_rates is [], expected a list"),
    ({"upsample_rates": 8}, "upsample_rates is 8, expected a list"),
    ({"upsample_rates": "8822"}, "upsample_rates is '8822', expected a list"),
    ({"upsample_rates": [8, 8, 2, 0]}, "upsample_rates holds 0"),
    ({"upsample_rates": [8, 8, 2, 2.0]}, "upsample_rates holds 2.0"),
    ({"upsample_initial_channel": 15}, "15 cannot be halved 4 times"),
    ({"upsample_initial_channel": "512"}, "upsample_initial_channel holds '512'"),
    ({"resblock_kernel_sizes": [3, 6, 11]}, "must be odd, got [6]"),
    ({"resblock_kernel_sizes": [3, 7]}, "2 resblock_kernel_sizes but 3 resblock_dilation_sizes"),
    ({"resblock_dilation_sizes": [1, 3, 5]}, "resblock_dilation_sizes is 1, expected a list"),
    ({"resblock_dilation_sizes": None}, "resblock_dilation_sizes is None"),
    ({"resblock_dilation_sizes": [[1], [], [1]]}, "resblock_dilation_sizes is []"),
    ({"num_mels": True}, "num_mels holds True"),
    ({"num_mels": -80}, "num_mels holds -80"),
    ({"hop_size": 512}, "make 256 samples a frame, but hop_size is 512"),
    ({"upsample_initial_channel": 10**12}, "upsample_initial_channel holds a number above 1048576"),
    ({"upsample_initial_channel": 10**400}, "upsample_initial_channel holds a number above 1048576"),
    (
        {"resblock_kernel_sizes": [3] * 9000, "resblock_dilation_sizes": [[1]] * 9000},
        "convolutions, expected at most 2000",
    ),
    ({"activation": "relu"}, "activation is 'relu'"),
    ({"activation": ["snake"]}, "activation is ['snake']"),
    ({"snake_logscale": 1}, "snake_logscale is 1, expected true or false"),
    ({"use_tanh_at_final": "no"}, "use_tanh_at_final is 'no', expected true or false"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=lambda value: str(value)[:50])
def test_wrong_values(change: dict[str, Any], message: str) -> None:
    for use in (BigVGAN, halo):
        with pytest.raises(ConfigError) as caught:
            use({**H, **change})
        assert str(caught.value).startswith("not a BigVGAN configuration: ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_all_missing_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match="missing num_mels, upsample_rates$"):
        BigVGAN({key: value for key, value in H.items() if key not in ("num_mels", "upsample_rates")})
    with pytest.raises(ConfigError, match="missing snake_logscale$"):
        BigVGAN({key: value for key, value in H.items() if key != "snake_logscale"})
    with pytest.raises(ConfigError, match=r"not a HiFi-GAN configuration: missing resblock, upsample_rates"):
        HiFiGAN({})


def test_what_is_no_configuration() -> None:
    for h in (None, 3, "config.json", ["resblock"]):
        with pytest.raises(ConfigError):
            BigVGAN(h)


def test_a_mapping_or_an_object_with_attributes() -> None:
    for h in (H, SimpleNamespace(**H)):
        model = BigVGAN(h)
        assert model.h == H
        assert model.h.num_mels == model.h["num_mels"] == 80
        with pytest.raises(AttributeError, match="'epochs'"):
            model.h.epochs  # noqa: B018


def test_unknown_keys_are_ignored_and_first_generation_defaults_hold() -> None:
    model = BigVGAN({**H, "normalize_volume": True, "lr_decay": 0.99})
    assert "use_tanh_at_final" not in H
    assert model.config.use_tanh_at_final
    assert model.conv_post.bias is not None


def test_hifigan_has_80_bands_unless_it_says_otherwise() -> None:
    h = {key: value for key, value in HIFIGAN_CONFIGS["v3"].items() if key != "num_mels"}
    assert HiFiGAN(h).config.num_mels == 80


@pytest.mark.parametrize("h", [*CONFIGS.values(), *HIFIGAN_CONFIGS.values()])
def test_published_configurations_hold_together(h: dict[str, Any]) -> None:
    assert h["win_size"] == h["n_fft"] == 4 * h["hop_size"]
    assert h["fmax"] is None or h["fmax"] <= h["sampling_rate"] / 2
