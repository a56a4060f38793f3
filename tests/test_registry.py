"""Registry: names from metadata, activation, loading once, conflicts, the environment's say."""

from __future__ import annotations

import copy
import faulthandler
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import numpy as np
import pytest
import torch

from distill_core import Registry, Variant, WeightsPin, catalog, device, errors, get_vocoder, hookimpl
from distill_core.discovery import Candidate, Discovery, Settings, discover
from distill_core.loaded import Loaded, identity
from tests import toy


def offer(name: str, module: str, distribution: str = "toy-dist", version: str = "1.0") -> Candidate:
    return Candidate(name, module, distribution, version, f"/site/{distribution}.dist-info")


@pytest.fixture
def modules(monkeypatch):
    """Put plug-in modules in front of the import system by name."""

    def add(name: str, *cards, **attributes) -> None:
        module = ModuleType(name)
        if cards:

            @hookimpl
            def distill_vocoders():
                return list(cards)

            module.distill_vocoders = distill_vocoders
        for key, value in attributes.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)

    return add


def registry_of(*candidates: Candidate, environ=None) -> Registry:
    return Registry(find=lambda: Discovery(candidates), environ=environ or {})


@pytest.fixture
def good(modules) -> Registry:
    modules("good_plugin", toy.card("toy"))
    return registry_of(offer("toy", "good_plugin"), offer("broken", "no_such_module_anywhere", "bad-dist"))


def test_names_are_known_without_importing_anything(good: Registry) -> None:
    assert good.names() == ["broken", "toy"]
    assert good.plugin_manager.get_plugins() == set()


def test_importing_and_listing_loads_neither_torch_nor_a_plugin() -> None:
    script = (
        "import sys, distill_core; distill_core.registry.names()\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'torch', 'numpy', 'huggingface_hub', 'distill_bigvgan', 'distill_hifigan', 'tqdm'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", ["distill_core", "distill_core.mel", "distill_core.weights", "distill_bigvgan", "distill_hifigan"]
)
def test_what_is_imported_when_asked_for_is_listed_before(name: str) -> None:
    """For whoever completes names in a shell; in a process of its own, where nothing has been asked for yet."""
    code = f"import sys, {name} as m; print(set(m.__all__) <= set(dir(m)), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_get_loads_once_for_the_same_arguments(good: Registry) -> None:
    one = good.get("toy", device="cpu")
    assert good.get("toy", device="cpu") is one
    assert good.get("toy", device="auto") is one or good.get("toy").device.type != "cpu"
    assert good.get("toy", device="cpu", variant="plain") is one
    other = good.get("toy", device="cpu", variant="other")
    assert other is not one
    assert other.variant.name == "other"
    assert good.get("toy", device="cpu", precision="bf16") is not one
    assert good.get("toy", device="cpu", chunk_frames=7).chunk_frames == 7
    good.unload("toy")
    assert good.get("toy", device="cpu") is not one


def test_the_end_of_a_vocoder_may_be_heard_by_one_who_asks_the_registry(good: Registry) -> None:
    names: list[str] = []

    def let_go() -> None:
        good.unload("toy")
        names.append(good.get("toy", device="cpu", variant="other").variant.name)

    for unload in (lambda: good.unload("toy"), good.unload):
        weakref.finalize(good.get("toy", device="cpu"), let_go)
        thread = threading.Thread(target=unload, daemon=True)  # not this one: it would wait forever
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    assert names == ["other", "other"]


def test_what_it_loads_works(good: Registry) -> None:
    mel = toy.mel()
    assert good.get("toy", device="cpu").mel_to_waveform(mel).shape == (2, 1, 800)


def test_what_runs_on_the_cpu_alone_is_not_moved_where_there_is_more(monkeypatch) -> None:
    registry = Registry(find=Discovery, environ={})
    registry.register(toy.plugin(toy.card("toy", devices=["cpu"])))
    vocoder, adapted = registry.get("toy"), registry.get("toy", mel=replace(toy.MEL, floor=1e-4))
    monkeypatch.setattr(device, "_present", lambda kind: kind in ("mps", "cpu"))
    monkeypatch.setattr(device, "why_unusable", lambda _: None)
    for each in (vocoder, adapted):
        assert each.to("auto").device.type == "cpu"
        with pytest.raises(errors.DeviceError, match="does not run on 'mps'; it runs on cpu"):
            each.to("mps")


@pytest.mark.parametrize("name", ["voice.onnx", "voice.weights", "config.json"])
def test_a_folder_of_any_frameworks_weights_that_is_written_to_is_loaded_anew(tmp_path, name: str) -> None:
    """Of what a plug-in reads by itself the core knows the usual endings, and the names in the variant's pin."""
    pin = WeightsPin("me/voice", "main", {"voice.weights": (None, None)})
    registry = Registry(find=Discovery, environ={})
    registry.register(toy.plugin(toy.card("toy", variants=[replace(toy.VARIANT, weights=pin)])))
    (tmp_path / name).write_bytes(b"1")
    (tmp_path / "training.log").write_text("begun")
    first = registry.get("toy", weights=tmp_path)
    (tmp_path / "training.log").write_text("still going on")
    assert registry.get("toy", weights=tmp_path) is first
    (tmp_path / name).write_bytes(b"of another size")
    assert registry.get("toy", weights=tmp_path) is not first


