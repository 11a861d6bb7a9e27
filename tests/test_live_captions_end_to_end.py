"""The running program with OBS, YouTube and Zoom as stubs that count: what it says in its events is what they get."""

import sys
from pathlib import Path

import pytest
from program import events_of, run, write_wav

from streamer.audio.files import demo_path, read_audio

sys.path.append(str(Path(__file__).parent / "output"))
from caption_receiver import caption_receiver
from obs_stub import obs

PASSWORD = "an OBS password"


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("talk") / "talk.wav", read_audio(demo_path())[16_000:72_000])


def test_obs_youtube_and_zoom_get_what_was_said(talk, tmp_path):
    with (
        obs(PASSWORD) as studio,
        caption_receiver() as meeting,
        caption_receiver("/closedcaption?cid=topsecret") as stream,
    ):
        settings = tmp_path / "captions.yaml"
        settings.write_text(
            f"output:\n  obs: {{url: '{studio.url}', password_env: OBS_PASSWORD}}\n"
            f"  youtube: {{url: '{stream.url}'}}\n  zoom: {{url_env: ZOOM_CAPTIONS, lang: de-DE}}\n"
        )
        secrets = {"OBS_PASSWORD": PASSWORD, "ZOOM_CAPTIONS": meeting.url, "XDG_STATE_HOME": str(tmp_path)}
        options = ("--model", "nano", "--no-server", "--jsonl", "-", "--config", str(settings), "--debug")
        done = run("--input", str(talk), *options, env=secrets)
    assert done.returncode == 0, done.stderr
    said = [event["text"] for event in events_of(done.stdout) if event["type"] == "transcript" and event["final"]]
    words = " ".join(said).split()
    assert len(words) >= 3
    assert [word for word in meeting.text.split() if "[" not in word] == words
    assert meeting.seqs == list(range(1, len(meeting.seqs) + 1))
    shown = stream.text.splitlines()[1::2]
    assert [word for line in shown for word in line.split() if "[" not in word] == words
    assert all(stamp.startswith("20") and len(stamp) == 23 for stamp in stream.text.splitlines()[::2])
    assert studio.texts[-1].split()[-1] == words[-1]
    assert {word for text in studio.texts for word in text.split()} >= set(words)
    assert not [secret for secret in (PASSWORD, "topsecret", "GZHkEA") if secret in done.stderr + done.stdout]


def test_services_that_are_not_there_are_said_and_stop_nothing(talk, tmp_path):
    away = ("output.obs.url=ws://127.0.0.1:9", "output.zoom.url=http://127.0.0.1:9/closedcaption?id=topsecret")
    options = (part for setting in away for part in ("--set", setting))
    done = run("--input", str(talk), "--model", "nano", "--no-server", "--jsonl", "-", *options)
    assert done.returncode == 0, done.stderr
    events = events_of(done.stdout)
    assert [event["text"] for event in events if event["type"] == "transcript" and event["final"]]
    notices = [event["detail"] for event in events if event["type"] == "status" and "captions" in event["detail"]]
    assert any(notice.startswith("OBS: captions are not taken: OBS does not listen") for notice in notices)
    assert "Zoom: captions are not taken: Connection refused; trying again" in done.stderr
    assert "topsecret" not in done.stderr + done.stdout
