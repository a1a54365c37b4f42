"""What a training step of a recipe costs here: time, FLOPs, share of the machine's peak, memory, start-up.

    python benchmarks/step.py digits sngan-cifar10                        # a table
    python benchmarks/step.py sngan-cifar10 train.batch=16 --json out.json
    python benchmarks/step.py sngan-cifar10 --against train.precision=bf16
    python benchmarks/step.py stylegan2-cifar10 train.batch=16 --revision HEAD~1

Each side is a process of its own, on random data where the recipe's are not at hand. It runs every update once to warm
up and to count FLOPs, then `--repeats` times on the clock; the mean step counts a lazy update 1 / every and the
critic's by its steps. With `--against` or `--revision` two sides take turns, and the ratio is other / ours of processor
time, as median (smallest to largest) over the turns. Share of the peak is FLOP/s over the faster of a large matrix
product and a 3x3 convolution, measured in the same process, threads and precision; on CPUs both by processor time,
which other processes disturb less. FLOPs are 2 a multiply-accumulate, of matrix products, convolutions and attention.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measure import ROOT, Side, Worker, machine, settings, source_of, spread


def measure(sides: list[Side], repeats: int) -> list[dict[str, Any]]:
    """What is found for each side; they take turns."""
    workers = [Worker(side) for side in sides]
    for worker in workers:
        if worker.problem:
            raise SystemExit(f"{worker.side.name}: {worker.problem}")
    turns: list[list[dict[str, Any]]] = [[] for _ in workers]
    for _ in range(repeats):
        for worker, own in zip(workers, turns, strict=True):
            own.append(worker.step())
    found = [worker.end() for worker in workers]
    return [{**each, "side": side.name, "turns": own} for each, side, own in zip(found, sides, turns, strict=True)]


def tell(row: dict[str, Any]) -> None:
    processor, clock = ([1000 * turn[kind] for turn in row["turns"]] for kind in ("processor", "clock"))
    ceiling = row["ceiling"]
    print(
        f"{row['side']}: batch {row['batch']}, {row['precision']}, {row['threads']} threads\n"
        f"    step       {spread(processor, ',.0f')} ms of processor, {spread(clock, ',.0f')} ms by the clock,"
        f" {row['batch'] / row['step_processor_seconds']:.3g} images a second of processor\n"
        f"    arithmetic {row['step_flops'] / 1e9:,.0f} GFLOPs, {row['gflops']:.0f} GFLOP/s, {row['share']:.0%} of"
        f" {ceiling['gflops']:.0f} (matrix product {ceiling['matmul_gflops']:.0f}, convolution"
        f" {ceiling['conv_gflops']:.0f})\n"
        f"    memory     {row['peak_bytes'] / 2**20:,.0f} MiB at most, {row['process_bytes'] / 2**20:,.0f} before\n"
        f"    start-up   {row['startup_clock']:.1f} s by the clock, {row['startup_processor']:.1f} s of processor",
        flush=True,
    )
    for each in row["updates"]:
        seconds = [1000 * value for value in each["seconds"]["processor"]]
        print(
            f"      {each['name']:44} x {each['a_step']:<7g}{spread(seconds, ',.0f'):>28} ms"
            f"{each['flops'] / 1e9:>10,.0f} GFLOPs {row['shares'][each['name']]:>5.0%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="RECIPE|KEY=VALUE")
    parser.add_argument("--against", metavar="KEY=VALUE,…", default="", help="the other side's settings")
    parser.add_argument("--revision", metavar="REV", help="the other side's code, a git revision")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    recipes = [word for word in options.words if "=" not in word]
    overrides = tuple(word for word in options.words if "=" in word)
    if not recipes:
        parser.error("name a recipe")
    print(machine(options.threads), flush=True)
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        source = stack.enter_context(source_of(options.revision)) if options.revision else ROOT
        for recipe in recipes:
            same = {"recipe": recipe, "threads": options.threads, "device": options.device}
            sides = [Side(name=recipe, overrides=overrides, **same)]
            if options.against or options.revision:
                name = " ".join(filter(None, (recipe, options.against, options.revision and f"at {options.revision}")))
                others = (*overrides, *settings(options.against))
                sides.append(Side(name=name, overrides=others, source=source, **same))
            found = measure(sides, options.repeats)
            for row in found:
                tell(row)
            if len(found) == 2:
                ratios, memory = compared(*found)
                print(
                    f"    {found[1]['side']} / {found[0]['side']}: time {spread(ratios)}, memory {memory:.2f}",
                    flush=True,
                )
            rows += found
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def compared(ours: dict[str, Any], other: dict[str, Any]) -> tuple[list[float], float]:
    """(other / ours in processor time at each turn, other / ours in peak memory)"""
    pairs = zip(ours["turns"], other["turns"], strict=True)
    return [b["processor"] / a["processor"] for a, b in pairs], other["peak_bytes"] / ours["peak_bytes"]


if __name__ == "__main__":
    main()