def test_sixteen_threads_load_once(good: Registry, monkeypatch) -> None:
    loads = []
    barrier = threading.Barrier(16)
    real = toy.load

    def slow(*args, **kwargs):
        loads.append(1)
        threading.Event().wait(0.1)
        return real(*args, **kwargs)

    monkeypatch.setattr(toy, "load", slow)
    got = []

    def work() -> None:
        barrier.wait()
        got.append(good.get("toy", device="cpu"))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(got) == 16
    assert len(set(map(id, got))) == 1


def test_a_broken_neighbour_hurts_nobody(good: Registry, caplog) -> None:
    assert [card.name for card in good.cards()] == ["toy"]
    assert "bad-dist" in caplog.text
    assert good.get("toy", device="cpu")
    messages = set()
    for _ in range(2):
        with pytest.raises(errors.PluginBrokenError) as caught:
            good.get("broken")
        assert caught.value.distribution == "bad-dist"
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("from distill_core import MelSpec\nMEL = MelSpec.preset('no-such-preset')\n", errors.MelFormatError),
        ("from distill_core import registry\nregistry.candidate('no-such-vocoder')\n", errors.UnknownVocoderError),
        ("from distill_core import errors\nraise errors.MissingDependencyError('planted')\n", ImportError),
    ],
)
def test_a_plugin_whose_import_raises_an_error_of_ours_is_as_broken_as_any(
    good: Registry, tmp_path, monkeypatch, caplog, body: str, cause: type[Exception]
) -> None:
    (tmp_path / "erring_plugin.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    registry = registry_of(offer("erring", "erring_plugin", "erring-dist"), *good.candidates("toy"))
    assert [card.name for card in registry.cards()] == ["toy"]
    assert "erring-dist" in caplog.text
    with pytest.raises(errors.PluginBrokenError, match=r"erring-dist 1\.0.*importing 'erring_plugin' failed") as caught:
        registry.get("erring")
    assert isinstance(caught.value.__cause__, cause)
    assert registry.explain("erring").candidates[0].verdict == "broken"


def test_an_unknown_name_gets_the_closest_ones(good: Registry) -> None:
    with pytest.raises(errors.UnknownVocoderError, match="Did you mean 'toy'") as caught:
        good.get("toyy")
    assert caught.value.suggestions == ("toy",)
    assert isinstance(caught.value, LookupError)
    assert good.plugin_manager.get_plugins() == set()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bigvgan", "'bigvgan' is not installed. Install it: pip install distill-bigvgan"),
        ("bigvgn", "no vocoder 'bigvgn'.*Installed: broken, toy. For 'bigvgan': pip install distill-bigvgan"),
        ("BigVGAN", "no vocoder 'BigVGAN'.*Installed: broken, toy. For 'bigvgan': pip install distill-bigvgan"),
    ],
)
def test_a_name_this_project_knows_comes_with_what_to_install(good: Registry, name: str, words: str) -> None:
    with pytest.raises(errors.UnknownVocoderError, match=words):
        good.get(name)


