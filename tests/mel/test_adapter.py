"""MelAdapter: frames, slices, silence, time, pitch, refusals. How good it is, `benchmarks.mel_adapter` measures."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading

import pytest
import torch

from distill_core.errors import DeviceError, InvalidMelError, MelMismatch
from distill_core.mel import MelAdapter, MelSpec

VAE = MelSpec.preset("distill-vae")
BIGVGAN = MelSpec.preset("bigvgan-44khz-128band-512x")
HIFIGAN = MelSpec.preset("hifigan-22khz-80band")
PAIRS = [
    ("distill-vae", "bigvgan-44khz-128band-512x"),
    ("distill-vae", "hifigan-22khz-80band"),
    ("distill-vae", "bigvgan-44khz-128band-256x"),
    ("bigvgan-24khz-100band-256x", "vocos-24khz-100band"),
    ("vocos-24khz-100band", "bigvgan-44khz-128band-512x"),
    ("hifigan-22khz-80band", "distill-vae"),
]


def same_sound(first: MelSpec, second: MelSpec, seconds: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pink noise with a swell, sampled at both formats' rates: one continuous signal, no resampler between."""
    generator = torch.Generator().manual_seed(seed)
    top = int(min(first.nyquist, second.nyquist) * seconds) - 1
    spectrum = torch.zeros(top + 1, dtype=torch.complex128)
    spectrum[1:] = torch.randn(top, dtype=torch.complex128, generator=generator)
    spectrum[1:] /= (1 + torch.arange(1, top + 1) / (seconds * 200)).sqrt()
    waves = []
    for spec in (first, second):
        samples = int(spec.sample_rate * seconds)
        whole = torch.zeros(samples // 2 + 1, dtype=torch.complex128)
        whole[: top + 1] = spectrum
        wave = torch.fft.irfft(whole * samples, n=samples)
        waves.append(wave * (1.1 + torch.sin(2 * math.pi * 3 * torch.arange(samples) / spec.sample_rate)))
    peak = waves[0].abs().max()
    return (waves[0] / peak).float(), (waves[1] / peak).float()


def source_mel(name: str, frames: int, batch: int = 1) -> torch.Tensor:
    spec = MelSpec.preset(name)
    mels = [
        spec.analyze(same_sound(spec, spec, (frames + 1) * spec.hop_length / spec.sample_rate, seed)[0])
        for seed in range(batch)
    ]
    return torch.cat(mels)[..., :frames]


def closeness(made: torch.Tensor, expected: torch.Tensor) -> float:
    return float((made - expected).abs().max() / expected.abs().max())


REWRITTEN = {
    "log10": (HIFIGAN, {"log": "log10", "floor": 1e-10}),
    "no logarithm": (BIGVGAN, {"log": None, "floor": 0.0}),
    "peak 1": (HIFIGAN, {"norm": None}),
    "area 1": (VAE, {"norm": "slaney"}),
    "no eps": (BIGVGAN, {"eps": 0.0}),
    "ln": (VAE, {"log": "ln", "floor": 1e-10}),
}


@pytest.mark.parametrize("what", REWRITTEN)
def test_what_is_only_written_in_another_way_is_converted_value_by_value(what: str) -> None:
    target, changes = REWRITTEN[what]
    source = dataclasses.replace(target, **changes)
    wave = same_sound(target, target, 1.0)[0]
    wave[: len(wave) // 3] = 0
    mel, expected = source.analyze(wave), target.analyze(wave)
    adapter = MelAdapter(source, target)
    assert adapter.pointwise and adapter.context == 0
    made = adapter(mel)
    assert torch.allclose(made, expected, atol=1e-3), (made - expected).abs().max()
    frames = mel.shape[-1]
    assert [adapter.ready(count) for count in (0, 1, 7, frames)] == [0, 1, 7, frames]
    lo, hi = adapter.window(5, 40, None)
    part = adapter.convert(mel[..., lo:hi], offset=lo, start=5, stop=40, total=None)
    assert closeness(part, made[..., 5:40]) <= 1e-5


def test_what_lies_elsewhere_is_not_converted_value_by_value() -> None:
    for changes in ({"center": True}, {"scale": "htk"}, {"fmin": 20.0}, {"power": 2.0}, {"win_length": 1000}):
        assert not MelAdapter(dataclasses.replace(HIFIGAN, **changes), HIFIGAN).pointwise


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_slices_give_what_the_whole_gives(source: str, target: str) -> None:
    adapter = MelAdapter(MelSpec.preset(source), MelSpec.preset(target))
    # Longer than the context, so that slices lack what is too far off to matter.
    mel = source_mel(source, 400, batch=2)
    whole = adapter(mel)
    frames = adapter.out_frames(400)
    assert whole.shape == (2, MelSpec.preset(target).n_mels, frames)
    generator = torch.Generator().manual_seed(3)
    cuts = sorted({0, frames, 1, *torch.randint(1, frames, (9,), generator=generator).tolist()})
    pieces = []
    for start, stop in itertools.pairwise(cuts):
        lo, hi = adapter.window(start, stop, 400)
        pieces.append(adapter.convert(mel[..., lo:hi], offset=lo, start=start, stop=stop, total=400))
    assert closeness(torch.cat(pieces, dim=-1), whole) <= 1e-5
    each = torch.cat([adapter(row[None]) for row in mel])
    assert closeness(each, whole) <= 1e-5


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_growing_mel_gives_settled_frames(source: str, target: str) -> None:
    """`ready` promises frames that nothing arriving later changes, and promises every one it can."""
    adapter = MelAdapter(MelSpec.preset(source), MelSpec.preset(target))
    mel = source_mel(source, 60)
    whole = adapter(mel)
    done = 0
    pieces = []
    for arrived in range(1, 61):
        ready = adapter.ready(arrived)
        assert done <= ready <= adapter.out_frames(arrived)
        # One more would look at a frame that has not come, or last longer than what has.
        assert adapter.window(ready, ready + 1, None)[1] > arrived or ready == adapter.out_frames(arrived)
        if ready > done:
            lo, hi = adapter.window(done, ready, None)
            assert hi <= arrived
            pieces.append(adapter.convert(mel[..., lo:hi], offset=lo, start=done, stop=ready, total=None))
            done = ready
    stop = adapter.out_frames(60)
    lo, hi = adapter.window(done, stop, 60)
    pieces.append(adapter.convert(mel[..., lo:hi], offset=lo, start=done, stop=stop, total=60))
    assert closeness(torch.cat(pieces, dim=-1), whole) <= 1e-5


def test_context_bounds_the_window() -> None:
    for source, target in PAIRS:
        adapter = MelAdapter(MelSpec.preset(source), MelSpec.preset(target))
        for frame in (100, 101, 5000):
            lo, hi = adapter.window(frame, frame + 1, None)
            assert hi - lo <= 2 * adapter.context + 1


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_one_frame_and_few(source: str, target: str) -> None:
    adapter = MelAdapter(MelSpec.preset(source), MelSpec.preset(target))
    for frames in (1, 2, 3, 17):
        made = adapter(source_mel(source, 20)[..., :frames])
        assert made.shape[-1] == adapter.out_frames(frames) >= 1
        assert torch.isfinite(made).all()


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("samples", [4096, 9999, 48_000, 48_511, 50_175, 2_880_000])
def test_the_duration_is_that_of_the_sound_within_a_hop(source: str, target: str, samples: int) -> None:
    """And no frame that a source frame is centred in is missing."""
    first, second = MelSpec.preset(source), MelSpec.preset(target)
    frames = first.frames(samples)
    made = MelAdapter(first, second).out_frames(frames)
    hop, target_hop = first.hop_length / first.sample_rate, second.hop_length / second.sample_rate
    lasts = (made - second.center) * target_hop
    assert abs(lasts - samples / first.sample_rate) < max(hop, target_hop)
    assert lasts >= (frames - first.center) * hop - 1e-9


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_silence_is_silence(source: str, target: str) -> None:
    first, second = MelSpec.preset(source), MelSpec.preset(target)
    made = MelAdapter(first, second)(first.analyze(torch.zeros(first.sample_rate)))
    own = second.analyze(torch.zeros(second.sample_rate))
    assert float(made.max()) <= float(own.max()) + 1e-6


@pytest.mark.parametrize("target", [BIGVGAN, HIFIGAN])
def test_clicks_stay_in_place_for_a_minute(target: MelSpec) -> None:
    """Every click within half a hop of where the native mel has it, at the end as at the beginning."""
    seconds = 60
    times = torch.arange(0.37, seconds - 0.5, 1.73)
    mels = []
    for spec in (VAE, target):
        wave = torch.zeros(seconds * spec.sample_rate)
        wave[(times * spec.sample_rate).round().long()] = 0.9
        mels.append(spec.analyze(wave))
    made, true = MelAdapter(VAE, target)(mels[0]).exp().mean(1)[0], mels[1].exp().mean(1)[0]
    hop = target.hop_length / target.sample_rate
    half = round(0.06 / hop)
    errors = []
    for time in times.tolist():
        middle = round((time * target.sample_rate - target.first_center) / target.hop_length)
        near = slice(middle - half, middle + half + 1)
        clock = torch.arange(middle - half, middle + half + 1)
        places = [float((energy[near] * clock).sum() / energy[near].sum()) for energy in (made, true)]
        errors.append(places[0] - places[1])
    assert max(abs(error) for error in errors) <= 0.5
    drift = sum(errors[-5:]) / 5 - sum(errors[:5]) / 5
    assert abs(drift) <= 0.1
    assert abs(made.shape[0] * hop - seconds) <= hop


def level_of_noise(adapter: MelAdapter, seconds: float) -> torch.Tensor:
    """How much louder noise is in each band than in the target's own mel of it, in dB: `[m]`, for log magnitudes."""
    first, second = same_sound(adapter.source, adapter.target, seconds)
    true = adapter.target.analyze(second)
    made = adapter(adapter.source.analyze(first))[..., : true.shape[-1]]
    inner = slice(10, true.shape[-1] - 10)
    return 20 / math.log(10) * (made - true)[..., inner].mean(-1)[0]


@pytest.mark.parametrize("target", [BIGVGAN, HIFIGAN])
@pytest.mark.parametrize("refine", [True, False])
def test_the_level_of_noise_is_right_in_every_band(target: MelSpec, refine: bool) -> None:
    decibels = level_of_noise(MelAdapter(VAE, target, refine=refine), 6.0)
    assert float(decibels.mean().abs()) <= 0.5
    assert float(decibels[2:-2].abs().max()) <= 2.5


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("bigvgan-44khz-128band-512x", "bigvgan-44khz-128band-256x"),  # to bins twice as wide
        ("bigvgan-44khz-128band-256x", "bigvgan-44khz-128band-512x"),  # and half as wide
        ("bigvgan-24khz-100band-256x", "vocos-24khz-100band"),
    ],
)
def test_the_level_of_noise_is_right_where_magnitudes_become_magnitudes(source: str, target: str) -> None:
    decibels = level_of_noise(MelAdapter(source, target), 2.0)
    assert float(decibels.mean().abs()) <= 1.0
    assert float(decibels[2:-2].abs().max()) <= 2.5


