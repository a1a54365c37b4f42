"""The untrained extractor: the same weights everywhere, any image, any batch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import UsageError
from ganvas.shelves.features.random_net import RandomNet, draw_weights

SHA256 = "00e6e3a42e6367fa068823333bce7fc47519731b92f80f88277646b079e32a78"


def images(n: int, channels: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_weights_are_the_same_on_every_machine() -> None:
    net = parts.build("extractor", {"use": "random-net"})
    assert net.provenance["sha256"] == SHA256
    assert hashlib.sha256(b"".join(w.tobytes() for w in draw_weights(0))).hexdigest() == SHA256
    assert (net.name, net.classes) == ("random-net", 0)
    assert all(not np.array_equal(a, b) for a, b in zip(draw_weights(0), draw_weights(1), strict=True))


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 16, 16), (3, 32, 32), (4, 40, 20), (5, 33, 33), (3, 1, 1)])
def test_takes_images_of_any_size_and_channels(shape: tuple[int, int, int]) -> None:
    features, logits = RandomNet()(images(3, *shape))
    assert features.shape == (3, 256)
    assert features.dtype == torch.float32
    assert logits is None
    assert features.isfinite().all()
    assert (features.std(0) > 0).any()


def test_the_batch_does_not_matter() -> None:
    net, x = RandomNet(), images(530, height=16, width=16)  # more than one internal batch
    together, _ = net(x)
    alone = torch.cat([net(x[i : i + 1])[0] for i in (0, 1, 511, 512, 529)])
    torch.testing.assert_close(together[[0, 1, 511, 512, 529]], alone, rtol=1e-4, atol=1e-5)


def test_alpha_is_composited_on_white_and_grey_is_copied() -> None:
    net, x = RandomNet(), images(4)
    opaque = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    torch.testing.assert_close(net(opaque)[0], net(x)[0])
    clear = torch.cat([x, -torch.ones_like(x[:, :1])], dim=1)
    torch.testing.assert_close(net(clear)[0], net(torch.ones_like(x))[0])
    grey = x[:, :1]
    torch.testing.assert_close(net(grey)[0], net(grey.expand(-1, 3, -1, -1))[0])
    torch.testing.assert_close(net(torch.cat([grey, torch.ones_like(grey)], dim=1))[0], net(grey)[0])


def test_tells_pictures_apart() -> None:
    net, x = RandomNet(), images(64)
    smooth = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    apart = (net(x)[0].mean(0) - net(smooth)[0].mean(0)).norm()
    assert apart > 10 * (net(x[:32])[0].mean(0) - net(x[32:])[0].mean(0)).norm()


def test_keeps_no_graph_and_refuses_what_is_no_stack_of_images() -> None:
    net = RandomNet()
    assert not net(images(2).requires_grad_())[0].requires_grad
    for bad in (torch.zeros(3, 8, 8), torch.zeros(0, 3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(UsageError, match=r"images \(N, C, H, W\) of floats"):
            net(bad)
