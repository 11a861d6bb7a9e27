"""The command line as people and scripts use it: every wrong use is one line and status 2, every right one works."""

import argparse
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import wave
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from program import ROOT, Program, command, environment, events_of, run, write_wav
from protocol import check_session
from random_whisper import ENGLISH, random_whisper

import streamer.commands.cli
import streamer.commands.run
from streamer.runtime import supervisor
from streamer.settings.config import Settings

sys.path.append(str(Path(__file__).parents[1] / "model"))
from backbones import save_whisper


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = save_whisper(
        tmp_path_factory.mktemp("model") / "small.pt", random_whisper(3, vocabulary=ENGLISH, ending=2.0)
    )
    path.with_suffix(".json").write_text(json.dumps({"variable_context": True, "min_context_s": 1}))
    return str(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    t = np.arange(4 * 16_000) / 16_000
    buzz = sum(np.sin(2 * np.pi * 130 * order * t) / order for order in range(1, 25)) * (
        np.sin(2 * np.pi * 0.4 * t) > 0
    )
    return str(write_wav(tmp_path_factory.mktemp("sound") / "buzz.wav", (0.1 * buzz).astype(np.float32)))


def test_the_log_can_be_read_by_programs(sound, tmp_path):
    """Every line of it: one that ends the program, and those of --debug from any thread."""
    wrong = run("--input", "nothing.wav", env={"STREAMER_LOG": "json"})
    (line,) = map(json.loads, wrong.stderr.splitlines())
    assert (wrong.returncode, line["level"], line["logger"]) == (2, "error", "streamer")
    assert "nothing.wav" in line["message"]
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    options = ("--input", sound, "--model", "nano", "--speed", "0", "--no-server", "--quiet", "--jsonl", "/dev/full")
    done = run("--debug", *options, env={"STREAMER_LOG": "json"})
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert {"debug", "error"} <= {line["level"] for line in lines}
    assert "outlet" in {line["thread"] for line in lines}
    refused = run(env={"STREAMER_LOG": "yes"})
    assert (refused.returncode, refused.stderr) == (2, "streamer: STREAMER_LOG: must be text or json; is 'yes'\n")


def refused(capsys, *arguments, says, status=2):
    assert streamer.commands.cli.main(list(arguments)) == status
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1, shown.err
    assert shown.err.startswith("streamer: ")
    assert says in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--speed", "2"), "--speed: invalid choice"),
        (("--port", "many"), "--port: invalid int value: 'many'"),
        (("--port", "70000"), "server.port"),
        (("--dtype", "int4"), "--dtype: invalid choice"),
        (("--task", "sing"), "--task: invalid choice"),
        (("--inptu", "x"), "--inptu"),
        (("--input", "no.wav"), "--input no.wav: no such file"),
        (("--input", ""), "--input"),
        (("--input", "."), "--input ."),
        (("--track", "0", "--input", "x.wav"), "audio.track: input should be greater than or equal to 1; is 0"),
        (("--track", "two"), "--track: invalid int value"),
        (("--model", "tniy.en"), "model tniy.en is neither a known name (nano, tiny.en,"),
        (("--model", "no/such.pt"), "checkpoint no/such.pt does not exist"),
        (("--track", "1"), "--track 1: a microphone has no tracks"),
        (("--config", "no.yaml"), "--config no.yaml: cannot be read"),
        (("--set", "window.hop=1"), "window.hop: unknown key"),
        (("--set", "nonsense"), "--set nonsense: must be KEY=VALUE"),
        (("--token", "short"), "--token"),
        (("--device", "3", "--input", "x.wav"), "--device and --input"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(capsys, arguments, says):
    refused(capsys, "run", *arguments, says=says)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("transcribe --modle=base talk.mp3", "unrecognized arguments: --modle=base; did you mean --model?"),
        ("sounds learn --severty info bell ding.wav", "did you mean --severity?"),
        ("alerts explan", "did you mean explain?"),
        ("rnu", "did you mean run?"),
        ("run --dtype flaot16", "did you mean float16?"),
        ("--debg run", "did you mean --debug?"),
        ("run talk.mp3", "unrecognized arguments: talk.mp3; did you mean --input talk.mp3?"),
        ("alerts", "required: WHAT: explain, history, mark, test, phone, tune; --help explains them"),
        ("doctor talk.mp3", "unrecognized arguments: talk.mp3"),
        ("transcribe a.mp3 --output x b.mp3", "b.mp3; give each FILE beside the others, with no option between them"),
    ],
)
def test_what_was_probably_meant_is_named(capsys, line, says):
    refused(capsys, *line.split(), says=f"{says}\n")


def test_every_option_of_every_command_is_named_where_two_letters_changed_places(capsys):
    def wrong(parser):
        if any(action.required for action in parser._actions):
            return  # what is missing is said first
        for action in parser._actions:
            for option in (name for name in action.option_strings if len(name) > 6):
                swapped = option[:-3] + option[-2] + option[-3] + option[-1]
                if swapped != option:
                    yield option, swapped

    def walk(parser, *names):
        below = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
        if below is None:
            yield from ((*names, option, swapped) for option, swapped in wrong(parser))
        for name, inner in (below.choices if below else {}).items():
            yield from walk(inner, *names, name)

    cases = list(walk(streamer.commands.cli.parser()))
    assert {names[0] for names in cases} >= {"run", "serve", "doctor", "alerts", "bench", "train", "eval"}
    for *command_line, option, swapped in cases:
        refused(capsys, *command_line, swapped, says=f"did you mean {option}?")


