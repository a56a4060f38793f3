"""Each of the three distributions, built and installed by pip in every form, alone and beside NVIDIA's bigvgan."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.install.conftest import FOLDERS
from tests.install.environments import create, link_packages, write_plugin

PACKAGES = {"distill-core": "distill_core", "distill-bigvgan": "distill_bigvgan", "distill-hifigan": "distill_hifigan"}
VENDORED = {"distill-bigvgan": "bigvgan", "distill-hifigan": "hifigan"}

# A mel goes through a generator built from nothing but what was installed.
RUN_VENDORED = """
import json, sys, torch
from distill_core import registry
import {package}._vendor.{model} as model
registry.candidate("{model}")
before = {{name for name in sys.modules if name.split(".")[0] in ("vendor", "{model}")}}
print(json.dumps({{"file": model.__file__, "top-level": sorted(before), "names": registry.names(),
    "halo": model.halo(model.CONFIGS[next(iter(model.CONFIGS))])}}))
"""


@pytest.mark.parametrize("form", ["plain", "editable", "wheel by way of sdist"])
@pytest.mark.parametrize("name", FOLDERS)
def test_each_distribution_installs_in_each_form(name, form, wheels, empty_environment) -> None:
    environment = empty_environment()
    others = [] if name == "distill-core" else [wheels["distill-core"]]
    if form == "wheel by way of sdist":
        environment.install(wheels[name], *others)
    else:
        environment.install(*others, *(["--editable"] if form == "editable" else []), FOLDERS[name])
    if name == "distill-core":
        said = environment.python_says("import json, distill_core; print(json.dumps(distill_core.__file__))")
        assert environment.run("distill-vocoder", "--version").stdout.startswith("distill-core 0.")
        assert "No vocoder is installed" in environment.run("distill-vocoder", "list").stdout
    else:
        model = VENDORED[name]
        found = environment.python_says(RUN_VENDORED.format(package=PACKAGES[name], model=model))
        assert found["names"] == [model]
        assert found["top-level"] == []
        assert found["halo"] > 0
        said = found["file"]
    assert (str(environment.folder) in said) is (form != "editable"), said


def test_wheels_and_sdists_hold_real_files(wheels, sdists) -> None:
    for name, package in PACKAGES.items():
        with zipfile.ZipFile(wheels[name]) as wheel:
            inside = wheel.namelist()
            links = [info.filename for info in wheel.infolist() if (info.external_attr >> 28) == 0xA]
        assert f"{package}/py.typed" in inside
        assert any(each.endswith("/licenses/LICENSE") for each in inside)
        assert links == []
        foreign = [each for each in inside if not each.startswith((f"{package}/", f"{package}-"))]
        assert foreign == []
        with tarfile.open(sdists[name]) as archive:
            members = archive.getmembers()
        assert not [member.name for member in members if member.issym() or member.islnk()]
        assert any(member.name.endswith("/LICENSE") for member in members)
        assert not any("__pycache__" in each for each in [*inside, *(member.name for member in members)])


def test_the_page_on_an_index_links_to_nothing_that_is_only_in_the_repository(wheels) -> None:
    for name in PACKAGES:
        with zipfile.ZipFile(wheels[name]) as wheel:
            metadata = next(each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
            headers, _, page = wheel.read(metadata).decode("utf-8").partition("\n\n")
        assert "Description-Content-Type: text/markdown" in headers
        assert page.startswith(f"# {name}\n")
        assert not [link for link in re.findall(r"\]\(([^)]*)\)", page) if not link.startswith("https://")]


@pytest.mark.parametrize("name", VENDORED)
def test_the_vendored_model_in_a_wheel_is_the_one_in_the_repository(name, wheels) -> None:
    with zipfile.ZipFile(wheels[name]) as wheel:
        for part in (VENDORED[name], "common"):
            sources = sorted((ROOT / "vendor" / part).rglob("*.py"))
            assert sources
            for source in sources:
                path = f"{PACKAGES[name]}/_vendor/{part}/{source.relative_to(ROOT / 'vendor' / part)}"
                assert wheel.read(path) == source.read_bytes()


def test_the_templates_of_new_plugins_travel_with_the_core(wheels) -> None:
    with zipfile.ZipFile(wheels["distill-core"]) as wheel:
        inside = set(wheel.namelist())
    for path in (ROOT / "distill_core" / "new_plugin" / "templates").rglob("*.tmpl"):
        assert str(path.relative_to(ROOT)) in inside


BESIDE = """
import json, sys
import torch
from distill_core import registry
card = registry.card("bigvgan")
import distill_bigvgan._vendor.bigvgan as ours
assert "bigvgan" not in sys.modules
try:
    import bigvgan as theirs
