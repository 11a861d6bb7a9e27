import json

import numpy as np
import pytest
from tiny_data import write_wav

from streamer.errors import InputError
from streamer.measure.recordings import TrueWord, chosen, in_a_quiet_room, read_recordings


@pytest.fixture
def place(tmp_path):
    for name in ("a.wav", "b.wav", "c.wav"):
        write_wav(tmp_path / name, np.zeros(1600))
    return tmp_path


def manifest(place, *lines, header="path,set,seconds,language,text"):
    path = place / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_rows_become_recordings(place):
    path = manifest(
        place, 'a.wav,talk,0.1,pt-BR,"Sim, senhor."', "b.wav,sounds/dog,0.1,,", "c.wav,talk,0.1,en,", "a.wav,more,,,yes"
    )
    speech, sound, unknown = read_recordings(path)
    assert speech.name == "a.wav"
    assert (speech.path, speech.set, speech.language, speech.text) == (place / "a.wav", "talk", "pt", "Sim, senhor.")
    assert (sound.set, sound.language, sound.text) == ("sounds/dog", None, "")
    assert unknown.language is None
    assert len(speech.samples()) == 1600


def test_a_split_stands_in_for_a_set(place):
    found = read_recordings(manifest(place, "a.wav,one,test", "b.wav,two,", header="path,text,split"))
    assert [recording.set for recording in found] == ["test", "all"]


def test_a_row_may_say_which_alerts_are_raised(place):
    found = read_recordings(
        manifest(place, "a.wav,sounds/x,,siren car_horn", "b.wav,sounds/x,,", header="path,set,text,alert")
    )
    assert [recording.alert for recording in found] == [("siren", "car_horn"), ()]


def test_a_quiet_room_is_around_a_recording():
    room = in_a_quiet_room(np.ones(1600, np.float32))
    assert len(room) == 3 * 16_000 + 1600 + 6 * 16_000
    assert room.dtype == np.float32
    assert 0 < np.abs(room[:48_000]).max() < 1e-3
    assert (room[48_000:49_600] == 1).all()


def test_sets_are_chosen_by_name_or_by_the_folder_above(place):
    found = read_recordings(
        manifest(place, "a.wav,talk,,en,x", "b.wav,talk,,en,y", "b.wav,sounds/dog,,,", "c.wav,sounds/bell,,,")
    )
    assert [each.set for each in chosen(found, ["sounds"])] == ["sounds/dog", "sounds/bell"]
    assert [each.text for each in chosen(found, ["talk"], 1)] == ["x"]
    assert len(chosen(found)) == 4
    with pytest.raises(
        InputError, match=r"--sets sound: there is no such set; there are sounds/bell, sounds/dog, talk"
    ):
        chosen(found, ["sound"])


@pytest.mark.parametrize(
    ("lines", "header", "complaint"),
    [
        (["a.wav,x"], "path,set", "lacks `text`"),
        ([",talk,,en,x"], None, "line 2: `path` is empty"),
        (["a.wav,talk,,xx,x"], None, "line 2: `language` must be a code that Whisper knows, such as en, is 'xx'"),
        (["a.wav,talk,,en,x", "gone.wav,talk,,en,x"], None, "line 3: .*gone.wav is missing"),
        (["a.wav,talk,,en,"], None, "no row has a text, and no set begins with sounds/"),
    ],
)
def test_a_wrong_manifest_is_refused_in_one_line(place, lines, header, complaint):
    path = manifest(place, *lines, **({"header": header} if header else {}))
    with pytest.raises(InputError, match=complaint) as caught:
        read_recordings(path)
    assert str(caught.value).startswith(f"--data {path}")
    assert "\n" not in str(caught.value)


def test_what_is_no_manifest_is_refused(place):
    with pytest.raises(InputError, match=r"--data .*nowhere.csv: cannot be read: No such file"):
        read_recordings(place / "nowhere.csv")
    (place / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="must be a CSV file in UTF-8"):
        read_recordings(place / "x.csv")
    with pytest.raises(InputError, match=r"must be a manifest, or a folder with NAME\.flac and NAME\.json"):
        read_recordings(place)


def test_scenes_carry_the_ends_of_their_words(tmp_path):
    for name, words in (("noisy_room_3", [{"word": "one", "start": 0.2, "end": 0.5}]), ("silence_0", [])):
        (tmp_path / f"{name}.flac").write_bytes(b"")
        (tmp_path / f"{name}.json").write_text(json.dumps({"words": words}))
    noisy, silent = read_recordings(tmp_path)
    assert (noisy.set, noisy.text, noisy.words) == ("noisy_room", "one", (TrueWord("one", 0.5),))
    assert (silent.set, silent.text) == ("sounds/silence", "")
    (tmp_path / "silence_0.json").write_text("{}")
    with pytest.raises(InputError, match="must hold the scene's `words`"):
        read_recordings(tmp_path)