def test_wrong_inputs_models_and_outputs_are_one_line(capsys, model, sound, tmp_path):
    given = ("run", "--no-server", "--speed", "0")
    refused(capsys, *given, "--input", model, says="--input")
    refused(capsys, *given, "--input", sound, "--model", "enormous", says="enormous")
    refused(capsys, *given, "--input", sound, "--model", sound, says="buzz.wav")
    refused(capsys, *given, "--input", sound, "--model", model, "--head", "no.pth", says="no.pth")
    refused(capsys, *given, "--input", sound, "--model", model, "--language", "de", says="--language")
    refused(capsys, *given, "--input", sound, "--model", model, "--language", "xx", says="--language")
    refused(capsys, *given, "--input", sound, "--model", model, "--language", "en,xx", says="--language: 'xx'")
    refused(capsys, *given, "--input", sound, "--model", model, "--language", "de,fr", says="--language")
    refused(capsys, *given, "--input", sound, "--model", model, "--task", "translate", says="--task")
    for option in ("--jsonl", "--srt", "--vtt"):
        refused(capsys, *given, "--input", sound, "--model", model, option, "/no/where", says=option)
    refused(capsys, "run", "--input", sound, "--model", model, "--host", "0.0.0.0", says="--token")
    refused(capsys, "check-config", str(tmp_path / "no.yaml"), says="no.yaml")


