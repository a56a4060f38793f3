"""explain and doctor on registries made by hand; tests/install has them on what pip installed."""

from __future__ import annotations

import json
import shlex
import sys
from types import ModuleType

import pytest
import torch

from distill_core import Registry, Variant, WeightsPin, doctor, errors, hookimpl
from distill_core.cli import main
from distill_core.discovery import Candidate, Discovery, Duplicate, discover
from distill_core.doctor import diagnose
from distill_core.explain import USABLE
from distill_core.states import variant_state
from tests import toy
from tests.test_registry import POINTS, Distribution


def offer(name: str, module: str, distribution: str = "toy-dist", version: str = "1.0") -> Candidate:
    return Candidate(name, module, distribution, version, f"/site/{distribution}.dist-info")


@pytest.fixture
def plugin(monkeypatch):
    """Puts a plug-in module with these cards in front of the import system."""

    def add(module: str, *cards) -> str:
        made = ModuleType(module)
        made.__file__ = f"/site/{module}.py"

        @hookimpl
        def distill_vocoders():
            return list(cards)

        made.distill_vocoders = distill_vocoders
        monkeypatch.setitem(sys.modules, module, made)
        return module

    return add


def registry_of(*candidates: Candidate, environ=None, duplicates=()) -> Registry:
    return Registry(find=lambda: Discovery(candidates, tuple(duplicates)), environ=environ or {})


def verdicts(registry: Registry, name: str = "toy") -> list[tuple[str, str]]:
    return [(each.distribution, each.verdict) for each in registry.explain(name).candidates]


def test_a_vocoder_that_is_ready(plugin) -> None:
    registry = registry_of(offer("toy", plugin("good_plugin", toy.card())))
    story = registry.explain("toy")
    assert story.usable
    assert verdicts(registry) == [("toy-dist", "ready")]
    text = str(story)
    assert repr(story) == text
    for words in ("toy-dist 1.0: ready", "/site/toy-dist.dist-info", "good_plugin (/site/good_plugin.py)", "'toy'"):
        assert words in text
    assert json.loads(json.dumps(story.to_dict()))["candidates"][0]["variants"][0]["state"] == "none"


