from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamer.commands.run import SETTINGS
from streamer.errors import ConfigError
from streamer.settings.config import Settings, resolve, validate
from streamer.settings.section import own_file

ROOT = Path(__file__).resolve().parents[2]


def refused(data, says):
    with pytest.raises(ConfigError) as caught:
        validate(data)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"windo": {}}, "windo: unknown key; known here: audio, model"),
        ({"windo": {}}, "output, sources; did you mean window?"),
        ({"window": {"hop": 1}}, "window.hop: unknown key; known here: hop_s"),
        ({"window": {"hop_s": 0.3}}, "window.hop_s: must be 0.1, 0.2, 0.5 or 1"),
        ({"window": {"hop_s": "often"}}, "window.hop_s"),
        ({"vad": {"hangover_ms": 300}}, "vad.hangover_ms: must be at least window.hop_s (500 ms)"),
        ({"vad": {"aggressiveness": 7}}, "vad.aggressiveness: "),
        ({"server": {"tls_cert": "x.pem"}}, "tls_key"),
        ({"server": {"tls": "yes"}}, "server.tls: input should be 'self-signed'; is 'yes'"),
        (
            {"server": {"tls": "self-signed", "tls_cert": "x.pem", "tls_key": "x.pem"}},
            "tls and tls_cert (--tls, --tls-cert): give only one of them",
        ),
        ({"server": {"token": "short"}}, "server.token: must be at least 8"),
        ({"own_sounds": {"from_pages": "some"}}, "own_sounds.from_pages: "),
        ({"own_sounds": {"from_pages": True, "enabled": False}}, "own_sounds: from_pages: what is taught would not be"),
        ({"server": {"deepgram": "maybe"}}, "server.deepgram: input should be a valid boolean"),
        ({"tags": {"spans_s": [5, 2]}}, "tags.spans_s: must be ascending"),
        ({"audio": {"buffer_s": float("nan")}}, "audio.buffer_s"),
        ({"speech": {"language": "e9"}}, "speech.language"),
        (
            {"alerts": {"rules": [{"id": "siren", "threshold": 3}]}},
            "alerts.rules[0].threshold: input should be less",
        ),
        ({"alerts": {"rules": [{"id": "new"}]}}, "alerts.rules[0]"),
        ({"guards": {"mean_logprob": -1.0}}, "guards.mean_logprob: unknown key; known here: silence, loops"),  # was one
    ],
)
def test_a_wrong_setting_is_refused_with_its_path(data, says):
    refused(data, says)


def test_a_secret_is_never_shown():
    with pytest.raises(ConfigError) as caught:
        validate({"server": {"token": "secret"}})
    assert "secret" not in str(caught.value)
    settings = validate({"server": {"token": "a long secret"}})
    assert "a long secret" not in settings.to_yaml() + repr(settings)


def test_files_then_overrides_then_options(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("window: {hop_s: 1.0, context_s: 12}\nvad: {hangover_ms: 1000}\n")
    second.write_text("window: {context_s: 14}\n")
    settings = resolve([first, second], ["window.segment_max_s=20"], {"audio.speed": 0})
    assert settings.window.hop_s == 1.0
    assert settings.window.context_s == 14
    assert settings.window.segment_max_s == 20
    assert settings.audio.speed == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("window: [", "not valid YAML at line"),
        (
            "alerts:\n  rules: []\nmodel: {name: nano}\nalerts:\n  rules: []\n",
            "at line 4: alerts stands here and at line 1",
        ),
        ("model: {name: nano, head: none, name: base}", "at line 1: name stands here and at line 1"),
        ("server: {token: 12345678}", "server.token: input should be a valid string; YAML reads it as one in quotes"),
        ("- a\n- b\n", "must be a mapping"),
        ("window: {hop_s: 9}", "a.yaml: window.hop_s: must be"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path, text, says):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve([path], [], {})
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("override", ["window", "=3", "window.hop_s", "window.hop_s.deeper=1", "a=[", "window=3"])
def test_a_broken_override_is_one_line(override):
    with pytest.raises(ConfigError) as caught:
        resolve([], [override], {})
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["window", "vad", "alerts", "rules", "hop_s", "x"]), inner)
        ),
    )
)
def test_anything_at_all_is_settings_or_one_line(data):
    said = ""
    try:
        validate(data if isinstance(data, dict) else {"window": data})
    except ConfigError as error:
        said = str(error)
    assert "\n" not in said


def test_the_schema_explains_every_setting_and_says_which_are_usual():
    """What an option, or a file in configs/, sets is usual; what nobody sets is for experts."""
    schema = Settings.model_json_schema()
    settings = {(name, key): about for name, one in schema["$defs"].items() for key, about in one["properties"].items()}
    assert [key for key, about in settings.items() if not (about.get("description") or "$ref" in about)] == []
    assert {about["group"] for about in settings.values()} == {"usual", "expert"}
    files = [yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text()) for name in ("default", "server", "notify")]
    given = [[section, key] for data in files for section, keys in data.items() for key in keys]
    for section, key in given + [path.split(".") for path in SETTINGS.values()]:
        name = schema["properties"][section]["$ref"].rpartition("/")[2]
        assert settings[name, key]["group"] == "usual", (section, key)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_files_in_configs_are_good(path):
    if not path.name.startswith("train_"):
        resolve([path], [], {})


@pytest.mark.parametrize("name", ["default.yaml", "alerts.yaml", "notify.yaml"])
def test_these_files_change_nothing_until_somebody_edits_them(name):
    assert resolve([ROOT / "configs" / name], [], {}) == Settings()


def test_the_rules_that_alerts_yaml_proposes_are_good(tmp_path):
    text = (ROOT / "configs" / "alerts.yaml").read_text().replace("  rules: []\n", "")
    own = tmp_path / "alerts.yaml"
    own.write_text(text.replace("  # rules:", "  rules:").replace("  #   - {", "    - {"))
    rules = {rule.id: rule for rule in resolve([own], [], {}).alerts.rules}
    assert (rules["dog"].enabled, rules["doorbell"].threshold, rules["my_name"].phrases) == (False, 0.3, ("Anna",))
    assert set(rules) == {rule.id for rule in Settings().alerts.rules} | {"my_name"}


def test_what_is_printed_can_be_read_again(tmp_path):
    path = tmp_path / "printed.yaml"
    path.write_text(Settings().to_yaml())
    assert resolve([path], [], {}).window == Settings().window


def test_ones_own_file_holds_where_no_other_is_given(tmp_path):
    own, given = own_file(), tmp_path / "given.yaml"
    assert own == tmp_path / "config" / "streamer" / "config.yaml"
    assert resolve([], [], {}) == Settings()
    own.parent.mkdir(parents=True)
    own.write_text("tags: {limit: 3}\n")
    given.write_text("speech: {language: en}\n")
    assert resolve([], ["speech.language=de"], {}).tags.limit == 3
    assert resolve([given], [], {}).tags.limit == Settings().tags.limit
