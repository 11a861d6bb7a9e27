"""Several sources in the settings: what is refused with its path, and what is in force for each."""

import pytest

from streamer.errors import ConfigError
from streamer.settings.config import Settings, resolve, validate


def sources(*entries, **more):
    return {"sources": list(entries), **more}


A, B = {"name": "a", "input": "a.wav"}, {"name": "b", "input": "b.wav"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (sources(A, {**B, "settings": {"window": {"hop_s": 0.3}}}), "sources[1].settings.window.hop_s: must be 0.1, 0"),
        (sources(A, {**B, "settings": {"window": {"hop_s": 1.0}}}), "sources[1].settings.vad.hangover_ms: must be at"),
        (
            sources({**A, "settings": {"window": {"hop": 1}}}),
            "sources[0].settings.window.hop: unknown key; known here:",
        ),
        (sources({**A, "settings": {"window": 3}}), "sources[0].settings.window: "),
        (sources({**A, "settings": {"server": {"port": 1}}}), "sources[0].settings.server: is not for one source"),
        (sources({**A, "settings": {"model": {"name": "x"}}}), "sources[0].settings.model: is not for one source"),
        (sources({**A, "settings": {"audio": {"input": "x"}}}), "sources[0].settings.audio.input: is not for one"),
        (sources({**A, "settings": {"alerts": {"rules": [{"id": "siren", "threshold": 3}]}}}), "rules[0].threshold: i"),
        (sources(A, {**B, "name": "A"}), "sources[1].name: must be another than that of sources[0]; is 'A'"),
        (sources({**A, "name": "../a"}), "sources[0].name: must be 1 to 40 letters"),
        (sources({"input": "a.wav"}), "sources[0].name: field required"),
        (sources({**A, "inptu": 1}), "sources[0].inptu: unknown key; known here: name, device, input, settings"),
        (sources({**A, "device": 1}), "sources[0].device: there is an input too"),
        (
            sources({**A, "input": "-"}, {**B, "input": "-"}),
            "sources[1].input: must be another than that of sources[0]",
        ),
        (sources({"name": "a", "device": 0}, {"name": "b", "device": "0"}), "sources[1].device: must be another"),
        (
            sources({"name": "a", "device": "Yeti"}, {"name": "b", "device": " yeti"}),
            "sources[1].device: must be anoth",
        ),
        (
            sources({"name": "a"}, {"name": "b"}),
            "sources[1].device: must be another than that of sources[0]; is the def",
        ),
        (sources(A, audio={"input": "x.wav"}), "audio.input (--input): there are sources too; give only one of them"),
        (sources(A, audio={"device": 1}), "audio.device (--device): there are sources too"),
        (sources(*({"name": f"s{n}", "input": "x"} for n in range(129))), "sources: must be at most 128; are 129"),
        ({"sources": 3}, "sources: "),
        ({"sources": [3]}, "sources[0]: "),
    ],
)
def test_a_wrong_entry_is_refused_with_its_path(data, says):
    with pytest.raises(ConfigError) as caught:
        validate(data)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_a_wrong_entry_is_named(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("sources:\n  - {name: a, input: a.wav, settings: {vad: {onset_ms: 1}}}\n")
    with pytest.raises(ConfigError, match=r"two\.yaml: sources\[0\]\.settings\.vad\.onset_ms: "):
        resolve([path], [], {})


def test_each_source_has_the_common_settings_but_for_what_it_changes():
    settings = validate(
        {
            "speech": {"language": "de", "prompt": "Herr Meier"},
            "audio": {"buffer_s": 20},
            "sources": [
                {"name": "hall", "device": 3, "settings": {"speech": {"language": "EN"}, "audio": {"stall_s": 9}}},
                {"name": "Küche 2", "input": "demo"},
            ],
        }
    )
    hall, kitchen = settings.plans()
    assert (hall.name, hall.path, hall.settings.audio.device) == ("hall", "sources[0]", 3)
    assert (hall.settings.speech.language, hall.settings.speech.prompt) == ("en", "Herr Meier")
    assert (hall.settings.audio.stall_s, hall.settings.audio.buffer_s) == (9, 20)
    assert (kitchen.name, kitchen.settings.audio.input, kitchen.settings.speech.language) == ("Küche 2", "demo", "de")
    assert kitchen.settings.alerts.rules == settings.alerts.rules


def test_a_sources_alerts_lie_over_the_common_ones():
    common = {"rules": [{"id": "siren", "threshold": 0.7}, {"id": "name", "phrases": ["hello"]}]}
    own = {"rules": [{"id": "name", "phrases": ["good bye"]}, {"id": "mine", "phrases": ["washer"]}]}
    only = {"defaults": False, "rules": [{"id": "siren", "confirm": 1}]}
    settings = validate(
        {
            "alerts": common,
            "sources": [{**A, "settings": {"alerts": own}}, {**B, "settings": {"alerts": only}}],
            "delivery": {"push": [{"name": "phone", "url": "json://localhost", "rules": ["mine"]}]},
        }
    )
    rules = [{rule.id: rule for rule in plan.settings.alerts.rules} for plan in settings.plans()]
    assert rules[0]["siren"].threshold == 0.7
    assert rules[0]["name"].phrases == ("good bye",)
    assert set(rules[0]) == {rule.id for rule in settings.alerts.rules} | {"mine"}
    assert set(rules[1]) == {"siren"}
    assert (rules[1]["siren"].confirm, rules[1]["siren"].threshold) == (1, 0.7)
    assert {rule.id for rule in settings.all_rules()} == set(rules[0])


def test_one_source_is_what_device_or_input_name():
    settings = validate({"audio": {"device": "Snowball"}})
    (plan,) = settings.plans()
    assert (plan.name, plan.path) == ("", "")
    assert plan.settings is settings
    assert resolve([], ["sources=[]"], {}) == Settings()


def test_what_is_printed_can_be_read_again(tmp_path):
    settings = validate(sources(A, {**B, "settings": {"window": {"hop_s": 0.2}}}))
    path = tmp_path / "printed.yaml"
    path.write_text(settings.to_yaml())
    again = resolve([path], [], {})
    assert again.sources == settings.sources
    assert again.plans()[1].settings.window.hop_s == 0.2
