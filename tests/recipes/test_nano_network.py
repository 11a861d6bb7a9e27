import numpy as np
import pytest
import torch
import whisper
from whisper.model import ModelDimensions as Dimensions

from streamer.recipes.nano.batches import Padding
from streamer.recipes.nano.hearing import encode, load_head, write
from streamer.recipes.nano.mels import log_mel
from streamer.recipes.nano.network import Nano, TagHead, attention_loss, full_state, tag_loss, token_loss
from streamer.recipes.nano.vocabulary import IGNORED, N_VOCAB, used_tokens

WORDS = used_tokens()
DIMS = Dimensions(80, 1500, 32, 2, 2, N_VOCAB, 448, 32, 4, 2)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Nano(DIMS, WORDS, phones=5).eval()


@pytest.fixture(scope="module")
def shipped(model):
    found = whisper.model.Whisper(DIMS)
    found.load_state_dict({key: value.float() for key, value in full_state(model, WORDS).items()})
    return found.eval()


def test_the_shipped_state_is_a_whole_whisper_with_zero_rows_for_unused_tokens(model):
    rows = full_state(model, WORDS)["decoder.token_embedding.weight"]
    assert rows.shape == (N_VOCAB, 32)
    assert rows.dtype is torch.float16
    used = np.zeros(N_VOCAB, bool)
    used[WORDS.used] = True
    assert not rows[torch.from_numpy(~used)].any()
    assert rows[torch.from_numpy(used)].any(dim=1).all()


@torch.inference_mode()
def test_training_and_shipped_form_say_the_same(model, shipped):
    torch.manual_seed(1)
    mel = torch.randn(2, 80, 3000)
    features, taps = model.encode(mel)
    assert torch.allclose(features, shipped.encoder(mel), atol=2e-2)
    assert taps.shape == (2, 2, 75, 32)
    tokens = torch.tensor([[WORDS.sot, WORDS.no_timestamps, 3, 4], [WORDS.sot, WORDS.first_timestamp, 5, 6]])
    written = model.write(tokens, features)
    theirs = shipped.decoder(torch.from_numpy(WORDS.used)[tokens], features)
    assert torch.allclose(written.logits, theirs[..., WORDS.used], atol=2e-2)
    assert written.aligned.shape == (2, 2, 4, 1500)
    assert torch.allclose(written.aligned.sum(-1), torch.ones(2, 2, 4), atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [160, 800])
def test_a_late_window_has_the_positions_of_its_place(model, frames):
    mel = torch.randn(2, 80, frames, generator=torch.Generator().manual_seed(3))
    late, _ = model.encode(mel, torch.tensor([0, 700]))
    assert torch.allclose(late[0], model.encode(mel)[0][0], atol=1e-5)
    positions = model.whisper.encoder.positional_embedding
    kept = positions.clone()
    positions.copy_(kept.roll(-700, dims=0))
    moved, _ = model.encode(mel)
    positions.copy_(kept)
    assert torch.allclose(late[1], moved[1], atol=1e-5)
    assert not torch.allclose(late[1], late[0], atol=1e-2)


@torch.inference_mode()
def test_the_loss_is_the_cross_entropy_over_whispers_whole_vocabulary():
    torch.manual_seed(2)
    logits = torch.randn(1, 6, len(WORDS.used))
    targets = torch.tensor([[IGNORED, 3, WORDS.eot, WORDS.no_speech, 7, 9]])
    whole = torch.zeros(6, N_VOCAB)
    whole[:, torch.from_numpy(WORDS.used)] = logits[0]
    expected = torch.nn.functional.cross_entropy(whole[1:], torch.from_numpy(WORDS.used)[targets[0, 1:]])
    assert token_loss(logits, targets, WORDS).item() == pytest.approx(expected.item(), abs=1e-4)


def test_attention_on_the_word_costs_nothing_and_positions_without_a_word_do_not_count():
    weights = torch.zeros(1, 1, 3, 10)
    weights[0, 0, 0, 4] = 1
    weights[0, 0, 1, 9] = 1
    frames = torch.tensor([[[3, 6], [0, 0], [0, 0]]])
    assert attention_loss(weights, frames).item() == pytest.approx(0, abs=1e-3)
    assert attention_loss(weights, torch.tensor([[[3, 6], [3, 6], [0, 0]]])).item() > 3


def test_uncertain_classes_do_not_count_in_the_tag_loss():
    logits, labels, sure = torch.zeros(2, 527), torch.zeros(2, 527), torch.zeros(2, 527)
    sure[0, 3] = 1
    assert tag_loss(logits, labels, sure).item() == pytest.approx(np.log(2) / 2)


def test_mels_equal_whispers_own():
    random = np.random.default_rng(0)
    audio = (0.1 * random.normal(0, 1, (2, 48_000))).astype(np.float32)
    ours = log_mel(torch.from_numpy(audio))
    theirs = torch.stack([whisper.log_mel_spectrogram(torch.from_numpy(item)) for item in audio])
    assert torch.allclose(ours, theirs, atol=1e-5)
    padded = log_mel(torch.from_numpy(audio), padding=Padding.AUDIO)
    assert torch.allclose(padded[0], whisper.log_mel_spectrogram(whisper.pad_or_trim(audio[0])), atol=1e-5)
    zeros = log_mel(torch.from_numpy(audio), padding=Padding.MEL)
    assert zeros.shape == (2, 80, 3000)
    assert not zeros[:, :, 300:].any()


def test_hearing_gives_words_for_windows_of_any_length(model, shipped):
    audio = np.random.default_rng(0).normal(0, 0.01, 2 * 16_000 + 77).astype(np.float32)
    features, taps = encode(shipped, [audio, audio])
    assert features.shape == (2, 100, 32)
    assert taps.shape == (2, 2, 5, 32)
    first, second = write(shipped, features, limit=5)
    assert first == second
    assert 0 <= first.no_speech <= 1


def test_a_head_is_loaded_from_the_released_keys():
    torch.manual_seed(3)
    head = TagHead(32).eval()
    state = {f"at_model.{key}": value for key, value in head.state_dict().items()}
    assert {"at_model.time_tr.attn.query.weight", "at_model.layer_tr.mlp_ln.bias", "at_model.mlp_layer.1.bias"} <= set(
        state
    )
    taps = torch.randn(1, 2, 5, 32)
    assert torch.equal(load_head(state, 32)(taps), head(taps))
