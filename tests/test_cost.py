"""What computations cost, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.cost.clock import Ceiling, Stopwatch, Times, ceiling
from ganvas.cost.flops import (
    FLOPS_PER_MAC,
    FlopCounter,
    NetworkCost,
    SavedForBackward,
    bytes_of,
    flops,
    optimizer_bytes,
)

N, I, O, K, H, W = 2, 8, 12, 3, 10, 14  # noqa: E741


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_takes_k2_macs_for_each_pair_of_channels_and_pixel(groups: int, stride: int) -> None:
    conv = nn.Conv2d(I, O, K, stride=stride, padding=1, groups=groups)
    x = torch.randn(N, I, H, W, requires_grad=True)
    macs = N * K**2 * (I // groups) * O * (H // stride) * (W // stride)
    assert flops(lambda: conv(x)) == FLOPS_PER_MAC * macs
    # the gradients of input and weight are as much work each as the output
    assert flops(lambda: conv(x).sum().backward()) == FLOPS_PER_MAC * 3 * macs


def test_a_gradient_that_nobody_asked_for_is_not_counted() -> None:
    conv, images = nn.Conv2d(I, O, K, padding=1), torch.randn(N, I, H, W)  # no gradient of the images
    macs = N * K**2 * I * O * H * W
    assert flops(lambda: conv(images).sum().backward()) == FLOPS_PER_MAC * 2 * macs
    conv.requires_grad_(False)
    assert flops(lambda: conv(images.requires_grad_()).sum().backward()) == FLOPS_PER_MAC * 2 * macs


@pytest.mark.parametrize("groups", [1, I])
def test_a_transposed_convolution_lays_its_kernel_on_every_pixel_of_the_input(groups: int) -> None:
    conv = nn.ConvTranspose2d(I, O * groups, 4, stride=2, padding=1, groups=groups)
    x = torch.randn(N, I, H, W, requires_grad=True)
    macs = N * 4**2 * I * O * H * W
    assert flops(lambda: conv(x)) == FLOPS_PER_MAC * macs
    assert flops(lambda: conv(x).sum().backward()) == FLOPS_PER_MAC * 3 * macs


def test_a_gradient_penalty_is_counted_through_both_of_its_backward_passes() -> None:
    """y = W * x, g = dL/dx: the penalty on g needs y, g, and their gradients in W, x and what is between."""
    conv = nn.Conv2d(I, O, K, padding=1)
    x = torch.randn(N, I, H, W, requires_grad=True)
    macs = N * K**2 * I * O * H * W

    def penalty() -> None:
        loss = conv(x).square().sum()
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        slope.square().sum().backward()

    # y; g = W^T * 2y; dW and d(2y) of g; dx and dW of y: six products of the same size
    assert flops(penalty) == FLOPS_PER_MAC * 6 * macs


class Block(nn.Module):
    """A pre-norm transformer block of width D, its MLP four times as wide."""

    def __init__(self, dim: int, heads: int, written_out: bool) -> None:
        super().__init__()
        self.heads, self.written_out = heads, written_out
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, d)
        if self.written_out:
            y = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), 3) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("graph", [True, False])
def test_a_transformer_block_takes_12nd2_and_2n2d_macs(written_out: bool, graph: bool) -> None:
    L, D = 64, 48
    block, x = Block(D, 4, written_out), torch.randn(1, L, D)
    with torch.set_grad_enabled(graph), torch.inference_mode(not graph):
        counted = flops(lambda: block(x))
    assert counted == pytest.approx(FLOPS_PER_MAC * (12 * L * D**2 + 2 * L**2 * D), rel=5e-3)


def test_the_backward_pass_of_a_transformer_block_is_twice_the_forward_one() -> None:
    """With the attention's scores computed again, as fused kernels do: one more product of the five."""
    L, D = 64, 48
    x = torch.randn(1, L, D, requires_grad=True)
    linear, attention = 12 * L * D**2, 2 * L**2 * D
    counted = flops(lambda: Block(D, 4, written_out=True)(x).sum().backward())
    assert counted == pytest.approx(FLOPS_PER_MAC * 3 * (linear + attention), rel=5e-3)
    counted = flops(lambda: Block(D, 4, written_out=False)(x).sum().backward())
    assert counted == pytest.approx(FLOPS_PER_MAC * (3 * linear + 3.5 * attention), rel=5e-3)


