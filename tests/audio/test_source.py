import subprocess
import sys

import pytest
from media_files import tone, write_media

from streamer.audio.files import FileSource
from streamer.audio.source import open_source
from streamer.audio.stdin import StdinSource
from streamer.errors import InputError


def test_a_file_is_paced_or_not(tmp_path):
    path = str(write_media(tmp_path / "x.flac", tone(16_000, 0.2), 16_000, "flac"))
    fast = open_source(input=path, realtime=False)
    assert isinstance(fast, FileSource)
    assert not fast.live
    assert open_source(input=path, realtime=True).live


def test_a_dash_is_standard_input(monkeypatch, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(10))
    with (tmp_path / "raw").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        source = open_source(input="-", realtime=False)
        assert isinstance(source, StdinSource)
        assert sum(len(block.samples) for block in source.blocks()) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": 0, "input": "x.wav"}, "--device and --input"),
        ({"input": ""}, "--input: is empty"),
        ({"input": "nowhere.wav"}, "--input nowhere.wav: no such file"),
    ],
)
def test_a_refusal_names_the_option(arguments, words):
    with pytest.raises(InputError) as caught:
        open_source(**arguments)
    assert str(caught.value).startswith(words)


def test_without_portaudio_a_microphone_is_refused_with_the_command_that_mends_it_and_files_still_work(tmp_path):
    path = write_media(tmp_path / "x.flac", tone(16_000, 0.2), 16_000, "flac")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from streamer.audio.source import open_source
from streamer.errors import InputError
print(sum(len(block.samples) for block in open_source(input={str(path)!r}, realtime=False).blocks()))
try:
    open_source(device=0)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    samples, refusal = done.stdout.strip().splitlines()
    assert samples == "3200"
    assert "apt-get install libportaudio2" in refusal
    assert "brew install portaudio" in refusal


def test_importing_the_sources_imports_no_sounddevice():
    code = "import sys, streamer.audio.source; print('sounddevice' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
