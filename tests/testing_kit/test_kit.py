"""The conformance kit: passes what keeps the contract, and fails each planted vocoder for the right promise."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from distill_core import MelSpec, Registry, Variant, errors
from distill_core.cli import main
from distill_core.discovery import Candidate, Discovery
from distill_core.testing import CHECKS, Report, Subject, VocoderConformance, conformance, run_checks
from tests import checkpoints, toy
from tests.conftest import ROOT
from tests.testing_kit import planted

NEEDS_ACCELERATOR = {"runs_on_cuda", "runs_on_mps"}

# name of a class in planted.py -> the promises it breaks, the one it was planted for first; ... for what else
# cannot hold any more
CLASSES = {
    "Relabelled": ["loads", "refuses_other_weights"],
    "ElsewhereReport": ["reports"],
    "Chatty": ["quiet"],
    "ChattyBelow": ["quiet"],
    "ChattyLoading": ["quiet"],
    "GlobalSettings": ["leaves_torch_alone"],
    "GlobalSettingOnce": ["leaves_torch_alone"],
    "GlobalNoise": ["leaves_torch_alone"],
    "GlobalDraw": ["leaves_torch_alone"],
    "AutoPrecision": ["precisions"],
    "AlwaysAuto": ["reports", "loads", "precisions"],
    "FullForHalf": ["precisions"],
    "HalfOverflows": ["precisions"],
    "SixteenBit": ["finite"],
    "NotANumber": ["finite"],
    "NotANumberUnchecked": ["finite"],
    "DividesBySilence": ["finite"],
    "FailsOnSilence": ["finite"],
    "TwoChannels": ["shapes"],
    "Crashes": ["shapes"],
    "Unseeded": ["precisions"],
    "Motionless": ["moves_whole"],
    "MovesWhatIsNotThere": ["moves_whole"],
    "HalfFails": ["precisions"],
    "LosesAFrame": ["shapes", "stream", "ragged", "halo", "finite"],
    "DoubleOut": ["dtypes"],
    "Overflows": ["finite"],
    "IgnoresTheMel": ["finite", "halo"],
    "NoiseByPosition": ["chunks", "stream", "ragged"],
    "NormalisesOverTime": ["chunks", "stream", "halo", "ragged"],
    "StreamsInPieces": ["stream"],
    "StreamsLate": ["stream"],
    "StreamsWithoutArguments": ["stream"],
    "RunsWithoutArguments": ["shapes"],
    "MixesRows": ["ragged"],
    "MixesRowsOfOneRun": ["ragged"],
    "ForgetsPadding": ["ragged"],
    "HaloTooSmall": ["halo", "chunks", "stream"],
    "HaloForNothing": ["halo"],
    "TakesAnything": ["bad_input"],
    "BareErrors": ["bad_input"],
    "CarriesState": ["deterministic", ...],
    "Hoards": ["deterministic"],
    "TrainingMode": ["inference_only"],
    "KeepsTheGraph": ["inference_only"],
    "ChangesTheMel": ["inference_only", ...],
    "ScratchOnSelf": ["threads"],
    "ToReturnsNothing": ["to"],
    "ToBelievesAnything": ["to"],
    "LeavesATensor": ["moves_whole"],
    "WornByMoving": ["runs_on_cpu", "to"],
}

# what is wrong with the card or the factory -> the promises that breaks
CARDS = {
    "no licence": ({"license": ""}, ["described"]),
    "two-line summary": ({"summary": "a\nb"}, ["described"]),
    "address": ({"homepage": "example"}, ["described"]),
    "wrong sample rate": ({"variants": [Variant("plain", toy.MEL, 16000)]}, ["formats", "loads"]),
    "weights ignored": ({"factory": "tests.testing_kit.planted:load_ignoring_weights"}, ["refuses_other_weights"]),
    "bare weight errors": (
        {"factory": "tests.testing_kit.planted:load_letting_torch_complain"},
        ["refuses_other_weights"],
    ),
    "configuration ignored": (
        {"factory": "tests.testing_kit.planted:load_ignoring_config"},
        ["refuses_other_weights"],
    ),
    "seed at loading": ({"factory": "tests.testing_kit.planted:load_seeding"}, ["leaves_torch_alone"]),
    "draw at loading": ({"factory": "tests.testing_kit.planted:load_drawing"}, ["leaves_torch_alone"]),
    "any option": ({"factory": "tests.testing_kit.planted:load_with_any_option"}, ["refuses_unknown_options"]),
    "positional factory": ({"factory": "tests.testing_kit.planted:load_by_position"}, ["factory", "loads"]),
    "no factory": ({"factory": "tests.testing_kit.planted:no_such_function"}, ["factory", "loads"]),
}


def failures(report) -> set[str]:
    return {result.name for result in report.failed}


def detail(report, name: str) -> str:
    return next(result.detail for result in report.results if result.name == name)


def test_a_conforming_vocoder_passes_everything() -> None:
    report = run_checks("Conforming", registry=planted.registry_of("Conforming"))
    assert report.ok, str(report)
    assert {result.name for result in report.skipped} <= {*NEEDS_ACCELERATOR, "light"}
    assert report.counts["run"] == report.counts["passed"] == len(CHECKS) - report.counts["skipped"]


@pytest.mark.parametrize("name", CLASSES)
def test_each_planted_vocoder_fails_its_promise(name: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)  # as some of them change it
    report = run_checks(name, registry=planted.registry_of(name))
    expected = CLASSES[name]
    assert expected[0] in failures(report), str(report)
    assert ... in expected or failures(report) <= set(expected), str(report)
    assert len(detail(report, expected[0])) > 40
    assert not report.ok


def test_of_noise_the_kit_says_what_keeps_the_contract() -> None:
    report = run_checks("NoiseByPosition", registry=planted.registry_of("NoiseByPosition"))
    assert "A frame's noise has to follow from its mel alone" in detail(report, "chunks")
    report = run_checks("NoiseOfTheMel", registry=planted.registry_of("NoiseOfTheMel"))
    assert report.ok, str(report)


@pytest.mark.parametrize("name", CARDS)
def test_each_planted_card_fails_its_promise(name: str) -> None:
    changes, expected = CARDS[name]
    report = run_checks("Conforming", registry=planted.registry_of("Conforming", **changes))
    assert failures(report) == set(expected), str(report)


def write_plugin(folder, monkeypatch, source: str, module: str) -> Registry:
    (folder / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    return Registry(find=lambda: Discovery((Candidate("mine", module, "mine-dist", "1.0"),)), environ={})


PLUGIN = """
{imports}
from distill_core import MelSpec, Variant, VocoderCard, hookimpl

