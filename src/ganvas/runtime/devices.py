"""Devices, seeds and the first call of a process: what training and sampling must agree on."""

from __future__ import annotations

import hashlib

import torch

from ganvas.errors import UsageError

ACCELERATOR = "cuda"  # torch's name for the kind of device that trains where there is one; also for AMD's


def derive_seed(*progress: int | str) -> int:
    """A 63-bit seed that is a function of these, the same on every machine."""
    digest = hashlib.blake2b(repr(progress).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def pick_device(wish: str | None = None) -> torch.device:
    """The device that is asked for, else the first accelerator, else the CPU.

    Raises
    ------
    UsageError : there is no such device, or none that computes.
    """
    if wish:
        try:
            torch.zeros(1, device=wish).cpu()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            have = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
            raise UsageError(
                f"{wish!r} is no device here: {str(error).splitlines()[0]}", where="--device",
                hint=f"there are {', '.join(have)}",
            ) from None  # fmt: skip
        return torch.device(wish)
    return torch.device(ACCELERATOR if torch.cuda.is_available() else "cpu")


def device_of(local_rank: int, wish: str | None) -> str | None:
    """The device of one of several processes on a machine: each has an accelerator of its own where there are any."""
    if not torch.cuda.is_available() or not (wish or ACCELERATOR).startswith(ACCELERATOR):
        return wish
    return f"{ACCELERATOR}:{local_rank % torch.cuda.device_count()}"


def settle_kernels() -> None:
    """Make the first results of a process equal to all later ones.

    The first vectorised tanh of a process was seen to be off by up to 4e-5 on CPUs; a resumed run would differ from an
    uninterrupted one by that. One throw-away call is enough.
    """
    torch.tanh(torch.linspace(-1, 1, 1 << 16))
