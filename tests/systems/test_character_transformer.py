"""The character transformer: causal, the same with and without kept keys, and it learns a language of known truth."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import ganvas
from ganvas import parts
from ganvas.errors import BadValue, MissingCapability
from ganvas.files.files import read_rows
from ganvas.nn.next_token import surprise
from ganvas.parts import data_spec, image_spec
from ganvas.recipe.check import check_node
from ganvas.toys.grammar import number_of
from ganvas.types import NO_CONDITION, Condition, DataSpec, Facts, TokenModel, label_of

LETTERS = data_spec({"use": "text", "vocabulary": list("abcde ")}, (9,), label_of(3))


def built(spec: DataSpec = LETTERS, **keys: object) -> TokenModel:
    torch.manual_seed(0)
    node = {"use": "character-transformer", "width": 16, "depth": 3, "heads": 2, **keys}
    net = parts.build("network", check_node("network", node), spec).eval()
    for parameter in net.parameters():  # far from its quiet beginning, so that a mistake would be seen
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def random_tokens(n: int, length: int, most: int = 7) -> torch.Tensor:
    return torch.randint(most, (n, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3], [9]])
def test_kept_keys_and_values_give_the_logits_of_the_full_pass(pieces: list[int]) -> None:
    net, tokens, label = built(), random_tokens(5, 9), torch.tensor([0, 1, 2, 3, 0])
    with torch.no_grad():
        whole, past, seen = net(tokens, label), None, 0
        for piece in pieces:
            seen += piece
            logits, past = net.following(tokens[:, :seen], past, label=label)
            torch.testing.assert_close(logits, whole[:, seen - 1], rtol=0, atol=1e-5)
            slow, nothing = TokenModel.following(net, tokens[:, :seen], None, label=label)
            torch.testing.assert_close(logits, slow, rtol=0, atol=1e-5)
            assert nothing is None
    assert whole.std() > 0.1


def test_no_token_sees_a_later_one() -> None:
    net, tokens = built(), random_tokens(2, 9)
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 7
    with torch.no_grad():
        before, after = net(tokens), net(later)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(-1).any()


def test_sizes_are_those_of_the_paper() -> None:
    net = built(width=16, depth=3)
    block = 12 * 16**2 + 13 * 16  # 4 w² + 4 w of attention, 8 w² + 5 w of the perceptron, 4 w of two norms
    embeddings = (7 + 9 + 4) * 16  # six letters and the start, nine places, three labels and none
    assert sum(parameter.numel() for parameter in net.parameters()) == 3 * block + embeddings + 2 * 16
    assert (net.vocabulary, net.outputs, net.length) == (7, 6, 9)


def test_a_hidden_label_is_no_label() -> None:
    net, tokens = built(), random_tokens(3, 9)
    with torch.no_grad():
        assert torch.equal(net(tokens), net(tokens, torch.tensor([3, 3, 3])))
        assert not torch.allclose(net(tokens), net(tokens, torch.tensor([0, 1, 2])))


def test_data_that_are_no_tokens_need_a_tokenizer() -> None:
    with pytest.raises(BadValue, match="reads tokens") as refused:
        built(image_spec((1, 8, 8)))
    assert refused.value.key == "vocabulary"
    net = built(image_spec((1, 8, 8)), vocabulary=10, length=16)
    assert net(random_tokens(2, 16, 11)).shape == (2, 16, 10)
    with pytest.raises(BadValue, match="heads"):
        built(width=10, heads=4)


# --------------------------------------------------------------------------------------------------- the task


def task_of(net: TokenModel, spec: DataSpec = LETTERS, **keys: object) -> object:
    return parts.build("task", check_node("task", {"use": "next-token", **keys}), {"model": net}, Facts(spec))


def test_the_loss_of_a_model_that_knows_nothing_is_the_logarithm_of_its_vocabulary() -> None:
    net = built()
    torch.nn.init.zeros_(net.token.weight)
    task = task_of(net)
    batch = LETTERS.stand_in(4, torch.Generator().manual_seed(0))
    assert task.readings() == {}
    losses = task.updates()[0].losses(batch, 0)
    assert losses["cross_entropy"].item() == pytest.approx(math.log(6), abs=1e-6)
    assert task.readings()["bits_per_token"] == pytest.approx(math.log2(6), abs=1e-6)


def test_surprise_is_that_of_a_probability_over_all_sequences() -> None:
    spec = data_spec({"use": "text", "vocabulary": ["a", "b", "c"]}, (3,))
    net = built(spec)
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)  # all 27
    with torch.no_grad():
        assert surprise(net, every, NO_CONDITION).sum(1).neg().exp().sum() == pytest.approx(1, abs=1e-5)


def test_labels_are_hidden_as_often_as_asked_for() -> None:
    task = task_of(built(), condition_dropout=0.25)
    torch.manual_seed(0)
    hidden = task.hidden(Condition(label=torch.zeros(4000, dtype=torch.int64), text=torch.ones(4000)))
    assert set(hidden.label.tolist()) == {0, 3}
    assert (hidden.label == 3).float().mean() == pytest.approx(0.25, abs=0.03)  # 4 standard errors
    assert torch.equal(hidden["text"], torch.ones(4000))


def test_what_does_not_agree_is_refused() -> None:
    with pytest.raises(BadValue, match="there are 6"):
        task_of(built(vocabulary=5))
    with pytest.raises(BadValue, match="a datum has 9"):
        task_of(built(length=8))
    with pytest.raises(BadValue, match="no tokens"):
        task_of(built(), image_spec((1, 3, 3)))
    with pytest.raises(BadValue, match="no labels"):
        task_of(built(), data_spec(LETTERS.modality.node(), (9,)), condition_dropout=0.1)


# --------------------------------------------------------------------------------------------------- the system


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe, as it is shipped."""
    folder = tmp_path_factory.mktemp("verse") / "run"
    ganvas.train("tiny/verse-characters", "train.checkpoint_every=20", out=folder, device="cpu")
    return folder


