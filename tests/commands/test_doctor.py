import subprocess
import sys
from types import SimpleNamespace

import pytest

from streamer.commands import doctor
from streamer.commands.doctor import Check, Verdict
from streamer.errors import DeviceLost, InputError


def found(what: str, checks: list[Check]) -> Check:
    return next(check for check in checks if check.what == what)


@pytest.fixture
def quick(monkeypatch):
    """No heavy imports: the probes' processes answer at once."""
    monkeypatch.setattr(doctor, "_probe", lambda code: {"version": "1.0", "cpu": "AVX2", "cuda": ""})


def test_a_machine_that_has_all_is_told_so_and_each_thing_once():
    checks = doctor.checks()
    assert len({check.what for check in checks}) == len(checks)
    for what in ("Python", "packages", "torch", "openai-whisper", "webrtcvad"):
        assert found(what, checks).verdict is Verdict.OK, found(what, checks)
    for check in checks:
        assert "\n" not in check.detail + check.mend
        assert bool(check.mend) == (check.verdict is not Verdict.OK)


def test_what_cannot_be_imported_is_missing_with_its_command(monkeypatch):
    monkeypatch.setattr(doctor, "_probe", lambda code: "ModuleNotFoundError: No module named 'torch'")
    checks = doctor.checks()
    for what, package in (("torch", "torch"), ("openai-whisper", "openai-whisper"), ("webrtcvad", "webrtcvad-wheels")):
        check = found(what, checks)
        assert check.verdict is Verdict.MISSING
        assert check.mend.endswith(f"pip install {package}")


def test_an_old_python_and_missing_packages(monkeypatch, quick):
    monkeypatch.setattr(doctor, "MIN_PYTHON", (9, 0))
    monkeypatch.setattr(doctor, "_PACKAGES", {"streamer_nowhere": "a-package"})
    checks = doctor.checks()
    assert found("Python", checks).verdict is Verdict.MISSING
    assert found("packages", checks).mend.endswith("pip install a-package")


def test_a_gpu_that_torch_cannot_use_is_a_warning(monkeypatch, quick):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert found("torch", doctor.checks()).verdict is Verdict.WARN


def test_a_gpu_that_it_can_use_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_probe", lambda code: {"version": "1.0", "cpu": "AVX2", "cuda": "H100"})
    assert "CUDA on H100" in found("torch", doctor.checks()).detail


def no_portaudio():
    raise InputError("--device: the PortAudio library is missing; install it")


def test_without_portaudio_the_command_for_this_system_is_given(monkeypatch, quick):
    monkeypatch.setattr(doctor, "PortAudio", no_portaudio)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    check = found("PortAudio", doctor.checks())
    assert (check.verdict, check.mend) == (Verdict.MISSING, "sudo apt-get install libportaudio2")
    assert check.detail == "the PortAudio library is missing"
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    assert found("PortAudio", doctor.checks()).mend == "brew install portaudio"
    assert found("microphone", doctor.checks()).verdict is Verdict.WARN


def broken_device():
    device = SimpleNamespace(name="Mic", default=True)

    def native_format(device):
        raise DeviceLost("'Mic' cannot be opened")

    return SimpleNamespace(devices=lambda: (device,), native_format=native_format)


@pytest.mark.parametrize("audio", [broken_device, lambda: SimpleNamespace(devices=lambda: ())])
def test_no_microphone_that_works_is_a_warning(monkeypatch, quick, audio):
    monkeypatch.setattr(doctor, "PortAudio", audio)
    assert found("microphone", doctor.checks()).verdict is Verdict.WARN


def test_the_bundled_model_and_its_head(monkeypatch, quick, tmp_path):
    monkeypatch.setattr(doctor, "_DATA", tmp_path)
    assert found("model nano", doctor.checks()).verdict is Verdict.MISSING
    (tmp_path / "nano.pt").touch()
    assert "captions only" in found("model nano", doctor.checks()).detail
    (tmp_path / "nano_at.pth").touch()
    assert found("model nano", doctor.checks()).verdict is Verdict.OK


def test_a_full_or_locked_disk_is_told(monkeypatch, quick, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "there" / "yet"))
    assert found("cache", doctor.checks()).verdict is Verdict.OK
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    assert "only 0.1 GB free" in found("cache", doctor.checks()).detail
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert "may not be written" in found("cache", doctor.checks()).detail


@pytest.mark.parametrize(
    ("code", "words"),
    [("import nowhere", "No module named 'nowhere'"), ("import os; os._exit(3)", "ended with status 3")],
)
def test_a_probe_that_fails_is_one_line(code, words):
    said = doctor._probe(code)
    assert isinstance(said, str)
    assert words in said
    assert "\n" not in said


def test_a_probe_that_hangs_is_given_up(monkeypatch):
    def hang(*arguments, **options):
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert "did not load" in doctor._probe("")


def test_the_list_of_devices_needs_no_torch():
    code = "import sys, streamer.commands.doctor; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
