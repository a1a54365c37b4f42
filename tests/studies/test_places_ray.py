"""The faults of `test_places.py` on a Ray cluster of this machine, with workers that are processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ganvas.errors import UsageError
from ganvas.experiments import places
from ganvas.experiments.places import Call, Local, Place, Work, carry_out_all, place_named
from ganvas.experiments.places.work import last_saved
from ganvas.files.files import is_claimed
from ganvas.recipe.recipe import Recipe

ray = pytest.importorskip("ray", reason="needs the extra ray")
InMidRun = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def cluster(own_cache: Path) -> Iterator[None]:
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        pytest.skip(f"Ray cannot start a cluster on this machine: {error}")
    yield
    ray.shutdown()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with contextlib.closing(place_named("ray", [], Call(tmp_path, None, 1, 2))) as one:
        yield one
    assert ray.is_initialized()  # who did not connect does not disconnect


def test_a_killed_worker_goes_on_from_its_checkpoint_to_the_same_bits(
    place: Place, recipe: Recipe, undisturbed: dict[str, Any], killing: ModuleType, in_mid_run: InMidRun, tmp_path: Path
) -> None:
    planned = [Work.here(recipe, tmp_path / name, name, threads=1) for name in ("killed", "beside")]
    in_mid_run(planned[0].folder, lambda pid: os.kill(pid, signal.SIGKILL))
    said: list[str] = []
    assert carry_out_all(planned, place, tell=lambda done, total, text: said.append(text)) == {}
    (retry,) = [text for text in said if "retry" in text]
    assert retry.startswith("killed: ") and "retry 1 of 2, from step " in retry
    assert 0 < int(retry.rsplit(" ", 1)[1]) < 16
    for work in planned:
        assert killing.differences(undisturbed, killing.contents(work.folder)) == []


@pytest.mark.slow  # the signal has to come before a short training ends, which a busy machine does not promise
def test_ctrl_c_saves_what_runs_and_drops_what_waits(
    place: Place, recipe: Recipe, undisturbed: dict[str, Any], killing: ModuleType, in_mid_run: InMidRun, tmp_path: Path
) -> None:
    planned = [Work.here(recipe, tmp_path / name, name, threads=1) for name in ("one", "two", "three")]
    in_mid_run(planned[0].folder, lambda pid: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(places.Interrupted):
        carry_out_all(planned, place)
    assert 0 < last_saved(planned[0].folder) < 16 and not planned[2].folder.exists()
    assert not any(is_claimed(work.folder) for work in planned)
    with contextlib.closing(Local()) as again:
        carry_out_all(planned[:1], again)
    assert killing.differences(undisturbed, killing.contents(planned[0].folder)) == []


def test_divergence_is_a_result_and_no_loss(place: Place, recipe: Recipe, tmp_path: Path) -> None:
    work = Work.here(recipe.override("optim.lr=1e30", "optim.clip_norm=~"), tmp_path / "poison", "poison", threads=1)
    said: list[str] = []
    failed = carry_out_all([work], place, tell=lambda done, total, text: said.append(text))
    assert "not finite" in failed[work.folder] and len(said) == 2 and said[1].startswith("poison: ")


def test_an_address_where_nobody_listens_is_told_at_once(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        nowhere = place_named("ray", [f"address={address}"], Call(tmp_path, None, None, 2))
        with pytest.raises(UsageError, match=r"no Ray cluster to be reached: .*refused") as told:
            carry_out_all([Work.here(recipe, tmp_path / "run", "run", threads=1)], nowhere)
        assert told.value.where == f"--with address={address}"


def test_more_than_the_machine_has_is_told_instead_of_waited_for(recipe: Recipe, tmp_path: Path) -> None:
    greedy = place_named("ray", ["cpus=99"], Call(tmp_path, None, None, 2))
    with pytest.raises(UsageError, match="99 CPUs, and this machine has 2"):
        carry_out_all([Work.here(recipe, tmp_path / "run", "run", threads=greedy.threads)], greedy)
    assert greedy.threads == 99 and not (tmp_path / "run").exists()