def test_samples_are_functions_of_the_seed_and_their_number(run: Path) -> None:
    model = ganvas.load(run)
    texts = model.sample(70, seed=3)
    assert texts.dtype == torch.int64
    assert texts.shape == (70, 42)
    assert torch.equal(model.sample(5, seed=3, label=None), texts[:5])
    assert not torch.equal(model.sample(5, seed=4), texts[:5])
    assert "".join(model.spec.modality.decode(texts[0])).strip()


def test_it_is_scored_in_bits_and_by_its_trigrams(run: Path) -> None:
    scores = {row["metric"]: row["value"] for row in read_rows(run / "scores.jsonl")}
    assert {"bits_per_token", "ngram_distance", "characters", "frechet_distance"} <= set(scores)
    assert 0 < scores["bits_per_token"] < math.log2(24)  # it has begun to learn
    assert 0 < scores["characters"] < scores["ngram_distance"] <= 1


def test_other_models_have_no_tokens_to_draw(trained_run: Path) -> None:
    with pytest.raises(MissingCapability, match="token model"):
        ganvas.load(trained_run).sample(1, sampler="autoregressive")


@pytest.mark.slow
def test_it_learns_the_grammar_and_says_what_it_is_asked_for(tmp_path: Path) -> None:
    """Two minutes of one core: nearly all sentences are right, of the number that was asked for, and most are new."""
    model = ganvas.train(
        "tiny/verse-characters", "data.count=20000", "networks.model.width=64", "train.steps=1500", "train.batch=32",
        "eval=~", out=tmp_path / "run", device="cpu",
    )  # fmt: skip
    wanted = [i % 2 for i in range(200)]
    texts = [model.spec.modality.decode(text) for text in model.sample(200, seed=1, label=wanted)]
    numbers = [number_of(text) for text in texts]
    assert sum(number is not None for number in numbers) >= 180
    assert sum(number == label for number, label in zip(numbers, wanted, strict=True)) >= 180
    training = parts.build("dataset", model.recipe["data"])
    known = {model.spec.modality.decode(text) for text in torch.from_numpy(training.tokens)}
    assert sum(text not in known for text in texts) >= 100