def test_an_unknown_variant_gets_the_list(good: Registry) -> None:
    with pytest.raises(errors.UnknownVariantError, match="Did you mean 'plain'.*It has: plain, other"):
        good.get("toy", variant="plane")


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"device": "gpu"}, errors.DeviceError, "gpu"),
        ({"device": "cuda:99"}, errors.DeviceError, "cuda:99"),
        ({"precision": "int8"}, errors.PrecisionError, "int8"),
        ({"weights": 3}, errors.OptionError, "not int"),
        ({"weights": "a\0b"}, errors.OptionError, "names no file or folder"),
        ({"weights": ""}, errors.OptionError, "names no file or folder"),
        ({"mel": "no-such-format"}, errors.MelFormatError, "no-such-format"),
        ({"mel": 5}, errors.MelFormatError, "not int"),
        ({"mel": {"n_mels": 5}}, errors.MelFormatError, "MelSpec.from_config"),
        ({"mel": "distill-vae"}, errors.MelMismatch, "cannot be converted"),
        ({"sample_rate": 44100.5}, errors.InvalidAudioError, "sample_rate must be"),
        ({"sample_rate": "44100"}, errors.InvalidAudioError, "sample_rate must be"),
        ({"sample_rate": True}, errors.InvalidAudioError, "sample_rate must be"),
        ({"sample_rate": [44100]}, errors.InvalidAudioError, "not [44100]"),
        ({"no_such_option": 1}, errors.OptionError, "takes no option 'no_such_option'"),
        ({"devise": "cpu"}, errors.OptionError, "Did you mean 'device'? Its options: chunk_frames"),
        ({"chunk_frame": 8}, errors.OptionError, "Did you mean 'chunk_frames'?"),
        ({"card": None}, errors.OptionError, "takes no option 'card'"),
        ({"chunk_frames": 0}, errors.OptionError, "not 0"),
        ({"chunk_frames": "big"}, errors.OptionError, "not 'big'"),
        ({"chunk_frames": float("nan")}, errors.OptionError, "not nan"),
        ({"chunk_frames": True}, errors.OptionError, "not True"),
    ],
)
def test_bad_arguments_are_named(good: Registry, arguments: dict, error: type[Exception], word: str) -> None:
    with pytest.raises(error) as caught:
        good.get("toy", **arguments)
    assert isinstance(caught.value, errors.DistillError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize("option", ["progress", "tqdm_class"])
def test_an_option_that_is_not_taken_is_refused_by_a_vocoder_that_is_loaded_as_well(good: Registry, option) -> None:
    for _ in range(2):
        with pytest.raises(errors.OptionError, match=f"takes no option '{option}'"):
            good.get("toy", device="cpu", **{option: False})
        good.get("toy", device="cpu")


def test_a_rate_that_is_none_is_named_by_a_vocoder_that_is_loaded_as_well(good: Registry) -> None:
    good.get("toy", device="cpu")
    for wrong in ([44100], {}, np.array([44100, 48000])):
        with pytest.raises(errors.InvalidAudioError, match="sample_rate must be a positive whole number of Hz"):
            good.get("toy", device="cpu", sample_rate=wrong)  # type: ignore[arg-type]


def test_where_there_is_no_memory_to_load_it_the_plugin_is_not_to_blame(good: Registry, monkeypatch) -> None:
    real = toy.load

    def full(*_: object, **__: object) -> None:
        raise MemoryError("cannot allocate")

    monkeypatch.setattr(toy, "load", full)
    with pytest.raises(MemoryError, match="cannot allocate"):
        good.get("toy", device="cpu")
    monkeypatch.setattr(toy, "load", real)
    assert good.get("toy", device="cpu").sample_rate == 8000


def test_a_name_that_is_no_string_is_unknown(good: Registry) -> None:
    for wrong in (["toy"], None, ""):
        for call in (good.get, good.candidate, good.card, good.explain):
            with pytest.raises(errors.UnknownVocoderError, match="named by a word, such as 'bigvgan', not by"):
                call(wrong)  # type: ignore[arg-type]


def test_what_is_whole_is_a_number_of_frames_and_a_rate(good: Registry) -> None:
    assert good.get("toy", device="cpu", chunk_frames=np.int64(7)).chunk_frames == 7
    assert good.get("toy", device="cpu", sample_rate=16000.0).sample_rate == 16000
    assert good.get("toy", device="cpu", sample_rate=np.int32(16000)) is good.get(
        "toy", device="cpu", sample_rate=16000
    )


def test_what_has_no_hash_is_told_apart(good: Registry, monkeypatch) -> None:
    real = toy.load

    def load(card, variant, *, device, precision, weights=None, voice=None, depth=None, progress=True, tqdm_class=None):
        return real(card, variant, device=device, precision=precision)

    monkeypatch.setattr(toy, "load", load)
    one = np.zeros(5000)
    other = one.copy()
    other[2500] = 1  # where numpy's repr has three dots
    vocoders = [good.get("toy", device="cpu", voice=voice) for voice in (one, other, one)]
    assert vocoders[0] is vocoders[2] is not vocoders[1]
    assert good.get("toy", device="cpu", depth=True) is not good.get("toy", device="cpu", depth=1)
    for value in ([1, {"a": [2]}], {"a": (1, 2)}):
        assert good.get("toy", device="cpu", voice=value) is good.get("toy", device="cpu", voice=copy.deepcopy(value))
    assert len({id(good.get("toy", device="cpu", voice=voice)) for voice in ([1], [2], (1,))}) == 3
    assert good.get("toy", device="cpu", voice=1, depth=2) is good.get("toy", device="cpu", depth=2, voice=1)
    # What is seen of the loading makes no other vocoder.
    assert good.get("toy", device="cpu", progress=False, tqdm_class=int) is good.get("toy", device="cpu")


def test_a_path_is_the_same_however_it_is_written(tmp_path: Path, monkeypatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert len({identity(path) for path in ("~/w", "w", "x/../w", tmp_path / "w", str(tmp_path / "w"))}) == 1


def test_whoever_waited_for_a_load_that_failed_loads_for_all_who_come_later(good: Registry, monkeypatch) -> None:
    real, loading, calls = toy.load, threading.Event(), []

    def fails_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            loading.set()
            time.sleep(0.3)
            raise RuntimeError("planted")
        return real(*args, **kwargs)

    monkeypatch.setattr(toy, "load", fails_once)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(good.get, "toy", device="cpu")
        loading.wait()
        second = pool.submit(good.get, "toy", device="cpu")
        with pytest.raises(errors.PluginBrokenError):
            first.result()
        assert good.get("toy", device="cpu") is second.result()
    assert len(calls) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_another_thread_loads_can_load(good: Registry, monkeypatch) -> None:
    real, loading, go_on = toy.load, threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            loading.set()
            go_on.wait(10)
        return real(*args, **kwargs)

    monkeypatch.setattr(toy, "load", slow)
    ready = good.get("toy", device="cpu", variant="other")
    thread = threading.Thread(target=good.get, args=("toy",), kwargs={"device": "cpu"})
    thread.start()
    loading.wait()
    with good._lock:  # as another thread may at any moment
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(10, exit=True)
            same = good.get("toy", device="cpu", variant="other") is ready
            os._exit(0 if same and good.get("toy", device="cpu") and good.names() else 1)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_factory_that_would_end_the_program_is_a_broken_plugin(good: Registry, monkeypatch) -> None:
    def leaves(*args, **kwargs):
        raise SystemExit(3)

    monkeypatch.setattr(toy, "load", leaves)
    with pytest.raises(errors.PluginBrokenError, match="SystemExit"):
        good.get("toy", device="cpu")


def test_why_there_is_none(modules) -> None:
    modules("good_plugin", toy.card("toy"))
    for environ, words in (
        ({"DISTILL_VOCODERS_AUTOLOAD": "0"}, "AUTOLOAD turns off"),
        ({"DISTILL_VOCODERS_DISABLE": "toy"}, "DISABLE hides toy"),
    ):
        registry = registry_of(offer("toy", "good_plugin"), environ=environ)
        with pytest.raises(errors.UnknownVocoderError, match=words):
            registry.get()
        assert "pip install" not in registry.why_none()


def test_a_cpu_has_one_name(good: Registry) -> None:
    assert good.get("toy", device="cpu:0") is good.get("toy", device="cpu")
    with pytest.raises(errors.DeviceError, match="cpu:3"):
        good.get("toy", device="cpu:3")


@pytest.mark.parametrize("what", [{"mel": "distill-vae"}, {"sample_rate": -1}])
def test_what_cannot_be_adapted_is_said_before_anything_is_loaded(good: Registry, monkeypatch, what: dict) -> None:
    monkeypatch.setattr(toy, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match="cannot be converted|positive"):
        good.get("toy", device="cpu", **what)


def test_a_factory_that_fails_is_named_with_its_cause_and_tried_again(good: Registry, monkeypatch) -> None:
    real = toy.load

    def fail(*args, **kwargs):
        raise RuntimeError("planted")

    monkeypatch.setattr(toy, "load", fail)
    with pytest.raises(errors.PluginBrokenError, match="toy-dist 1.0.*RuntimeError: planted") as caught:
        good.get("toy", device="cpu")
    assert isinstance(caught.value.__cause__, RuntimeError)
    monkeypatch.setattr(toy, "load", real)
    assert good.get("toy", device="cpu")


def test_an_accelerator_without_room_is_no_broken_plugin(good: Registry, monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 34.00 MiB")

    monkeypatch.setattr(toy, "load", fail)
    monkeypatch.setattr(device, "_present", lambda kind: kind in ("mps", "cpu"))
    monkeypatch.setattr(device, "why_unusable", lambda _: None)
    with pytest.raises(errors.DeviceError, match="not enough memory on mps for the vocoder 'toy'.*34.00 MiB") as caught:
        good.get("toy")
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_a_factory_must_return_a_vocoder(good: Registry, monkeypatch) -> None:
    monkeypatch.setattr(toy, "load", lambda *args, **kwargs: "a string")
    with pytest.raises(errors.PluginBrokenError, match="returned a str, not a VocoderBase"):
        good.get("toy", device="cpu")


def test_a_factory_that_asks_for_itself_is_an_error_and_no_deadlock(good: Registry, monkeypatch) -> None:
    monkeypatch.setattr(toy, "load", lambda *args, **kwargs: good.get("toy", device="cpu"))
    with pytest.raises(errors.PluginError, match="same vocoder again"):
        good.get("toy", device="cpu")


@hookimpl
def distill_vocoders():
    return [toy.card("other-name")]


@hookimpl(specname="distill_vocoder")
def misspelt():
    return []


@hookimpl(specname="distill_vocoders")
def with_argument(config):
    return []


@hookimpl(specname="distill_vocoders")
def with_default(config=None):
    return [toy.card("bad")]


@hookimpl(specname="distill_vocoders")
def returns_a_card():
    return toy.card("bad")


@hookimpl(specname="distill_vocoders")
def returns_none():
    return None


@hookimpl(specname="distill_vocoders")
def returns_strings():
    return ["bad"]


@hookimpl(specname="distill_vocoders")
def returns_twice():
    return [toy.card("bad"), toy.card("bad")]


@hookimpl(specname="distill_vocoders")
def raises():
    raise ZeroDivisionError("planted")


@hookimpl(specname="distill_vocoders", wrapper=True)
def wraps():
    return (yield)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (distill_vocoders, "no card named 'bad'.*'other-name'"),
        (misspelt, "unknown hook 'distill_vocoder'"),
        (with_argument, "config"),
        (with_default, "takes no arguments"),
        (returns_a_card, "sequence of VocoderCard, not VocoderCard"),
        (returns_none, "sequence of VocoderCard, not nothing"),
        (returns_strings, "returned a str"),
        (returns_twice, "two cards of one name"),
        (raises, "ZeroDivisionError: planted"),
        (wraps, "not a wrapper"),
        (None, "implements no hook"),
    ],
)
def test_a_plugin_that_breaks_the_contract_leaves_no_mark(modules, function, words: str) -> None:
    modules("bad_plugin", **({function.__name__: function} if function else {}))
    modules("good_plugin", toy.card("toy"))
    registry = registry_of(offer("bad", "bad_plugin", "bad-dist"), offer("toy", "good_plugin"))
    registry.card("toy")
    before = registry.plugin_manager.list_name_plugin()
    messages = set()
    for _ in range(2):
        with pytest.raises(errors.PluginBrokenError, match=words) as caught:
            registry.card("bad")
        messages.add(str(caught.value))
        assert "bad-dist 1.0" in str(caught.value)
    assert len(messages) == 1
    assert registry.plugin_manager.list_name_plugin() == before
    assert [card.name for card in registry.cards()] == ["toy"]


def test_a_card_of_another_version_names_both_and_imports_no_model(modules) -> None:
    card = toy.card("future", api=99, factory="a_model_module_that_must_not_be_imported:load", variants=())
    modules("future_plugin", card)
    registry = registry_of(offer("future", "future_plugin", "future-dist"))
    with pytest.raises(errors.PluginApiError, match=r"version 99 .*version 1\. Upgrade distill-core"):
        registry.get("future")
    assert registry.cards() == []


def test_two_distributions_of_one_name_are_a_conflict_until_one_is_preferred(modules) -> None:
    modules("one_plugin", toy.card("toy", summary="one"))
    modules("two_plugin", toy.card("toy", summary="two"))
    offers = (offer("toy", "two_plugin", "Two_Dist"), offer("toy", "one_plugin", "one-dist"))
    registry = registry_of(*offers)
    assert registry.names() == ["toy"]
    with pytest.raises(errors.PluginConflictError, match="by one-dist and by Two_Dist.*DISTILL_VOCODER_PREFER=toy="):
        registry.get("toy")
    for spelling, summary in [("two-dist", "two"), ("one-dist", "one"), ("ONE.dist", "one")]:
        chosen = registry_of(*offers, environ={"DISTILL_VOCODER_PREFER": f"x=y, toy = {spelling}"})
        assert chosen.card("toy").summary == summary
    with pytest.raises(errors.PluginConflictError, match="'third', which is neither"):
        registry_of(*offers, environ={"DISTILL_VOCODER_PREFER": "toy=third"}).get("toy")


def test_names_can_be_hidden(modules) -> None:
    modules("good_plugin", toy.card("toy"))
    registry = registry_of(offer("toy", "good_plugin"), environ={"DISTILL_VOCODERS_DISABLE": " toy , else"})
    assert registry.names() == []
    with pytest.raises(errors.PluginBlockedError, match="hidden by DISTILL_VOCODERS_DISABLE=else,toy"):
        registry.get("toy")


@pytest.mark.parametrize(
    ("value", "loads"),
    [
        ("0", False),
        ("false", False),
        ("No", False),
        ("off ", False),
        ("", False),
        ("1", True),
        ("TRUE", True),
        ("yes", True),
    ],
)
def test_autoload_parses_as_a_person_would_expect(value: str, loads: bool) -> None:
    assert Settings.from_environ({"DISTILL_VOCODERS_AUTOLOAD": value}).autoload is loads
    registry = registry_of(offer("toy", "x"), environ={"DISTILL_VOCODERS_AUTOLOAD": value})
    assert registry.names() == (["toy"] if loads else [])


def test_autoload_is_on_by_default() -> None:
    assert Settings.from_environ({}).autoload is True


@pytest.mark.parametrize(
    "environ",
    [{"DISTILL_VOCODERS_AUTOLOAD": "maybe"}, {"DISTILL_VOCODER_PREFER": "toy"}, {"DISTILL_VOCODER_PREFER": "=x"}],
)
def test_settings_that_cannot_be_read_say_how_to_write_them(environ) -> None:
    with pytest.raises(errors.DistillError, match="write"):
        Settings.from_environ(environ)


def test_a_plugin_registered_by_hand_needs_no_metadata() -> None:
    registry = Registry(find=Discovery, environ={"DISTILL_VOCODERS_AUTOLOAD": "0"})
    assert registry.register(toy.plugin(toy.card("toy"), toy.card("second"))) == ["toy", "second"]
    assert registry.names() == ["second", "toy"]
    assert registry.get("toy", device="cpu")
    with pytest.raises(errors.PluginConflictError, match="registered already, by toy_plugin"):
        registry.register(toy.plugin(toy.card("toy")))
    registry.refresh()
    assert registry.names() == ["second", "toy"]


def test_registering_again_under_the_same_name_takes_the_place() -> None:
    """As when a notebook's cell is run again, after an edit."""
    registry = Registry(find=Discovery, environ={})
    registry.register(toy.plugin(toy.card("toy", summary="first"), toy.card("second")), name="my notebook")
    loaded = registry.get("toy", device="cpu")
    assert registry.register(toy.plugin(toy.card("toy", summary="edited")), name="my notebook") == ["toy"]
    assert [card.summary for card in registry.cards()] == ["a toy", "edited"]
    assert registry.get("toy", device="cpu") is not loaded
    for name in (None, "another"):
        with pytest.raises(errors.PluginConflictError, match="by my notebook. register.* takes its place"):
            registry.register(toy.plugin(toy.card("toy")), name=name)
    assert registry.register(toy.plugin(toy.card("second")), name="my notebook") == ["second"]
    assert len(registry.plugin_manager.list_name_plugin()) == 2
    registry.refresh()
    assert registry.names() == ["second", "toy"]


def test_by_hand_goes_before_installed(modules) -> None:
    modules("installed_plugin", toy.card("toy", summary="installed"))
    registry = registry_of(offer("toy", "installed_plugin"))
    registry.register(toy.plugin(toy.card("toy", summary="by hand")), name="mine")
    assert registry.card("toy").summary == "by hand"
    assert len(registry.candidates("toy")) == 2


def test_two_plugins_of_one_label_by_hand_do_not_mix() -> None:
    registry = Registry(find=Discovery)
    registry.register(toy.plugin(toy.card("one")))
    registry.register(toy.plugin(toy.card("two")))
    assert [card.name for card in registry.cards()] == ["one", "two"]
    registry.refresh()
    assert [card.name for card in registry.cards()] == ["one", "two"]


def test_two_plugins_in_one_module_do_not_mix(modules) -> None:
    modules("pair_plugin", one=toy.plugin(toy.card("one")), two=toy.plugin(toy.card("two")))
    offers = [replace(offer(name, "pair_plugin"), attribute=name) for name in ("one", "two")]
    registry = registry_of(*offers)
    assert [card.name for card in registry.cards()] == ["one", "two"]
    registry.refresh()
    assert [registry.card(name).name for name in ("two", "one")] == ["two", "one"]


def test_one_plugin_may_be_named_twice(modules) -> None:
    both = toy.plugin(toy.card("one"), toy.card("two"))
    modules("first_plugin", here=both)
    modules("second_plugin", there=both)
    offers = [
        replace(offer("one", "first_plugin"), attribute="here"),
        replace(offer("two", "second_plugin"), attribute="there"),
    ]
    registry = registry_of(*offers)
    for _ in range(2):
        assert [card.name for card in registry.cards()] == ["one", "two"]
        assert [plugin for _, plugin in registry.plugin_manager.list_name_plugin()] == [both]
        registry.refresh()
        assert registry.plugin_manager.list_name_plugin() == []


def test_what_is_installed_may_be_registered_by_hand_as_well(modules) -> None:
    modules("good_plugin", toy.card("toy"))
    plugin = sys.modules["good_plugin"]
    registry = registry_of(offer("toy", "good_plugin"))
    installed = registry.card("toy")
    assert registry.register(plugin) == ["toy"]
    registry.refresh()
    assert registry.plugin_manager.get_plugins() == {plugin}
    assert registry.get("toy", device="cpu") is registry.get("toy", device="cpu")
    by_hand_first = registry_of(offer("toy", "good_plugin"))
    by_hand_first.register(plugin)
    assert [by_hand_first.activate(each) for each in by_hand_first.candidates("toy")] == [installed, installed]


def test_a_plugin_that_has_new_cards_is_registered_again() -> None:
    cards = [toy.card("one")]

    class Growing:
        @hookimpl
        def distill_vocoders(self):
            return list(cards)

    growing = Growing()
    registry = Registry(find=Discovery)
    registry.register(growing)
    cards[:] = [toy.card("two")]
    assert registry.register(growing) == ["two"]
    assert [card.name for card in registry.cards()] == ["one", "two"]


def test_a_plugin_that_fails_a_check_by_hand_changes_nothing() -> None:
    registry = Registry(find=Discovery)
    with pytest.raises(errors.PluginError):
        registry.register(toy.plugin(toy.card("toy"), toy.card("future", api=2)))
    assert registry.names() == []
    assert registry.plugin_manager.list_name_plugin() == []


@pytest.mark.parametrize("what", [None, 5, "my_package.plugin"])
def test_what_is_no_plugin_is_not_called_a_vocoder(what) -> None:
    words = f"^The plug-in '{type(what).__name__}' cannot be used: .* implements no hook: it needs a @hookimpl"
    with pytest.raises(errors.PluginBrokenError, match=words):
        Registry(find=Discovery).register(what)


def test_a_class_in_place_of_its_instance_is_told() -> None:
    class Plugin:
        @hookimpl
        def distill_vocoders(self):
            return [toy.card("toy")]

    with pytest.raises(errors.PluginBrokenError, match="Plugin is a class: name an instance of it"):
        Registry(find=Discovery).register(Plugin)
    assert Registry(find=Discovery).register(Plugin()) == ["toy"]


def test_refresh_sees_what_was_installed_since(modules) -> None:
    modules("good_plugin", toy.card("toy"))
    installed: list[Candidate] = []
    registry = Registry(find=lambda: Discovery(tuple(installed)), environ={})
    assert registry.names() == []
    installed.append(offer("toy", "good_plugin"))
    assert registry.names() == []
    registry.refresh()
    assert registry.get("toy", device="cpu")
    installed.clear()
    registry.refresh()
    assert registry.names() == []
    assert registry.plugin_manager.list_name_plugin() == []


def test_a_plugin_that_asks_the_registry_while_imported_is_told(tmp_path, monkeypatch, modules) -> None:
    (tmp_path / "asking_plugin.py").write_text("import tests.test_registry as t\nt.ASKED.card('toy')\n")
    monkeypatch.syspath_prepend(tmp_path)
    modules("good_plugin", toy.card("toy"))
    registry = registry_of(offer("asking", "asking_plugin", "asking-dist"), offer("toy", "good_plugin"))
    monkeypatch.setattr(sys.modules[__name__], "ASKED", registry, raising=False)
    monkeypatch.setitem(sys.modules, "tests.test_registry", sys.modules[__name__])
    with pytest.raises(errors.PluginError, match="asking-dist.*while it was itself being imported"):
        registry.get("asking")
    assert registry.get("toy", device="cpu")


def test_resolve_says_what_auto_means(modules) -> None:
    for name in ("bigvgan", "hifigan", "aaa"):
        modules(f"{name}_plugin", toy.card(name))
    every = [offer(name, f"{name}_plugin", f"distill-{name}") for name in ("hifigan", "bigvgan", "aaa")]
    registry = registry_of(*every)
    assert registry.resolve().name == "bigvgan"
    assert registry.resolve("auto", vocoder_state={"w": 1}).name == catalog.PER_MODEL_VOCODER == "hifigan"
    assert registry.resolve("aaa", vocoder_state={"w": 1}).reason == "asked for by name"
    assert registry_of(every[0], every[2]).resolve().name == "aaa"
    assert registry_of(every[0], every[2]).resolve().reason == "installed; bigvgan is not"
    hidden = registry_of(*every, environ={"DISTILL_VOCODERS_DISABLE": "bigvgan"})
    assert hidden.resolve().reason == "installed; bigvgan is hidden by DISTILL_VOCODERS_DISABLE"
    with pytest.raises(errors.UnknownVocoderError, match="No vocoder is installed.*pip install distill-bigvgan"):
        registry_of().resolve()


def test_get_vocoder_is_the_apps_name_for_it(monkeypatch) -> None:

    registry = Registry(find=Discovery)
    registry.register(toy.plugin(toy.card("bigvgan"), toy.card("hifigan")))
    monkeypatch.setattr(sys.modules["distill_core.registry"], "registry", registry)
    assert get_vocoder(device="cpu") is registry.get("bigvgan", device="cpu")
    state = {"weight": object()}
    seen = []
    monkeypatch.setattr(
        toy, "load", lambda card, variant, *, device, precision, weights: seen.append(weights) or toy.ToyVocoder()
    )
    get_vocoder("auto", "cpu", vocoder_state=state)
    assert seen == [state]


class Distribution:
    """What `discover` looks at in a distribution."""

    def __init__(self, path: str, points: str = "", name: str | None = None, version: str = "1.0") -> None:
        self._path = path
        self.files = {"entry_points.txt": points} if points else {}
        if name:
            self.files["METADATA"] = f"Name: {name}\nVersion: {version}\nSummary: a summary\n\nVersion: 9\n"

    def read_text(self, name: str) -> str | None:
        return self.files.get(name)

    @property
    def entry_points(self):
        import importlib_metadata

        return importlib_metadata.EntryPoints._from_text(self.files.get("entry_points.txt", ""))


class Unreadable(Distribution):
    def read_text(self, name: str) -> str | None:
        raise PermissionError(name)


POINTS = "[console_scripts]\nx = y:z\n\n[distill.vocoders]\ntoy = toy_plugin\n"


def test_discovery_reads_our_group_and_nothing_else() -> None:
    found = discover(
        [
            Distribution("/s/other-1.0.dist-info", "[console_scripts]\ndistill.vocoders = a:b\n", "other"),
            Distribution("/s/toy_dist-1.0.dist-info", POINTS, "toy-dist"),
            Distribution("/s/none-1.0.dist-info", "", "none"),
            Distribution("/somewhere/linked.egg-info", POINTS, "linked", "2.0"),
            Distribution("/x/bare-3.0.dist-info", POINTS),
            Unreadable("/y/unreadable-1.0.dist-info"),
            Distribution("/z/EGG-INFO", "[distill.vocoders]\n# one = a:b\nno equals sign\n= c\n two = d : e [extra]\n"),
        ]
    )
    assert found.candidates == (
        Candidate("toy", "toy_plugin", "toy-dist", "1.0", "/s/toy_dist-1.0.dist-info", "a summary"),
        Candidate("toy", "toy_plugin", "linked", "2.0", "/somewhere/linked.egg-info", "a summary"),
        Candidate("toy", "toy_plugin", "bare", "3.0", "/x/bare-3.0.dist-info"),
        Candidate("two", "d", "unknown", "", "/z/EGG-INFO", attribute="e"),
    )
    assert found.duplicates == ()


def test_the_same_distribution_found_twice_is_one() -> None:
    found = discover(
        [
            Distribution("/a/toy_dist-1.0.dist-info", POINTS, "toy-dist"),
            Distribution("/a/toy_dist-1.0.dist-info", POINTS, "toy-dist"),
            Distribution("/b/Toy_Dist.egg-info", POINTS, "Toy_Dist"),
        ]
    )
    assert [each.path for each in found.candidates] == ["/a/toy_dist-1.0.dist-info"]
    assert [each.path for each in found.duplicates] == ["/b/Toy_Dist.egg-info"]


def test_stale_empty_metadata_is_no_rival_but_is_reported() -> None:
    found = discover(
        [
            Distribution("/a/toy_dist-0.9.dist-info"),
            Distribution("/b/toy_dist-1.0.dist-info", POINTS, "toy-dist"),
        ]
    )
    assert [each.version for each in found.candidates] == ["1.0"]
    assert [(each.path, each.empty) for each in found.duplicates] == [("/a/toy_dist-0.9.dist-info", True)]


def test_errors_come_through_a_process_pool() -> None:
    error = errors.UnknownVocoderError("there is none", name="bigvgn", suggestions=["bigvgan"])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.suggestions) == ("there is none", "bigvgn", ("bigvgan",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "auto"}, "'auto'"),
        ({"name": "a b"}, "without blanks"),
        ({"name": "a,b"}, "without blanks"),
        ({"name": "a=b"}, "without blanks"),
        ({"name": "a:b"}, "without blanks"),
        ({"name": ""}, "without blanks"),
        ({"devices": "cpu"}, "must be a list of kinds"),
        ({"devices": ["cpu", "tpu"]}, "one or more of cuda, mps, cpu"),
        ({"devices": []}, "one or more of cuda, mps, cpu"),
        ({"devices": None}, "one or more of cuda, mps, cpu"),
        ({"variants": None}, "'toy' must list at least one Variant"),
        ({"variants": toy.VARIANT}, "'toy' must list at least one Variant.*write variants=\\[…\\]"),
        ({"summary": None}, "summary must be a line of text, not None"),
        ({"license": ["MIT"]}, "license must be a line of text, not \\['MIT'\\]"),
        ({"homepage": None}, "homepage must be a line of text"),
        ({"api": "1"}, "api must be the number 1, not '1'"),
        ({"api": True}, "api must be the number 1"),
    ],
)
def test_a_card_names_the_field_that_is_wrong(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        toy.card(**changes)


@pytest.mark.parametrize("rate", ["22050", 22050.5, 0, -1, True, None])
def test_a_variant_has_a_whole_rate(rate) -> None:
    with pytest.raises(ValueError, match="sample_rate must be a positive whole number"):
        Variant("plain", toy.MEL, rate)


@pytest.mark.parametrize("parameters", ["14M", -1, 1.4e7, None, True])
def test_a_variant_has_a_whole_number_of_parameters(parameters) -> None:
    with pytest.raises(ValueError, match="parameters must be a whole number, 0 if unknown"):
        Variant("plain", toy.MEL, toy.MEL.sample_rate, parameters=parameters)


def test_what_is_unloaded_by_name_leaves_the_others_and_a_load_that_fails_its_own_error(monkeypatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr("distill_core.loaded.empty_caches", lambda: emptied.append(len(loaded._slots)))
    loaded = Loaded()
    made = {name: loaded.once((name,), None, None, object) for name in ("one", "other")}  # type: ignore[arg-type]
    loaded.forget("one")
    assert emptied == [1]
    assert loaded.once(("other",), None, None, lambda: pytest.fail("it is loaded")) is made["other"]
    assert loaded.once(("one",), None, None, object) is not made["one"]  # type: ignore[arg-type]

    def load() -> NoReturn:
        loaded.forget()  # as another thread may
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loaded.once(("third",), None, None, load)
