"""What `pip install .` installs is all that a user needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "ganvas"
    wanted = {
        f"ganvas/{file.relative_to(package).as_posix()}"
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert wanted <= held
    assert {
        "ganvas/recipes/gan/digits.yaml",
        "ganvas/shelves/features/digit_net.safetensors",
        "ganvas/py.typed",
    } <= held
    assert any(name.endswith("licenses/LICENSE") for name in held)