def test_half_precision_and_channels_last_count_the_same() -> None:
    conv, x = nn.Conv2d(I, O, K, padding=1), torch.randn(N, I, H, W)
    plain = flops(lambda: conv(x).sum().backward())
    with torch.autocast("cpu", torch.bfloat16):
        assert flops(lambda: conv(x).sum().backward()) == plain
    x = x.contiguous(memory_format=torch.channels_last)
    assert flops(lambda: conv.to(memory_format=torch.channels_last)(x).sum().backward()) == plain


def test_the_counter_says_which_operators_it_counted() -> None:
    matrix, vector = torch.randn(5, 7), torch.randn(7)
    with FlopCounter() as counter:
        torch.mv(matrix, vector)
        matrix @ torch.randn(7, 3)
        torch.relu(matrix)
    assert counter.by_operator == {"mv": FLOPS_PER_MAC * 5 * 7, "mm": FLOPS_PER_MAC * 5 * 7 * 3}


def test_counting_changes_no_result() -> None:
    conv, x = nn.Conv2d(I, O, K), torch.randn(N, I, H, W)
    plain = conv(x)
    with FlopCounter(), SavedForBackward(conv.parameters()):
        counted = conv(x)
        counted.sum().backward()
    assert torch.equal(plain, counted)


# --------------------------------------------------------------------------------------------------- bytes


def test_what_is_shared_counts_once() -> None:
    x = torch.zeros(10, 10)
    assert bytes_of([x, x.T, x[3:], torch.zeros(5, dtype=torch.float64)]) == 400 + 40


def test_a_network_is_counted_with_its_buffers() -> None:
    net = nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2))
    cost = NetworkCost.of(net)
    assert cost.parameters == 6 * 2 + 2 + 2 + 2
    assert cost.parameter_bytes == 4 * cost.parameters
    assert cost.buffer_bytes == 4 * (2 + 2) + 8  # running mean and variance, and an int64 counter


def test_adam_keeps_two_numbers_a_weight() -> None:
    net = nn.Linear(6, 2, bias=False)
    optimizer = torch.optim.Adam(net.parameters())
    assert optimizer_bytes(optimizer) == 0
    net(torch.randn(3, 6)).sum().backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == 4 * 2 * 12 + 4  # and one step counter


def test_memory_that_autograd_holds_is_followed_until_it_is_let_go() -> None:
    conv, x = nn.Conv2d(I, O, K, padding=1), torch.randn(N, I, H, W)
    with SavedForBackward([*conv.parameters()]) as saved:
        h = conv(x)  # saves x
        assert saved.now == x.nbytes
        loss = torch.relu(h).square().sum()  # saves the output of relu, once
        held = x.nbytes + h.nbytes
        assert saved.now == saved.peak == held
        loss.backward()
        assert (saved.now, saved.peak) == (0, held)
        with torch.no_grad():
            conv(x)
    assert saved.peak == held


# --------------------------------------------------------------------------------------------------- times


def test_a_percentile_is_one_of_the_times() -> None:
    times = Times(tuple(float(i) for i in range(1, 101)), (1.0,) * 100)
    assert (times.clock_median, times.clock_p95, times.processor_median) == (50.5, 95.0, 1.0)
    assert Times((3.0,), (1.0,)).clock_p95 == 3.0
    assert Times((3.0, 1.0), (1.0, 1.0)).clock_p95 == 3.0


def test_processor_time_is_shared_by_the_threads() -> None:
    times = Times((9.0, 9.0), (4.0, 4.0))
    assert times.working(torch.device("cpu")) == 4.0 / torch.get_num_threads()
    assert times.working(torch.device("meta")) == 9.0  # beside the processor, the clock counts


def test_a_stopwatch_hands_back_what_was_computed() -> None:
    watch = Stopwatch(torch.device("cpu"))
    assert [watch.time(lambda i=i: i) for i in range(3)] == [0, 1, 2]
    assert len(watch.times.clock) == 3 and min(watch.times.clock) >= 0


def test_the_ceiling_is_that_of_both_kinds_of_arithmetic() -> None:
    found = ceiling(torch.device("cpu"))
    assert found.gflops == max(found.matmul_gflops, found.conv_gflops) > 0
    assert (found.dtype, found.threads) == ("float32", torch.get_num_threads())
    assert Ceiling("bfloat16", 1, 2.0, 3.0).gflops == 3.0