def sine_profile(spec: MelSpec, hertz: float, adapter: MelAdapter | None) -> torch.Tensor:
    """The mean mel of a sine in magnitudes, `[m]`; from the app's mel, if through an adapter."""
    clock = torch.arange(spec.sample_rate).double() / spec.sample_rate
    mel = spec.analyze((0.5 * torch.sin(2 * math.pi * hertz * clock)).float())
    made = mel if adapter is None else adapter(mel)
    return made[0, :, 35:-35].exp().mean(-1)


@pytest.mark.parametrize("target", [BIGVGAN, HIFIGAN])
@pytest.mark.parametrize(
    "frequency",
    [
        60,
        61,
        64.5,
        70,
        85,
        110,
        130.81,
        150,
        196,
        261.63,
        300,
        415.3,
        440,
        466.16,
        880,
        1760,
        3520,
        7040,
        9000,
        12000,
        15000,
    ],
)
def test_the_pitch_and_the_level_of_a_sine_are_kept(target: MelSpec, frequency: float) -> None:
    """Of all sines within 50 cents, the one whose true mel is closest to the converted is within 5; level 1 dB.

    Power taken for bins, or Hz for bin numbers, moves a sine.
    """
    assert target.fmax is not None
    if frequency > 0.95 * target.fmax:
        pytest.skip("above the target's range")
    cents = [2.5 * step for step in range(-20, 21)]
    profiles = [sine_profile(target, frequency * 2 ** (each / 1200), None) for each in cents]
    true = profiles[20]
    for refine in (True, False):
        made = sine_profile(VAE, frequency, MelAdapter(VAE, target, refine=refine))
        distances = [float((each.sqrt() - made.sqrt()).square().sum()) for each in profiles]
        assert abs(cents[distances.index(min(distances))]) <= 5, refine
        assert abs(10 * math.log10(float(made.square().sum() / true.square().sum()))) <= 1.0, refine