except ImportError as error:
    print(json.dumps(str(error)))
    sys.exit()
config = {**ours.CONFIGS["bigvgan_base_22khz_80band"], "upsample_initial_channel": 16}
torch.manual_seed(0)
state = ours.BigVGAN(config).state_dict()
vocoder = registry.get("bigvgan", device="cpu", weights={"generator": state, "config": config})
wave = vocoder.mel_to_waveform(torch.randn(1, 80, 5) - 4)
print(json.dumps([theirs.__file__, ours.__file__, list(wave.shape)]))
"""


def test_nvidias_package_beside_ours_is_not_noticed_by_either(environment, wheels, tmp_path) -> None:
    theirs = _download("bigvgan==2.4.1", tmp_path)
    # What their package imports at its top (plotting, audio), as it is installed here, but not their package.
    environment.link(link_packages(tmp_path / "theirs", "bigvgan", without=("distill-", "bigvgan")))
    environment.install(wheels["distill-bigvgan"])
    before = _files(environment.site)
    environment.install(theirs)
    assert before.items() <= _files(environment.site).items()  # theirs overwrote nothing of ours
    said = environment.python_says(BESIDE)
    if isinstance(said, str):
        pytest.skip(f"what NVIDIA's bigvgan imports is not installed here: {said}")
    their_file, our_file, shape = said
    assert Path(their_file).parent == environment.site / "bigvgan"
    assert Path(our_file).parent == environment.site / "distill_bigvgan" / "_vendor" / "bigvgan"
    assert shape == [1, 1, 5 * 256]
    environment.uninstall("bigvgan")
    assert before == _files(environment.site)


def _download(requirement: str, folder: Path) -> Path:
    """A wheel from wherever pip is set up to look."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{requirement} cannot be downloaded here: {done.stderr.strip().splitlines()[-1]}")
    return next(folder.glob("*.whl"))


def _files(folder: Path) -> dict[str, bytes]:
    """What pip installed of ours; what Python and numba keep beside it as they run does not count."""
    ours = [path for path in folder.rglob("*") if path.is_file() and "distill" in str(path.relative_to(folder))]
    return {str(path): path.read_bytes() for path in ours if "__pycache__" not in path.parts}


RUN_MINE = """
import json, torch
from distill_core import registry
vocoder = registry.get("mine", device="cpu")
print(json.dumps([registry.names(), list(vocoder.mel_to_waveform(torch.zeros(1, 80, 4)).shape)]))
"""


def test_a_third_plugin_appears_runs_and_is_gone(environment, wheels, tmp_path) -> None:
    environment.install(wheels["distill-bigvgan"], write_plugin(tmp_path, "third-party"))
    assert environment.python_says(RUN_MINE) == [["bigvgan", "mine"], [1, 1, 4 * 256]]
    listed = environment.run("distill-vocoder", "list", check=True).stdout
    assert "mine     third-party      1.0      third-party, for a test" in listed
    environment.uninstall("third-party")
    assert "mine" not in environment.run("distill-vocoder", "list", check=True).stdout
    gone = environment.run("python", "-c", RUN_MINE)
    assert gone.returncode == 1
    assert "UnknownVocoderError: There is no vocoder 'mine'" in gone.stderr


def test_pip_alone_on_an_empty_machine(tmp_path, building, wheels) -> None:
    """The true thing: nothing linked in; pip fetches torch and the rest from where it is set up to look."""
    _download("pluggy", tmp_path / "download")  # skips where there is no network
    environment = create(tmp_path / "fresh", building)
    places = ["--find-links", wheels["distill-core"].parent, "--constraint", ROOT / "constraints.txt", "--no-compile"]
    environment.pip("install", "--quiet", *places, "distill-core")
    assert "No vocoder is installed" in environment.run("distill-vocoder", "list", check=True).stdout
    environment.pip("install", "--quiet", *places, "distill-bigvgan")
    third = write_plugin(tmp_path, "third-party")
    environment.pip("install", "--quiet", "--no-build-isolation", third, PYTHONPATH=str(building))
    assert environment.python_says(RUN_MINE) == [["bigvgan", "mine"], [1, 1, 4 * 256]]
    doctor = environment.run("distill-vocoder", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "Nothing is wrong." in doctor.stdout
    environment.uninstall("distill-bigvgan")
    assert environment.python_says("import json, distill_core; print(json.dumps(distill_core.registry.names()))") == [
        "mine"
    ]
