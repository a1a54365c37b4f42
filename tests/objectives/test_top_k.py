"""Top-k training: the count is what the schedule says, and the gradient reaches the best samples alone."""

import pytest
import torch

from ganvas import parts
from ganvas.recipe.check import check_node
from ganvas.types import NO_CONDITION, Latent, Scores, Turn


def top_k(**keys: object) -> object:
    return parts.build("objective", check_node("objective", {"use": "top-k", **keys}))


def at(step: int) -> Turn:
    nothing = torch.zeros(1)
    scores = Scores(nothing, nothing[:, None])
    return Turn(
        {}, step, nothing, NO_CONDITION, Latent(nothing), NO_CONDITION, lambda d, y: scores, lambda z, y: nothing
    )


def test_the_share_falls_with_the_step_and_stops_at_the_floor() -> None:
    objective = top_k(floor=0.5, decay=0.9, every=10)
    counts = []
    for step in (0, 9, 10, 20, 70, 10_000):
        objective.observe(at(step))
        counts.append(objective.k(100))
    assert counts == [100, 100, 90, 81, 50, 50]


@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_k_is_below_the_whole_batch_once_annealing_began_and_never_zero(n: int) -> None:
    objective = top_k(floor=0.5, decay=0.5, every=1)
    objective.observe(at(5))
    assert objective.k(n) == -(-n // 2)


def test_the_gradient_reaches_the_best_samples_alone() -> None:
    objective = top_k(of="non-saturating", floor=0.5, decay=0.1, every=1)
    objective.observe(at(3))
    logits = torch.tensor([0.3, -1.0, 2.0, -3.0], requires_grad=True)
    loss = objective.generator(torch.empty(0), logits)
    loss.backward()
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(-torch.tensor([2.0, 0.3])).mean().item())
    assert (logits.grad != 0).tolist() == [True, False, True, False]


def test_the_critic_sees_the_whole_batch() -> None:
    objective = top_k(of="hinge", floor=0.5, decay=0.1, every=1)
    objective.observe(at(3))
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-0.5, -2.0])
    assert objective.critic(real, fake).item() == pytest.approx(0.25 + 0.25)