def test_a_name_that_can_be_no_model_is_refused_before_torch_is_imported_and_a_page_announced():
    script = (
        "import sys; from streamer.commands.cli import main\n"
        "status = main(['run', '--input', 'ingest', '--model', 'tniy.en'])\n"
        "sys.exit(100 if {'torch', 'whisper'} & sys.modules.keys() else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("streamer: model tniy.en is neither a known name")
    assert done.stderr.endswith("; did you mean tiny.en?\n")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no CUDA")
def test_a_device_that_is_not_there_is_refused_with_the_options_name(capsys, model, sound):
    arguments = ["run", "--input", str(sound), "--model", str(model), "--no-server", "--compute", "cuda"]
    assert streamer.commands.cli.main(arguments) == 2
    assert "--compute" in capsys.readouterr().err


def test_requests_that_are_no_http_are_not_logged_with_a_traceback_each(capsys):
    assert streamer.commands.cli.main(["schema"]) == 0
    logging.getLogger("aiohttp.server").error("Error handling request from 192.0.2.1", exc_info=ValueError("no HTTP"))
    assert capsys.readouterr().err == ""


def test_subcommands_that_only_tell(capsys):
    assert streamer.commands.cli.main(["run", "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert "hop_s: 0.5" in shown
    assert "name: auto\n" in shown
    assert streamer.commands.cli.main(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert {"nano", "tiny.en", "base", "large-v3-turbo"} <= lines.keys()
    assert "here" in lines["nano"]
    assert ["English" in lines[name] for name in ("tiny.en", "base")] == [True, False]
    assert streamer.commands.cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Settings"
    assert streamer.commands.cli.main(["check-config", str(ROOT / "configs" / "default.yaml")]) == 0
    assert capsys.readouterr().out.endswith("default.yaml: ok\n")


def test_help_names_every_option_of_the_contract(capsys):
    with pytest.raises(SystemExit) as left:
        streamer.commands.cli.main(["run", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for option in streamer.commands.run.SETTINGS:
        assert f"--{option.replace('_', '-')}" in text
    for option in ("--list-devices", "--config", "--set", "--print-config", "--no-server"):
        assert option in text


def test_the_same_input_gives_the_same_bytes_and_every_file_is_whole(model, sound, tmp_path):
    options = ("--input", sound, "--model", model, "--speed", "0", "--no-server", "--dtype", "float32")
    options += ("--set", "guards.silence=false", "--set", "vad.speech_probability=0")
    first = run(*options, "--jsonl", "-", "--srt", str(tmp_path / "a.srt"), "--vtt", str(tmp_path / "a.vtt"))
    assert first.returncode == 0, first.stderr
    events = events_of(first.stdout)
    check_session(events)
    assert events[0]["session"] == "s1"
    again = run(*options, "--jsonl", str(tmp_path / "b.jsonl"), "--quiet")
    assert (tmp_path / "b.jsonl").read_text() == first.stdout
    assert again.stdout == ""
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT")


def test_a_file_on_stdin_and_its_notices(model, tmp_path):
    frames = np.random.default_rng(1).normal(0, 3_000, 24_000).astype("<i2")
    with wave.open(str(tmp_path / "opposite.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.stack([frames, -frames], axis=1).tobytes())
    pcm = (tmp_path / "opposite.wav").read_bytes()
    done = run("--input", "-", "--model", model, "--speed", "0", "--no-server", "--jsonl", "-", stdin=pcm)
    assert done.returncode == 0, done.stderr
    events = events_of(done.stdout)
    check_session(events)
    assert events[-1]["audio_t"] == 1.5
    told = [event for event in events if event["type"] == "status" and "cancel each other out" in event["detail"]]
    assert [event["state"] for event in told] == ["listening"]
    broken = run("--input", "-", "--model", model, "--speed", "0", "--no-server", stdin=pcm[:20] + bytes(90))
    assert broken.returncode == 2
    assert broken.stderr.splitlines()[-1].startswith("streamer: --input -: is damaged or no audio")


def test_raw_pcm_on_stdin(model):
    pcm = np.zeros(16_000 + 7, "<i2").tobytes() + b"\x01"
    done = run("--input", "-", "--model", model, "--speed", "0", "--no-server", "--jsonl", "-", stdin=pcm)
    assert done.returncode == 0, done.stderr
    events = events_of(done.stdout)
    check_session(events)
    assert events[-1]["audio_t"] == round(16_007 / 16_000, 6)


@pytest.fixture
def no_nohup():
    """The program under test heeds a closed terminal, also where these tests themselves were told not to."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_flushes_and_ends_within_five_seconds(model, sound, tmp_path, number, no_nohup):
    arguments = ("--input", sound, "--model", model, "--port", "0", "--stay", "--jsonl", "-", "--set")
    with Program(*arguments, "vad.speech_probability=0", "--srt", str(tmp_path / "a.srt")) as program:
        events = []
        for event in program.events():
            events.append(event)
            if event["type"] == "tags" or event["audio_t"] >= 1:
                program.signal(number)
                if number == signal.SIGHUP:  # a terminal that is closed says it twice: its shell, and then the system
                    time.sleep(0.05)
                    program.signal(number)
                break
        assert program.wait(30) == 0  # 5 s is the promise on a free machine
        events += list(program.events())
    check_session(events)
    assert events[-1]["audio_t"] < 4


def test_a_reader_that_goes_away_ends_the_program_quietly(model, sound):
    options = ("--input", sound, "--model", model, "--speed", "0", "--no-server", "--jsonl", "-", "--quiet")
    with subprocess.Popen(
        command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) == 0


def test_closed_streams_are_no_error_and_nothing_of_them_gets_into_our_files(model, sound, tmp_path):
    path = tmp_path / "a.jsonl"
    options = command("--input", sound, "--model", model, "--speed", "0", "--no-server", "--jsonl", str(path))
    closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    assert subprocess.run([*closing, *options], cwd=ROOT, env=environment(), check=False).returncode == 0
    check_session(events_of(path.read_text()))


def test_a_port_in_use_is_one_line(model, sound):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        live = run("--input", sound, "--model", model, "--port", port)
        assert live.returncode == 2
        assert "--port" in live.stderr
        assert live.stderr.count("\n") == 1  # nothing was loaded


@pytest.mark.parametrize(
    ("given", "stays"), [([], True), (["--set", "output.stay=false"], False), (["--speed", "0"], False)]
)
def test_the_pages_of_the_demo_stay_up_unless_somebody_says_otherwise(monkeypatch, given, stays):
    class Program:
        def __init__(self, settings, *more, **options):
            assert settings.output.stay is stays

        def run(self):
            return 3

    monkeypatch.setattr(supervisor, "Program", Program)
    assert streamer.commands.cli.main(["run", "--input", "demo", *given]) == 3


def test_settings_reach_the_options():
    fields = Settings.model_fields
    for path in streamer.commands.run.SETTINGS.values():
        section, key = path.split(".")
        assert key in fields[section].annotation.model_fields


def test_a_refused_start_leaves_every_file_as_it_was(capsys, model, sound, tmp_path):
    kept = tmp_path / "kept.srt"
    kept.write_text("precious")
    refused(capsys, "run", "--input", sound, "--model", "none.pt", "--srt", str(kept), "--speed", "0", says="none.pt")
    assert kept.read_text() == "precious"
    before = Path(sound).read_bytes()
    refused(capsys, "run", "--input", sound, "--model", model, "--srt", sound, "--speed", "0", says="--srt")
    assert Path(sound).read_bytes() == before


def test_sigterm_while_the_model_loads_is_a_clean_end(model, sound):
    with Program("--input", sound, "--model", model, "--speed", "0", "--no-server") as program:
        time.sleep(0.6)
        program.signal(signal.SIGTERM)
        assert program.wait(30) == 0


def test_a_reader_that_never_reads_does_not_keep_the_program(model, tmp_path):
    noise = np.random.default_rng(0).standard_normal(16_000 * 900) * 0.1
    long = write_wav(tmp_path / "long.wav", noise.astype(np.float32))
    read, write = os.pipe()
    options = ("--input", str(long), "--model", model, "--speed", "0", "--no-server", "--jsonl", "-", "--quiet")
    with subprocess.Popen(command(*options), stdout=write, cwd=ROOT, env=environment()) as process:
        os.close(write)
        time.sleep(8)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, 1)
        os.close(read)
