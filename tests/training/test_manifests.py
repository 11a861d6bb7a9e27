import json
from pathlib import Path

import pytest
from tiny_data import write_wav

from streamer.errors import InputError
from streamer.sound import labels
from streamer.training.manifests import ESC50, ManifestSettings, hold_out, of_split, read_manifest

SIREN, BARK = labels.find("Siren").index, labels.find("Bark").index


def _audio(path: Path) -> Path:
    return write_wav(path, [0.0] * 160)


def test_labels_are_indices_machine_ids_or_names(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"path,labels,split,start,end\na.wav,Siren|{labels.find('Bark').id},test,1.5,3\nb.wav,{BARK},,,\n")
    first, second = read_manifest(path).clips
    assert first.labels == tuple(sorted((SIREN, BARK)))
    assert (first.path, first.split, first.start_s, first.end_s) == (tmp_path / "a.wav", "test", 1.5, 3.0)
    assert (second.labels, second.split, second.start_s, second.end_s) == ((BARK,), "train", 0.0, None)


def test_jsonl_says_the_same(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [{"path": "a.wav", "labels": ["Siren", BARK], "split": "test"}, {"path": "b.wav", "labels": "Bark|Siren"}]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    first, second = read_manifest(path).clips
    assert first.labels == second.labels == tuple(sorted((SIREN, BARK)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.wav,Sirene,", "Siren"),
        ("a.wav,9999,", "9999"),
        ("a.wav,Siren,soon", "start is 'soon'"),
        (",Siren,", "`path` is empty"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, line, said):
    path = tmp_path / "m.csv"
    path.write_text(f"path,labels,start\nok.wav,Siren,\n{line}\n")
    with pytest.raises(InputError, match=r"line 3.*") as error:
        read_manifest(path)
    assert said in str(error.value)


def test_unknown_formats_and_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")
    odd = tmp_path / "odd.csv"
    odd.write_text("name;sound\n")
    with pytest.raises(InputError, match="no known format"):
        read_manifest(odd)


SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=22160, num_segs=22160
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/03kmc9,/t/dd00088"
abcdefghijk, 0.000, 10.000, "/m/05tny_"
gone0000000, 0.000, 10.000, "/m/05tny_"
"""


@pytest.mark.parametrize("name", ["--PJHxphWEs", "Y--PJHxphWEs", "--PJHxphWEs_30", "--PJHxphWEs_30000_40000"])
def test_audioset_segments_find_their_files(tmp_path, name):
    path = tmp_path / "balanced_train_segments.csv"
    path.write_text(SEGMENTS)
    for stem in (name, "abcdefghijk"):
        _audio(tmp_path / "audio" / f"{stem}.wav")
    found = read_manifest(ManifestSettings(path=path, audio=tmp_path / "audio"))
    assert found.missing == 1
    first, second = found.clips
    assert first.path.stem == name
    assert SIREN in first.labels
    assert second.labels == (BARK,)
    assert {clip.split for clip in found.clips} == {"train"}
    assert (first.start_s, first.end_s) == (0.0, None)


def test_audioset_segments_of_whole_videos_keep_their_times(tmp_path):
    path = tmp_path / "eval_segments.csv"
    path.write_text(SEGMENTS)
    _audio(tmp_path / "audio" / "--PJHxphWEs.wav")
    (clip,) = read_manifest(ManifestSettings(path=path, audio=tmp_path / "audio", trimmed=False)).clips
    assert (clip.split, clip.start_s, clip.end_s) == ("test", 30.0, 40.0)


def test_esc50_categories_become_labels(tmp_path):
    path = tmp_path / "meta" / "csv"
    path.parent.mkdir()
    path.write_text(
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        "5-9032-A-0.wav,5,42,siren,True,9032,A\n"
    )
    (tmp_path / "audio").mkdir()
    dog, siren = read_manifest(path).clips
    assert dog.path == tmp_path / "audio" / "1-100032-A-0.wav"
    assert BARK in dog.labels
    assert SIREN in siren.labels
    assert (dog.fold, dog.split, siren.split, siren.category) == ("1", "train", "test", "siren")


def test_every_esc50_category_names_real_labels():
    assert len(ESC50) == 50
    for names in ESC50.values():
        assert names
        for name in names:
            labels.find(name)


def test_held_out_clips_share_no_source(tmp_path):
    path = tmp_path / "m.csv"
    lines = [f"{fold}-{number}-{take}-3.wav,Moo" for fold in (1, 2) for number in range(40) for take in "ABC"]
    path.write_text("path,labels\n" + "\n".join(lines) + "\n")
    kept, held = hold_out(read_manifest(path).clips, 0.3)
    assert len(kept) + len(held) == 240
    assert 30 <= len(held) <= 120
    source = {clip.path.stem.rsplit("-", 2)[0] for clip in kept}
    assert not source & {clip.path.stem.rsplit("-", 2)[0] for clip in held}


def test_a_split_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,labels,split\na.wav,Siren,train\n")
    with pytest.raises(InputError, match="has train"):
        of_split(read_manifest(path).clips, "test")
