"""What the networks of the shipped recipes cost here: forward, critic update and generator update, by image size.

    python benchmarks/networks.py                          # every published architecture at 32 to 256 pixels; hours
    python benchmarks/networks.py --quick                  # 32 pixels, two images, one turn
    python benchmarks/networks.py --only sngan-cifar10 stylegan2-cifar10 --sizes 32 64
    python benchmarks/networks.py --device cuda            # adds bf16 and compiled
    python benchmarks/networks.py --forms                  # both forms of the modulated convolution instead

One recipe stands for each pair of networks. Each size and setting is a process of its own with
random images; networks that cannot have a size are left out with the reason. Forward is the generator in eval mode
without gradients, median and 95th percentile of ten calls. Share of the peak is as in `step.py`.

The settings on CUDA (channels-last, bf16, torch.compile) are written but have not been run: no GPU was at hand.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from measure import Side, Worker, machine, spread

SIZES = (32, 64, 128, 256)
SETTINGS = {
    "cpu": {
        "fp32": ("train.channels_last=true",),
        "bf16": ("train.channels_last=true", "train.precision=bf16"),
    },
    "cuda": {
        "fp32": ("train.channels_last=true",),
        "bf16": ("train.channels_last=true", "train.precision=bf16"),
        "bf16 compiled": ("train.channels_last=true", "train.precision=bf16", "train.compile=true"),
    },
}  # fmt: skip


def architectures() -> list[str]:
    """One recipe for each pair of networks: the shortest name that begins with the generator's, else the shortest."""
    from ganvas.errors import GanvasError
    from ganvas.recipe.recipe import Recipe, shipped

    found: dict[tuple[str, str], list[str]] = {}
    for name in shipped():
        if name.startswith("tiny/"):
            continue
        try:
            networks = Recipe.load(name, []).resolve()["networks"]
        except GanvasError:  # one that starts from a trained model
            continue
        if {"generator", "discriminator"} <= networks.keys():
            pair = networks["generator"]["use"], networks["discriminator"]["use"]
            found.setdefault(pair, []).append(name)
    return [
        min(names, key=lambda name: (not name.startswith(pair[0].removesuffix("-generator")), len(name)))
        for pair, names in found.items()
    ]


def measure(side: Side, repeats: int) -> dict[str, Any]:
    worker = Worker(side)
    if worker.problem:
        return {"recipe": side.recipe, "size": side.size, "problem": worker.problem}
    for _ in range(repeats):
        worker.step()
    return {**worker.end(), "size": side.size}


FORMS = ((512, 4), (512, 16), (256, 16), (128, 32), (64, 64), (64, 128))  # channels, pixels


def compare_forms(device_name: str, batch: int, repeats: int) -> None:
    """Fused over scaled modulated convolution, taking turns: what `ganvas.nn.modulated.FUSED_BELOW` is read from."""
    import torch

    from ganvas.cost.clock import Stopwatch
    from ganvas.nn.modulated import modulated_conv2d

    device = torch.device(device_name)

    def run(x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, form: str, order: int) -> None:
        with torch.set_grad_enabled(order > 0):
            out = modulated_conv2d(x, weight, style, form=form)
            if order == 1:
                out.sum().backward()
            elif order == 2:
                (slope,) = torch.autograd.grad(out.square().sum(), style, create_graph=True)
                slope.square().sum().backward()

    for channels, side in FORMS:
        torch.manual_seed(0)
        x = torch.randn(batch, channels, side, side, device=device, requires_grad=True)
        weight = torch.randn(channels, channels, 3, 3, device=device, requires_grad=True)
        style = torch.randn(batch, channels, device=device, requires_grad=True)
        ratios = []
        for order in range(3):
            watches = {form: Stopwatch(device) for form in ("fused", "scaled")}
            for turn in range(repeats + 1):
                for form, watch in watches.items():
                    watch.time(partial(run, x, weight, style, form, order))
                if not turn:
                    watches = {form: Stopwatch(device) for form in watches}  # the first turn warmed up
            which = 1 if device.type == "cpu" else 0
            pairs = zip(watches["fused"].readings, watches["scaled"].readings, strict=True)
            ratios.append(spread([a[which] / b[which] for a, b in pairs]))
        print(
            f"{channels:4} channels, {side:3} pixels, batch {batch}: fused / scaled forward {ratios[0]},"
            f" with gradient {ratios[1]}, with its gradient {ratios[2]}",
            flush=True,
        )


def tell(row: dict[str, Any], setting: str) -> None:
    head = f"{row['recipe']:28}{row['size']:>4} px  {setting:14}"
    if "problem" in row:
        print(f"{head}left out: {row['problem']}", flush=True)
        return
    print(f"{head}peak memory {row['peak_bytes'] / 2**20:,.0f} MiB, machine {row['ceiling']['gflops']:.0f} GFLOP/s")
    if row["forward"]:
        own = row["forward"]
        gflops = own["flops"] / (own["processor_median"] if row["device"] == "cpu" else own["clock_median"]) / 1e9
        print(
            f"    {'forward':44}{1000 * own['processor_median']:>10,.0f} ms{own['flops'] / 1e9:>10,.1f} GFLOPs"
            f" {gflops / row['ceiling']['gflops'] / row['threads']:>5.0%}   clock {1000 * own['clock_median']:,.0f},"
            f" p95 {1000 * own['clock_p95']:,.0f} ms"
        )
    for each in row["updates"]:
        seconds = each["seconds"]
        print(
            f"    {each['name']:44}{1000 * seconds['processor_median']:>10,.0f} ms{each['flops'] / 1e9:>10,.1f} GFLOPs"
            f" {row['shares'][each['name']]:>5.0%}   clock {1000 * seconds['clock_median']:,.0f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="32 pixels, two images, one turn")
    parser.add_argument("--forms", action="store_true", help="compare the forms of the modulated convolution")
    parser.add_argument("--only", nargs="+", metavar="RECIPE")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="of those for the device")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.batch, options.repeats = (32,), 2, 1
    known = SETTINGS[options.device.partition(":")[0]]
    print(machine(options.threads), flush=True)
    if options.forms:
        import torch

        torch.set_num_threads(options.threads)
        return compare_forms(options.device, options.batch, options.repeats)
    rows = []
    for recipe in options.only or architectures():
        for size in options.sizes:
            for setting in options.settings or known:
                overrides = (f"train.batch={options.batch}", "train.accumulate=1", *known[setting])
                side = Side(recipe, recipe, overrides, size=size, device=options.device, threads=options.threads)
                row = {**measure(side, options.repeats), "setting": setting}
                tell(row, setting)
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
