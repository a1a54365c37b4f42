"""Official implementations and ours on the same weights and inputs: every golden case that there is an importer for.

Cases lie under the folders in $GANVAS_GOLDEN (separated as in $PATH; default: shared/golden beside the checkout), as
`<case>/<name>.safetensors` with a `.json` beside it. Run with -s to see the deviations.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ganvas.interop.registry import NoImporter, OfficialCase, import_network

HERE = Path(__file__).resolve()
DEFAULT = HERE.parents[2].parent / "shared" / "golden"
FOLDERS = [Path(each) for each in os.environ.get("GANVAS_GOLDEN", str(DEFAULT)).split(os.pathsep) if each]
CASES = [path for folder in FOLDERS for path in sorted(folder.glob("*/*.safetensors"))]
GOAL, LIMIT = 1e-4, 1e-3  # of the output's spread


@pytest.fixture(scope="module", autouse=True)
def warm_tanh() -> None:
    torch.tanh(torch.linspace(-3, 3, 4096))  # a process's first call is sometimes off by 4e-5


@pytest.mark.skipif(not CASES, reason=f"no golden cases under {os.pathsep.join(map(str, FOLDERS))}; set GANVAS_GOLDEN")
def test_golden_cases_are_there() -> None:
    assert all(path.with_suffix(".json").is_file() for path in CASES)


@pytest.mark.parametrize("path", CASES, ids=[f"{path.parent.name}/{path.stem}" for path in CASES])
def test_ours_computes_what_the_official_one_does(path: Path, record_property: Callable[[str, object], None]) -> None:
    case = OfficialCase.read(path)
    try:
        ours = import_network(case)
        outputs = ours.run(case.inputs, [name.removeprefix("tap.") for name in case.outputs if name.startswith("tap.")])
    except NoImporter as missing:
        pytest.skip(missing.problem)
    assert case.outputs.keys() <= outputs.keys()
    rounding = case.sidecar.get("float64_max_abs_diff")
    too_far = []
    for name, official in case.outputs.items():
        assert outputs[name].shape == official.shape, name
        if not official.is_floating_point():
            assert torch.equal(outputs[name], official), name
            continue
        spread = official.std().item() if official.numel() > 1 else official.abs().item()  # one number has none
        deviation = (outputs[name] - official).abs().max().item() / spread
        noise = rounding.get(name, 0.0) if isinstance(rounding, dict) else 0.0
        tolerance = min(LIMIT, max(GOAL, 20 * noise / spread))
        record_property(name, deviation)
        print(f"{path.parent.name}/{path.stem} {name}: {deviation:.1e} of the spread (allowed {tolerance:.0e})")  # noqa: T201
        if not deviation <= tolerance:
            too_far.append(f"{name}: {deviation:.2e} > {tolerance:.0e}")
    assert not too_far
