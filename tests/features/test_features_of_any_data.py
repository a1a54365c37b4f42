"""Extractors for what is no image: log-mel bands of sound and the raw values of anything; and who may take what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.evaluation.judge import Judge
from ganvas.evaluation.protocol import load_protocol
from ganvas.nn.mel import hertz_to_mel, log_mel, mel_filters, mel_to_hertz
from ganvas.parts import image_spec
from ganvas.training.check import random_set
from ganvas.types import Extractor

RATE = 8000


def extractor(name: str, **keys: object) -> Extractor:
    return parts.build("extractor", {"use": name, **keys})


def tone(hertz: float, samples: int = 4000) -> torch.Tensor:
    return (2 * torch.pi * hertz * torch.arange(samples) / RATE).sin()


def test_the_mel_scale_is_htk_s() -> None:
    at = torch.tensor([0.0, 700.0, 1000.0, 4000.0], dtype=torch.float64)
    torch.testing.assert_close(
        hertz_to_mel(at), torch.tensor([0.0, 781.17, 999.99, 2146.06], dtype=torch.float64), rtol=0, atol=0.01
    )
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(at)), at)


def test_filters_are_triangles_that_hand_over_to_each_other() -> None:
    filters = mel_filters(RATE, 1024, 20)
    assert filters.shape == (20, 513)
    assert (filters.amax(1) > 0.8).all() and filters.max() <= 1
    inside = filters.sum(0)[filters[0].argmax() : filters[-1].argmax()]
    torch.testing.assert_close(inside, torch.ones_like(inside))  # between the first and the last peak
    assert (mel_filters(RATE, 64, 40).amax(1) > 0).all()  # no band is empty though there are fewer bins


def test_a_full_tone_comes_to_nought_in_its_own_band() -> None:
    levels = log_mel(tone(1000)[None], RATE, window=200, hop=80, bands=40)[0]  # bin 25 of 40 Hz each
    middle = levels[:, levels.shape[1] // 2]
    own = mel_filters(RATE, 200, 40)[:, 25]
    assert int(middle.argmax()) == int(own.argmax())
    assert abs(float(middle.max()) - float(own.max().log())) < 0.5
    assert log_mel(torch.zeros(1, 800), RATE, window=200, hop=80, bands=40).max() == pytest.approx(np.log(1e-5))


def test_log_mel_hears_pitch_and_knows_the_rate() -> None:
    net = extractor("log-mel").suited(parts.modality_of({"use": "audio", "rate": RATE}))
    assert "8000 Hz, frames of 200 samples, one every 80" in net.provenance["resizer"]
    assert net.suited(parts.modality_of({"use": "audio", "rate": RATE})) is net
    assert net.provenance["sha256"] != extractor("log-mel").provenance["sha256"]
    sounds = torch.stack([tone(200), tone(2000), 0.5 * tone(200)])[:, None]
    features, logits = net(sounds)
    assert features.shape == (3, 80) and logits is None
    assert features[0, :40].argmax() < features[1, :40].argmax()
    loud, soft = features[0, :40].max(), features[2, :40].max()
    assert float(loud - soft) == pytest.approx(np.log(2), abs=1e-3)
    torch.testing.assert_close(net(sounds[1:2])[0][0], features[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(sounds.expand(3, 2, 4000))[0], features)  # two equal channels
    for wrong in (torch.zeros(3, 1, 8, 8), torch.zeros(3, 1, 8, dtype=torch.int16)):
        with pytest.raises(UsageError):
            net(wrong)


def test_raw_features_keep_distances() -> None:
    net = extractor("raw")
    data = torch.randn(40, 2, 1000, generator=torch.Generator().manual_seed(0))
    features, _ = net(data)
    assert features.shape == (40, 64) and features.dtype == torch.float32
    near, far = torch.pdist(data.flatten(1)) / 2000**0.5, torch.pdist(features) / 64**0.5
    assert (far / near - 1).abs().mean() < 0.15
    assert torch.equal(extractor("raw")(data)[0], features)
    torch.testing.assert_close(net(data[3:4])[0][0], features[3], rtol=1e-4, atol=1e-5)
    few = torch.randn(5, 7)
    assert torch.equal(net(few)[0], few)


def test_raw_features_of_tokens_go_by_their_vocabulary() -> None:
    text = parts.modality_of({"use": "text", "vocabulary": ["a", "b", "c"]})
    net = extractor("raw").suited(text)
    assert net(torch.tensor([[0, 1, 2]]))[0].tolist() == [[-1, 0, 1]]
    assert net.provenance != extractor("raw").provenance


def test_an_extractor_for_other_data_is_refused_with_those_that_fit() -> None:
    sounds = parts.build("dataset", {"use": "tones", "count": 8, "samples": 256})
    with pytest.raises(BadValue, match="'random-net' takes image data, and these are audio") as caught:
        Judge(load_protocol("folder-default"), sounds)
    assert {"log-mel", "raw"} <= set(caught.value.hint.removeprefix("extractors for them: ").split(", "))
    assert "random-net" not in caught.value.hint and "folder-default" in caught.value.where
    with pytest.raises(BadValue, match="'log-mel' takes audio data, and these are image"):
        Judge(load_protocol("audio-default"), random_set(image_spec((1, 8, 8)), 8))
    judge = Judge(load_protocol("audio-default"), sounds)
    assert all("8000 Hz" in net.provenance["resizer"] for net in judge.extractors.values())


def test_a_metric_for_other_data_is_refused() -> None:
    sounds = parts.build("dataset", {"use": "tones", "count": 8, "samples": 256})
    protocol = load_protocol("audio-default")
    protocol["metrics"] = {"ssim": {"use": "ssim", "extractor": None}}
    with pytest.raises(BadValue, match="metric 'ssim' looks at image data, and these are audio"):
        Judge(protocol, sounds)


def test_data_of_any_kind_are_scored_by_their_values() -> None:
    points = parts.build("dataset", {"use": "gaussians", "count": 200})
    protocol = load_protocol("raw") | {"halves": 0}
    same = {row["metric"]: row["value"] for row in Judge(protocol, points).score_images(points)}
    assert same["frechet_distance"] == pytest.approx(0, abs=1e-6) and same["precision"] == 1
    others = parts.build("dataset", {"use": "gaussians", "count": 200, "modes": 1})
    less = {row["metric"]: row["value"] for row in Judge(protocol, points).score_images(others)}
    assert less["frechet_distance"] > 0.1 and less["recall"] < 0.5