def test_the_same_format_passes_through() -> None:
    mel, adapter = source_mel("distill-vae", 30), MelAdapter(VAE, VAE)
    assert torch.equal(adapter(mel), mel)
    assert torch.equal(adapter.convert(mel[:, :, 5:20], offset=5, start=8, stop=15, total=None), mel[:, :, 8:15])


def test_incompatible_formats_are_refused_with_the_reason() -> None:
    bass = dataclasses.replace(BIGVGAN, fmin=0.0, fmax=200.0, n_mels=8)
    with pytest.raises(MelMismatch, match="of the target's"):
        MelAdapter(bass, BIGVGAN)


@pytest.mark.parametrize(
    "mel",
    [
        torch.zeros(128, 30),
        torch.zeros(1, 80, 30),
        torch.zeros(1, 128, 0),
        torch.zeros(0, 128, 30),
        torch.zeros(1, 128, 30, dtype=torch.int64),
        torch.zeros(1, 128, 30, device="meta"),
        torch.zeros(1, 128, 30).to_sparse(),
        [[0.0]],
        None,
    ],
)
def test_what_is_no_mel_of_the_source_is_refused(mel: torch.Tensor) -> None:
    adapter = MelAdapter(VAE, BIGVGAN)
    with pytest.raises(InvalidMelError, match="128"):
        adapter.convert(mel, offset=0, start=0, stop=5, total=30)
    with pytest.raises(InvalidMelError, match="128"):
        adapter(mel)