MEL = MelSpec(8000, 64, 16, 64, 5, 0.0, None, "htk", None, 1.0, "ln", 1e-5, False)

@hookimpl
def distill_vocoders():
    return [VocoderCard("{name}", "s", 1, "tests.toy:load", [Variant("plain", MEL, 8000)], license="MIT")]
"""


@pytest.mark.parametrize("statement", ["import torch", "from distill_core import ModuleVocoder"])
def test_a_plugin_that_imports_torch_is_told_where(tmp_path, monkeypatch, statement: str) -> None:
    source = PLUGIN.format(imports=statement, name="mine")
    module = f"heavy_plugin_{len(statement)}"
    report = run_checks("mine", registry=write_plugin(tmp_path, monkeypatch, source, module))
    assert "light" in failures(report)
    assert f"{module}.py, line 2: {statement}" in detail(report, "light")


@pytest.mark.parametrize("statement", ["print('hello')", "import os; os.write(1, b'hello')"])
def test_a_plugin_that_prints_while_it_is_imported_is_told(tmp_path, monkeypatch, statement: str) -> None:
    source = PLUGIN.format(imports=statement, name="mine")
    report = run_checks("mine", registry=write_plugin(tmp_path, monkeypatch, source, f"chatty_plugin_{len(statement)}"))
    assert "prints 'hello' to stdout" in detail(report, "light")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"variant": "nope"}, errors.UnknownVariantError),
        ({"device": "cuda:99"}, errors.DeviceError),
        ({"weights": "/no/such/folder"}, errors.WeightsNotFoundError),
        ({"precision": "fp16"}, errors.PrecisionError),
        ({"precision": "fp64"}, errors.PrecisionError),
    ],
)
def test_what_was_asked_for_in_vain_is_no_broken_promise(arguments, error) -> None:
    with pytest.raises(error):
        run_checks("Conforming", registry=planted.registry_of("Conforming"), **arguments)


def test_two_loads_that_give_two_models_are_told() -> None:
    report = run_checks("Unseeded", registry=planted.registry_of("Unseeded"))
    assert "Two loads give two models" in detail(report, "precisions")


@pytest.mark.parametrize(
    ("name", "told_by", "reason"),
    [
        ("NotANumber", "finite", "the output is not finite"),
        ("NotANumberUnchecked", "finite", "the output is not finite"),
        ("TwoChannels", "shapes", "it does not run (PluginError)"),
        ("Crashes", "shapes", "it does not run (RuntimeError)"),
    ],
)
def test_what_makes_no_sound_is_told_once_and_the_rest_does_not_apply(name: str, told_by: str, reason: str) -> None:
    report = run_checks(name, registry=planted.registry_of(name))
    assert failures(report) == {told_by}
    output = [result for result in report.results if result.group == "output" and result.name != told_by]
    assert [result.outcome for result in output] == ["skipped"] * len(output), str(report)
    assert {result.detail for result in output} == {reason}, str(report)
    assert {"loads", "reports", "refuses_other_weights", "moves_whole"} <= {result.name for result in report.passed}


@pytest.mark.parametrize(("factory", "done"), [("load_seeding", "seeds"), ("load_drawing", "draws from")])
def test_random_numbers_taken_while_loading_are_told_with_the_remedy(factory: str, done: str) -> None:
    registry = planted.registry_of("Conforming", factory=f"{planted.__name__}:{factory}")
    report = run_checks("Conforming", registry=registry)
    assert f"Loading it {done} torch's global random numbers" in detail(report, "leaves_torch_alone")
    assert "with torch.random.fork_rng():" in detail(report, "leaves_torch_alone")


@pytest.mark.parametrize(
    ("statement", "check", "words"),
    [
        ("print('hello')", "quiet", "prints 'hello' to stdout"),
        ("torch.manual_seed(0)", "leaves_torch_alone", "seeds torch's global random numbers"),
        ("torch.set_grad_enabled(False)", "leaves_torch_alone", "changes torch.is_grad_enabled() from True to False"),
        ("torch.backends.mkldnn.enabled = False", "leaves_torch_alone", "changes torch.backends.mkldnn.enabled"),
    ],
)
def test_what_the_factorys_module_does_when_it_is_imported_is_told(
    tmp_path, monkeypatch, statement: str, check: str, words: str
) -> None:
    module = f"factory_{len(statement)}"
    (tmp_path / f"{module}.py").write_text(f"import torch\nfrom tests.testing_kit.planted import load\n{statement}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)
    with torch.enable_grad():
        report = run_checks("Conforming", registry=planted.registry_of("Conforming", factory=f"{module}:load"))
    assert failures(report) == {check}
    assert f"Importing {module} {words}" in detail(report, check)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has none of the newer settings")
def test_torchs_newer_settings_of_precision_count_and_may_be_in_use(tmp_path, monkeypatch, request) -> None:
    request.addfinalizer(lambda: torch.set_float32_matmul_precision("highest"))  # sets the newer ones, too
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError, match="mix"):
        torch.get_float32_matmul_precision()
    assert not failures(run_checks("Conforming", registry=planted.registry_of("Conforming")))
    (tmp_path / "factory_fast.py").write_text(
        "import torch\nfrom tests.testing_kit.planted import load\ntorch.backends.cuda.matmul.fp32_precision = 'ieee'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = run_checks("Conforming", registry=planted.registry_of("Conforming", factory="factory_fast:load"))
    assert failures(report) == {"leaves_torch_alone"}
    assert "torch.backends.cuda.matmul.fp32_precision from tf32 to ieee" in detail(report, "leaves_torch_alone")


def test_checking_leaves_the_random_numbers_of_loading_alone() -> None:
    before = torch.get_rng_state()
    subject = Subject("Conforming", planted.registry_of("Conforming", factory=f"{planted.__name__}:load_seeding"))
    subject.vocoder  # noqa: B018
    assert torch.equal(torch.get_rng_state(), before)


def test_what_runs_on_the_cpu_alone_need_not_move() -> None:
    report = run_checks("Motionless", registry=planted.registry_of("Motionless", devices=["cpu"]))
    assert report.ok, str(report)
    assert detail(report, "moves_whole") == "it runs on the CPU alone, and cannot be moved"


def test_a_precision_of_auto_is_no_answer_to_auto() -> None:
    report = run_checks("AutoPrecision", registry=planted.registry_of("AutoPrecision"), precision="auto")
    assert failures(report) == {"reports"}
    assert "choose one of fp32, bf16, fp16" in detail(report, "reports")


def test_a_plugin_that_imports_no_torch_is_light(tmp_path, monkeypatch) -> None:
    source = PLUGIN.format(imports="", name="mine")
    report = run_checks("mine", registry=write_plugin(tmp_path, monkeypatch, source, "light_plugin"))
    assert "light" in {result.name for result in report.passed}, str(report)


def test_a_plugin_that_is_an_object_in_its_module_is_light_as_well(tmp_path, monkeypatch) -> None:
    source = "from types import SimpleNamespace\n" + PLUGIN.format(imports="", name="mine")
    source += "\nPLUGINS = SimpleNamespace(mine=SimpleNamespace(distill_vocoders=distill_vocoders))\n"
    source += "del distill_vocoders\n"
    write_plugin(tmp_path, monkeypatch, source, "object_plugin")
    candidate = Candidate("mine", "object_plugin", "mine-dist", "1.0", attribute="PLUGINS.mine")
    report = run_checks("mine", registry=Registry(find=lambda: Discovery((candidate,)), environ={}))
    assert "light" in {result.name for result in report.passed}, str(report)


def test_a_card_of_another_name_fails_and_the_rest_does_not_apply(tmp_path, monkeypatch) -> None:
    source = PLUGIN.format(imports="", name="other")
    report = run_checks("mine", registry=write_plugin(tmp_path, monkeypatch, source, "other_plugin"))
    assert failures(report) == {"found"}
    assert report.counts["skipped"] == len(CHECKS) - 1
    assert "no card named 'mine'" in report.summary


def test_a_card_that_no_entry_point_leads_to_is_told(tmp_path, monkeypatch) -> None:
    first = PLUGIN.format(imports="", name="mine")
    both = first.rstrip().removesuffix("]") + ", *second()]\n"
    both += "\ndef second():\n    from tests import toy\n    return [toy.card('forgotten')]\n"
    report = run_checks("mine", registry=write_plugin(tmp_path, monkeypatch, both, "forgetful_plugin"))
    assert "found" in failures(report)
    assert 'Add forgotten = "forgetful_plugin" to the entry points' in detail(report, "found")


def test_asking_for_half_precision_and_getting_full_is_noticed() -> None:
    registry = planted.registry_of("x", factory="tests.testing_kit.planted:load_ignoring_precision")
    report = run_checks("x", registry=registry, precision="bf16")
    assert "vocoder.precision is 'fp32'" in detail(report, "loads")


def test_every_check_is_failed_by_some_plant() -> None:
    targets = {promises[0] for promises in CLASSES.values()} | {promises[0] for _, promises in CARDS.values()}
    targets |= {"light", "found"}  # the two tests above
    assert {check.name for check in CHECKS} - targets == NEEDS_ACCELERATOR


def test_the_kit_takes_seconds_worth_of_frames() -> None:
    """Counted in frames, which is what costs time in a full-size model."""
    vocoders = []
    real = planted.PLANTS["Conforming"]
    planted.PLANTS["Conforming"] = lambda *args, **named: vocoders.append(real(*args, **named)) or vocoders[-1]
    try:
        run_checks("Conforming", registry=planted.registry_of("Conforming"))
    finally:
        planted.PLANTS["Conforming"] = real
    frames = sum(rows * width for vocoder in vocoders for rows, width in vocoder.runs)
    assert frames < 300 + 20 * toy.HALO


def test_an_unknown_name_is_no_broken_promise() -> None:
    with pytest.raises(errors.UnknownVocoderError):
        run_checks("nothing-of-this-name", registry=Registry(find=Discovery, environ={}))


class TestConforming(VocoderConformance):
    """The kit as an author's tests use it."""

    name = "Conforming"
    registry = planted.registry_of("Conforming")


