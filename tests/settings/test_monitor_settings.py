import pytest

from streamer.errors import ConfigError
from streamer.monitor.audiogram import audiogram_of
from streamer.settings.config import validate

EARS = {"left": {500: 20, 1000: 30, 2000: 40, 4000: 50}, "right": {"500": 10, "1000": 10, "2000": 10, "4000": 15}}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"limit_dbfs": 0}, "monitor.limit_dbfs: input should be less than or equal to -1; is 0"),
        ({"limit_db_spl": 85}, "monitor.limit_db_spl: needs output_full_scale_db_spl"),
        ({"block_ms": 20}, "monitor.block_ms: input should be less than or equal to 5; is 20"),
        ({"program": "loud"}, "monitor.program: input should be 'auto', 'quiet', 'speech', 'speech_in_noise', 'noise'"),
        ({"audiogram": "deaf"}, "monitor.audiogram: must be mild, moderate, sloping, or a file that can be read"),
        ({"audiogram": 3}, "monitor.audiogram: must be mild, moderate, sloping, a file, or {left:"),
        ({"audiogram": EARS | {"left": {500: 20}}}, "monitor.audiogram.left: must have a threshold at 1000 Hz too"),
        ({"audiogram": EARS | {"left": {440: 20}}}, "monitor.audiogram.left: must have frequencies out of 250, 500"),
        ({"audiogram": EARS | {"left": {500: 200}}}, "monitor.audiogram.left: must have -10 to 120 dB HL; 200 at 500"),
        ({"alarm": {"tone_hz": 20}}, "monitor.alarm.tone_hz: input should be greater than or equal to 200; is 20"),
        ({"volume": 3}, "monitor.volume: unknown key; known here: output, headphones"),
    ],
)
def test_a_wrong_value_gives_one_clear_line(given, wanted):
    with pytest.raises(ConfigError) as refused:
        validate({"monitor": given})
    text = str(refused.value)
    assert text.startswith(wanted)
    assert "\n" not in text


def test_an_audiogram_may_stand_in_a_file(tmp_path):
    path = tmp_path / "ears.yaml"
    path.write_text(
        "audiogram:\n  left: {500: 20, 1000: 30, 2000: 40, 4000: 50}\n  right: {500: 5, 1000: 5, 2000: 5, 4000: 5}\n"
    )
    found = audiogram_of(validate({"monitor": {"audiogram": str(path)}}).monitor)
    assert (found.left[2000], found.right[4000]) == (40, 5)
    path.write_text("left: [")
    with pytest.raises(ConfigError, match=r"monitor\.audiogram: must be a file with YAML"):
        validate({"monitor": {"audiogram": str(path)}})


def test_frequencies_may_be_text_and_what_is_printed_can_be_read_again():
    settings = validate({"monitor": {"audiogram": EARS, "output": "USB"}})
    assert settings.monitor.audiogram.right[500] == 10
    assert validate(settings.model_dump(mode="json")) == settings


def test_the_stricter_limit_holds():
    both = validate({"monitor": {"limit_dbfs": -3, "limit_db_spl": 85, "output_full_scale_db_spl": 105}})
    assert both.monitor.ceiling_dbfs == -20


def test_it_is_off_unless_asked_for():
    settings = validate({}).monitor
    assert not settings.enabled
    assert not settings.tells_scenes