def test_bands_too_wide_for_any_tone_to_stand_alone_are_converted_too() -> None:
    """Of powers, where tones are looked for: the one band of this format leaves no place for any."""
    wide = dataclasses.replace(VAE, n_mels=1)
    made = MelAdapter(wide, dataclasses.replace(VAE, n_mels=2, fmax=8000.0))(torch.rand(2, 1, 20))
    assert made.shape == (2, 2, 20)
    assert made.isfinite().all()


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(DeviceError, match="There is no device 'gpu'"):
        MelAdapter(VAE, BIGVGAN, device="gpu")


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("value", [89.0, 38.0, 3e38, float("nan"), float("inf")])
def test_what_no_sound_has_is_refused_with_its_place(value: float, refine: bool) -> None:
    """Rather than spread over the frames around it as NaN."""
    adapter = MelAdapter(VAE, BIGVGAN, refine=refine)
    mel = torch.rand(2, 128, 200)
    mel[1, 5, 140] = value
    with pytest.raises(InvalidMelError, match="item 1, band 5, frame 140: beyond 36.8"):
        adapter(mel)
    lo, hi = adapter.window(60, 120, 200)
    with pytest.raises(InvalidMelError, match="item 1, band 5, frame 140"):
        adapter.convert(mel[:, :, lo : max(hi, 141)], offset=lo, start=60, stop=120, total=200)
    mel[1, 5, 140] = 36.0  # louder than any sound, and still a number behind it
    assert adapter(mel).isfinite().all()


def test_a_slice_that_lacks_context_is_refused() -> None:
    adapter = MelAdapter(VAE, BIGVGAN)
    with pytest.raises(ValueError, match="depend on source frames"):
        adapter.convert(torch.zeros(1, 128, 3), offset=50, start=60, stop=70, total=200)


def test_threads_share_an_adapter() -> None:
    adapter = MelAdapter(VAE, HIFIGAN)
    mel = source_mel("distill-vae", 60)
    expected = adapter(mel)
    results: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(adapter(mel))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(closeness(result, expected) <= 1e-5 for result in results)


def test_half_precision_and_gradients() -> None:
    adapter = MelAdapter(VAE, BIGVGAN)
    mel = source_mel("distill-vae", 40)
    made = adapter(mel.clone().requires_grad_())
    assert not made.requires_grad
    half = adapter(mel.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, made, atol=0.2, rtol=0.05)