TestConformingByFunction = conformance(
    "Conforming", registry=planted.registry_of("Conforming"), weights=lambda: toy.ToyModel(seed=3).state_dict()
)


def test_a_failing_vocoder_fails_under_pytest(pytester_run) -> None:
    done = pytester_run(
        "from tests.testing_kit import planted\nfrom distill_core.testing import conformance\n"
        "TestIt = conformance('HaloForNothing', registry=planted.registry_of('HaloForNothing'))\n"
    )
    assert done.returncode == 1
    assert "test_halo" in done.stdout
    assert "1 failed" in done.stdout
    assert "sees no CUDA device" in done.stdout or torch.cuda.is_available()


@pytest.fixture
def pytester_run(tmp_path):
    def run(source: str):
        (tmp_path / "test_it.py").write_text(source)
        command = [sys.executable, "-m", "pytest", "-ra", "-q", "-p", "no:cacheprovider", str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    return run


# Ours


def bigvgan_weights() -> dict:
    config = checkpoints.bigvgan_config(channels=16)
    return {"generator": checkpoints.bigvgan_state(config), "config": config}


TestBigVGAN = conformance("bigvgan", weights=bigvgan_weights, variant=checkpoints.VARIANT)


def hifigan_weights() -> dict:
    from distill_hifigan._vendor.hifigan import CONFIGS, HiFiGAN

    config = {**CONFIGS["v3"], "upsample_initial_channel": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"generator": HiFiGAN(config).state_dict(), "config": config}


TestHiFiGANOfRandomWeights = conformance("hifigan", weights=hifigan_weights)


def needs_pretrained() -> None:
    try:
        from distill_hifigan.pretrained import pretrained_checkpoint

        pretrained_checkpoint("universal")
    except errors.WeightsNotFoundError as error:
        pytest.skip(str(error))


class TestHiFiGANUniversal(VocoderConformance):
    name = "hifigan"

    @classmethod
    def setup_class(cls) -> None:
        needs_pretrained()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("bigvgan", {"weights": bigvgan_weights}), ("hifigan", {"weights": hifigan_weights})],
)
def test_ours_skip_nothing_that_this_machine_could_run(name: str, arguments: dict) -> None:
    report = run_checks(name, **arguments)
    assert report.ok, str(report)
    assert {result.name for result in report.skipped} <= NEEDS_ACCELERATOR
    for result in report.skipped:
        assert "no CUDA device" in result.detail or "no MPS device" in result.detail