def test_a_vocoder_whose_weights_are_missing(plugin, tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    pin = WeightsPin("someone/something", "0" * 40, {"model.pt": (7_000_000, "0" * 64)})
    unknown = WeightsPin("someone/something", "main", {"model.pt": (None, None)})
    variants = [Variant("plain", toy.MEL, 8000, weights=pin), Variant("other", toy.MEL, 8000, weights=unknown)]
    registry = registry_of(offer("toy", plugin("weighty_plugin", toy.card(variants=variants))))
    story = registry.explain("toy")
    assert story.usable
    assert verdicts(registry) == [("toy-dist", "weights missing")]
    assert "not downloaded (someone/something at 000000000000, 7 MB)" in str(story)
    assert "other: not downloaded (someone/something at main)" in str(story)
    assert "distill-vocoder weights fetch toy" in str(story)
    assert story.candidates[0].verdict in USABLE


@pytest.mark.parametrize("package", ["no-such-distribution==1.0", "no-such-distribution>=1"])
def test_weights_in_a_package_that_is_not_installed(package, plugin, monkeypatch, capsys) -> None:
    variants = [Variant("plain", toy.MEL, 8000, package=package), Variant("here", toy.MEL, 8000, package="pytest>=8")]
    registry = registry_of(offer("toy", plugin("packaged_plugin", toy.card(variants=variants))))
    story = registry.explain("toy")
    assert verdicts(registry) == [("toy-dist", "weights missing")]
    assert f"pip install {shlex.quote(package)}, or " in story.candidates[0].advice
    assert f"plain (default): not installed: pip install {shlex.quote(package)}" in str(story)
    assert "here: in the package pytest" in str(story)
    assert "no-such-distribution" in str(diagnose(registry))

    for command in ("info", "weights"):
        monkeypatch.setattr(f"distill_core.cli.{command}.registry", registry)
    assert main(["info", "toy"]) == main(["weights", "status", "toy"]) == 0
    assert capsys.readouterr().out.count(f"not installed: pip install {shlex.quote(package)}") == 2
    assert main(["weights", "fetch", "toy"]) == 1
    assert f"not installed: pip install {shlex.quote(package)}." in capsys.readouterr().err


def test_a_package_of_weights_is_what_pip_takes_and_not_of_weights_of_ones_own() -> None:
    for wrong in (None, ">=1", " toy"):
        with pytest.raises(ValueError, match=r"Variant\.package must be what pip takes"):
            Variant("plain", toy.MEL, 8000, package=wrong)
    own = Variant("plain", toy.MEL, 8000, package="toy-weights").with_config(None, own=True)
    assert own.package == ""


def test_a_cache_that_cannot_be_looked_at_is_said_and_not_raised(monkeypatch) -> None:
    from distill_core.weights import hub

    def fail(pin):
        raise PermissionError("no access")

    monkeypatch.setattr(hub, "cached", fail)
    pin = WeightsPin("someone/something", "main", {"model.pt": (None, None)})
    state = variant_state(Variant("plain", toy.MEL, 8000, weights=pin), "plain")
    assert state.state == "unknown"
    assert "PermissionError: no access" in str(state)


def test_a_broken_one_comes_with_its_traceback() -> None:
    registry = registry_of(offer("toy", "no_such_plugin_module", "bad-dist"))
    story = registry.explain("toy").candidates[0]
    assert story.verdict == "broken"
    assert "ModuleNotFoundError: No module named 'no_such_plugin_module'" in story.traceback
    assert "pip uninstall bad-dist" in story.advice
    assert not registry.explain("toy").usable


def test_a_factory_in_a_module_that_is_not_there_is_broken(plugin) -> None:
    card = toy.card(factory="tests.no_such_module:load")
    story = registry_of(offer("toy", plugin("half_plugin", card))).explain("toy").candidates[0]
    assert story.verdict == "broken"
    assert "'tests.no_such_module:load'" in story.reason


def test_another_version_of_the_contract(plugin) -> None:
    registry = registry_of(offer("toy", plugin("future_plugin", toy.card(api=99, variants=()))))
    assert verdicts(registry) == [("toy-dist", "wrong api")]
    assert "version 99" in str(registry.explain("toy"))


def test_a_hidden_one_is_not_even_imported() -> None:
    registry = registry_of(offer("toy", "harmful_plugin_module"), environ={"DISTILL_VOCODERS_DISABLE": "toy"})
    assert verdicts(registry) == [("toy-dist", "blocked")]
    assert "DISTILL_VOCODERS_DISABLE" in str(registry.explain("toy"))
    off = registry_of(offer("toy", "harmful_plugin_module"), environ={"DISTILL_VOCODERS_AUTOLOAD": "no"})
    assert verdicts(off) == [("toy-dist", "blocked")]
    assert "DISTILL_VOCODERS_AUTOLOAD" in str(off.explain("toy"))


def test_an_entry_that_hides_nothing_is_told_with_the_name_that_may_be_meant(plugin) -> None:
    offers = [offer(name, plugin(f"{name}_plugin", toy.card(name))) for name in ("toy", "other")]
    registry = registry_of(*offers, environ={"DISTILL_VOCODERS_DISABLE": "Toy,elsewhere,bigvgan"})
    line = "DISTILL_VOCODERS_DISABLE names 'Toy', and no vocoder here is called so: it hides nothing. "
    line += "Did you mean 'toy'?"
    story = registry.explain("toy")
    assert story.usable and story.notes == (line,)
    assert registry.explain("Toy").notes == (line,)
    assert registry.explain("other").notes == ()
    assert doctor._vocoders(registry)[1] == [line]


def test_a_conflict_shows_which_of_the_two_would_work(plugin) -> None:
    offers = (
        offer("toy", plugin("one_plugin", toy.card()), "one-dist"),
        offer("toy", "no_such_plugin_module", "two-dist"),
    )
    registry = registry_of(*offers)
    assert verdicts(registry) == [("one-dist", "conflict"), ("two-dist", "broken")]
    story = registry.explain("toy")
    assert not story.usable
    assert "DISTILL_VOCODER_PREFER=toy=one-dist" in str(story)
    chosen = registry_of(*offers, environ={"DISTILL_VOCODER_PREFER": "toy=one-dist"})
    assert verdicts(chosen) == [("one-dist", "ready"), ("two-dist", "shadowed")]
    assert "prefers one-dist" in str(chosen.explain("toy"))


def test_one_registered_by_hand_shadows_installed_ones() -> None:
    registry = registry_of(offer("toy", "no_such_plugin_module"))
    registry.register(toy.plugin(toy.card()))
    assert verdicts(registry) == [("", "ready"), ("toy-dist", "shadowed")]
    assert "registered by hand: ready" in str(registry.explain("toy"))


def test_an_unknown_name_tells_what_is_close(plugin) -> None:
    story = registry_of(offer("toy", "x")).explain("tyo")
    assert not story.usable
    assert "Did you mean 'toy'?" in str(story)
    assert "pip install distill-bigvgan" in str(registry_of().explain("bigvgan"))
    hidden = registry_of(environ={"DISTILL_VOCODERS_DISABLE": "bigvgan"}).explain("bigvgan")
    assert "DISTILL_VOCODERS_DISABLE" in str(hidden)


def test_auto_is_the_one_it_means(plugin) -> None:
    registry = registry_of(offer("toy", plugin("good_plugin", toy.card())))
    story = registry.explain("auto")
    assert (story.name, story.usable, verdicts(registry, "auto")) == ("toy", True, [("toy-dist", "ready")])
    assert story.notes == ("'auto' means toy: installed; bigvgan is not.",)
    nothing = registry_of().explain("auto")
    assert not nothing.usable and str(nothing).startswith("auto: No vocoder is installed. Install one: ")


def test_metadata_that_was_left_over_is_named(plugin) -> None:
    duplicates = [
        Duplicate("toy-dist", "0.9", "/early/toy_dist-0.9.dist-info", empty=True),
        Duplicate("toy-dist", "1.0", "/late/toy_dist.egg-info", empty=False),
        Duplicate("other", "1", "/early/other-1.dist-info", empty=True),
    ]
    registry = registry_of(offer("toy", plugin("good_plugin", toy.card())), duplicates=duplicates)
    text = str(registry.explain("toy"))
    assert "Delete it: /early/toy_dist-0.9.dist-info" in text
    assert "second time, which is ignored: /late/toy_dist.egg-info" in text
    assert "other" not in text.replace("'other'", "").replace("other: not on the Hub", "")


def test_discovery_tells_stale_metadata_from_whole() -> None:
    empty, tilde, unrelated = (
        Distribution(f"/early/{name}.dist-info") for name in ("Toy_Dist-0.9", "~oy_dist-0.8", "unrelated-1.0")
    )
    found = discover(
        [
            empty,
            unrelated,
            Distribution("/site/toy_dist-1.9.dist-info", POINTS, "toy-dist", "1.9"),
            Distribution("/site/toy_dist-1.10.dist-info", POINTS, "toy-dist", "1.10"),
            Distribution("/site/toy_dist-1.10rc1.dist-info", POINTS, "toy-dist", "1.10rc1"),
            tilde,
            Distribution("/early/distill_bigvgan-0.0.1.dist-info"),
        ]
    )
    assert [candidate.version for candidate in found.candidates] == ["1.10"]
    assert {(each.path.rpartition("/")[2], each.empty) for each in found.duplicates} == {
        ("Toy_Dist-0.9.dist-info", True),
        ("~oy_dist-0.8.dist-info", True),
        ("toy_dist-1.9.dist-info", False),
        ("toy_dist-1.10rc1.dist-info", False),
        ("distill_bigvgan-0.0.1.dist-info", True),
    }


def test_the_order_in_which_a_folder_is_listed_changes_nothing() -> None:
    made = [
        Distribution(f"/site/toy_dist-{version}.dist-info", POINTS, "toy-dist", version)
        for version in ("1.0", "2.0", "2.0.1", "2.0b1", "10.0")
    ]
    for order in (made, made[::-1], made[2:] + made[:2]):
        assert [each.version for each in discover(order).candidates] == ["10.0"]


# The command and the doctor


@pytest.fixture
def hifigan_only(monkeypatch):
    """The process's registry with what is installed here, less bigvgan."""
    from distill_core import doctor
    from distill_core.cli import doctor as doctor_command
    from distill_core.cli import explain as explain_command

    registry = registry_of(offer("hifigan", "distill_hifigan.plugin", "distill-hifigan"))
    for module in (explain_command, doctor_command):
        monkeypatch.setattr(module, "registry", registry)
    monkeypatch.setattr(doctor, "_torch", lambda: {"error": "no torch here"})
    return registry


@pytest.mark.usefixtures("trained_hifigan")
def test_the_command_explains(hifigan_only, capsys) -> None:
    assert main(["explain", "hifigan"]) == 0
    assert "hifigan: ready" in capsys.readouterr().out
    assert main(["explain", "hifigan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True
    assert main(["explain", "hifigann"]) == 1
    captured = capsys.readouterr()
    assert "Did you mean 'hifigan'?" in captured.out
    assert captured.err == ""


def test_the_doctor_numbers_what_is_wrong(hifigan_only, capsys) -> None:
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "To do (1):\n  1. torch cannot be imported: no torch here" in out
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "python", "core", "packages", "torch", "environment", "cache", "vocoders", "problems"
    }  # fmt: skip
    assert found["packages"]["pluggy"]


def test_the_doctor_names_a_card_that_is_there_and_does_not_work(monkeypatch, capsys) -> None:
    """As one that is newer than the torch, or a driver that is older."""
    ones = torch.ones

    def fail(*_: object) -> str:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda card: fail() if card else "NVIDIA GeForce RTX 5090")
    monkeypatch.setattr(
        torch, "ones", lambda *size, **how: fail() if how["device"].type == "cuda" else ones(*size, **how)
    )
    monkeypatch.setattr(torch.version, "hip", "6.2", raising=False)
    exec(doctor._TORCH_PROBE, {})
    found = json.loads(capsys.readouterr().out)
    assert found["names"] == {"cuda": ["NVIDIA GeForce RTX 5090", "cuda:1"]}
    packages = dict.fromkeys(doctor.PACKAGES, "1.0")
    (problem,) = doctor._problems(packages, found)
    assert "The device cuda is there but does not work: RuntimeError: CUDA error: no kernel image" in problem
    monkeypatch.setattr(doctor, "_torch", lambda: found)
    assert "built for ROCm 6.2" in str(diagnose(registry_of()))


def test_the_doctor_survives_whatever_it_finds(monkeypatch) -> None:
    from distill_core import doctor
    from distill_core.weights import cache

    monkeypatch.setattr(doctor, "_torch", lambda: {"error": ""} | {"error": "the process ended with code -9"})

    def fail():
        raise RuntimeError("no cache")

    monkeypatch.setattr(cache, "hub_cache", fail)
    registry = registry_of(
        offer("broken", "no_such_plugin_module", "bad-dist"),
        duplicates=[Duplicate("bad-dist", "0.1", "/x", empty=True)],
        environ={"DISTILL_VOCODER_PREFER": "broken=nobody", "DISTILL_VOCODERS_DISABLE": "ghost"},
    )
    found = diagnose(registry)
    text = str(found)
    for words in ("bad-dist", "Delete it: /x", "names a distribution that offers nothing", "RuntimeError: no cache"):
        assert words in text
    assert len(found.problems) == 4
    unreadable = diagnose(registry_of(environ={"DISTILL_VOCODERS_AUTOLOAD": "perhaps"}))
    assert "'perhaps' is neither yes nor no" in unreadable.problems[-1]
    nothing = diagnose(registry_of())
    assert nothing.problems[-1] == "No vocoder is installed. Install one: pip install distill-bigvgan"


def test_settings_that_cannot_be_read_are_an_error_of_explain() -> None:
    with pytest.raises(errors.DistillError, match="neither yes nor no"):
        registry_of(environ={"DISTILL_VOCODERS_AUTOLOAD": "perhaps"}).explain("toy")
