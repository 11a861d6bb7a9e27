import pytest

from streamer.audio.portaudio import Device, choose_device, find_again
from streamer.errors import InputError

BUILT_IN = Device(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)", "ALSA", 2, 44_100)
USB_A = Device(3, "Blue Snowball: USB Audio (hw:1,0)", "ALSA", 1, 48_000)
USB_B = Device(4, "Jabra: USB Audio (hw:2,0)", "ALSA", 1, 16_000)
DEFAULT = Device(7, "default", "ALSA", 32, 44_100, default=True)
ALL = (BUILT_IN, USB_A, USB_B, DEFAULT)


@pytest.mark.parametrize(
    ("wanted", "device"),
    [(None, DEFAULT), (3, USB_A), ("3", USB_A), (" 0 ", BUILT_IN), ("snowball", USB_A), ("JABRA", USB_B)],
)
def test_by_index_by_part_of_the_name_or_default(wanted, device):
    assert choose_device(ALL, wanted) is device


def test_an_exact_name_wins_over_a_part():
    mic, other = Device(1, "Mic", "ALSA", 1, 48_000), Device(2, "Mic 2", "ALSA", 1, 48_000)
    assert choose_device((other, mic), "mic") is mic
    assert choose_device(ALL, "blue snowball: usb audio") is USB_A


def test_without_a_marked_default_the_first_is_taken():
    assert choose_device((USB_B, USB_A), None) is USB_B


def test_one_device_under_several_host_apis_is_the_default_ones():
    mme, wasapi = Device(1, "Mic (Yeti)", "MME", 2, 44_100, default=True), Device(9, "Mic (Yeti)", "WASAPI", 2, 48_000)
    assert choose_device((wasapi, mme), "yeti") is mme


@pytest.mark.parametrize(
    ("devices", "wanted", "words"),
    [
        ((), None, "shows no microphone"),
        (ALL, 5, "--device 5: is no microphone; there are 0 'HDA"),
        (ALL, -1, "--device -1: is no microphone"),
        (ALL, "webcam", "--device webcam: no microphone's name contains that; there are 0"),
        (ALL, "usb audio", "--device usb audio: fits 3 'Blue Snowball: USB Audio (hw:1,0)', 4 'Jabra"),
        (ALL, "  ", "the name is empty"),
        (tuple(Device(n, f"mic {n}", "ALSA", 1, 48_000) for n in range(30)), "x", "24 more (see --list-devices)"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_there_is(devices, wanted, words):
    with pytest.raises(InputError) as caught:
        choose_device(devices, wanted)
    assert words in str(caught.value)
    assert "--device" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_after_a_replug_it_is_found_by_name_under_another_index_and_card():
    back = Device(1, "Blue Snowball: USB Audio (hw:5,0)", "ALSA", 1, 48_000)
    stranger = Device(3, "Webcam (hw:1,0)", "ALSA", 1, 48_000)
    assert find_again((stranger, back), USB_A) is back
    assert find_again((stranger,), USB_A) is None
    assert find_again((), USB_A) is None
    elsewhere = Device(8, "Blue Snowball: USB Audio", "JACK", 1, 48_000)
    assert find_again((elsewhere, back), USB_A) is back
    assert find_again((elsewhere,), USB_A) is elsewhere