# The command


def test_the_command_prints_counts_and_exits_by_the_outcome(monkeypatch, capsys) -> None:
    from distill_core.testing import subject

    monkeypatch.setattr(subject, "process_registry", planted.registry_of("Conforming"))
    assert main(["check", "Conforming"]) == 0
    out = capsys.readouterr().out
    assert f"{len(CHECKS) - out.count('    skip')} checks ran" in out
    assert "0 failed" in out
    assert out.count("    ok ") == len(CHECKS) - out.count("    skip")
    monkeypatch.setattr(subject, "process_registry", planted.registry_of("HaloTooSmall"))
    assert main(["check", "HaloTooSmall", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["counts"]["failed"] == len([each for each in found["results"] if each["outcome"] == "failed"])


def test_auto_is_the_one_it_means() -> None:
    report = run_checks("auto", registry=planted.registry_of("Conforming"))
    assert (report.vocoder, report.ok) == ("Conforming", True)


def test_one_check_ran_and_two_checks_ran() -> None:
    results = run_checks("Conforming", registry=planted.registry_of("Conforming")).passed
    lines = [Report("x", "x", "x", results[:count]).summary for count in (1, 2)]
    assert lines[0].startswith("1 check ran in") and lines[1].startswith("2 checks ran in")


def test_the_command_on_a_terminal_shows_how_far_it_is_and_wipes_that_without_escape_sequences(
    monkeypatch, capsys
) -> None:
    from distill_core.testing import subject

    monkeypatch.setattr(subject, "process_registry", planted.registry_of("Conforming"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["check", "Conforming"]) == 0
    shown = capsys.readouterr().err
    _, *steps, blank, rest = shown.split("\r")
    assert [step.split()[0] for step in steps] == [f"{n}/{len(CHECKS)}" for n in range(1, len(CHECKS) + 1)]
    assert len({len(step) for step in (*steps, blank)}) == 1 and blank.isspace() and not rest
    assert "\x1b" not in shown


def test_the_command_on_an_unknown_name_is_one_line(capsys) -> None:
    assert main(["check", "nothing-of-this-name"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: There is no vocoder")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "nope"], "has no variant 'nope'"),
        (["--weights", "nope"], "There is no nope"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--precision", "fp16"], "There is no fp16 on a CPU"),
    ],
)
def test_the_command_with_what_cannot_be_had_is_one_line(monkeypatch, capsys, arguments, words) -> None:
    from distill_core.testing import subject

    monkeypatch.setattr(subject, "process_registry", planted.registry_of("Conforming"))
    assert main(["check", "Conforming", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and words in captured.err and captured.err.count("\n") == 1


def test_the_commands_json_stands_alone_whatever_the_vocoder_prints(monkeypatch, capsys) -> None:
    from distill_core.testing import subject

    monkeypatch.setattr(subject, "process_registry", planted.registry_of("Chatty"))
    assert main(["check", "Chatty", "--json"]) == 1
    captured = capsys.readouterr()
    assert [each["name"] for each in json.loads(captured.out)["results"] if each["outcome"] == "failed"] == ["quiet"]
    assert "vocoding ..." in captured.err


def test_the_mels_it_makes_are_in_the_format() -> None:
    from distill_core.testing.subject import noise_mel

    for preset in MelSpec.presets():
        spec = MelSpec.preset(preset)
        mel = noise_mel(spec, 2, 7, 0)
        assert mel.shape == (2, spec.n_mels, 7)
        assert mel.isfinite().all()
        assert (mel[0] - mel[1]).abs().max() > 0.1
