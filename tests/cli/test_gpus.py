"""Which GPUs a rank has, on made-up machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcfut.edges.host.gpus import Sight, gpus_of, own_sight
from hpcfut.edges.host.machine import Place


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("0", ["0"]),
        ("2, 3", ["2", "3"]),
        ("GPU-1a2b,MIG-3c4d", ["GPU-1a2b", "MIG-3c4d"]),
        # None, in the ways in which people say that.
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        # CUDA stops at the first that makes no sense.
        ("1,-1,2", ["1"]),
    ],
)
def test_what_the_user_shows_counts(tmp_path: Path, named: str, gpus: list[str]) -> None:
    assert own_sight({"CUDA_VISIBLE_DEVICES": named}, host_with(tmp_path, 4)) == Sight(gpus)


def host_with(root: Path, n_files: int, n_known: int = 0) -> Path:
    for number in range(n_known):
        (root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0").mkdir(parents=True)
    (root / "dev").mkdir()
    for name in ["null", "nvidiactl", "nvidia-uvm", "nvidia-caps", *(f"nvidia{number}" for number in range(n_files))]:
        (root / "dev" / name).touch()
    return root


@pytest.mark.parametrize(("n_files", "n_known", "n_gpus"), [(0, 0, 0), (2, 0, 2), (11, 11, 11), (1, 8, 1), (0, 8, 8)])
def test_otherwise_those_of_the_host_count(tmp_path: Path, n_files: int, n_known: int, n_gpus: int) -> None:
    sight = own_sight({}, host_with(tmp_path, n_files, n_known))
    assert sight == Sight([str(number) for number in range(n_gpus)])


def deal(*sights: list[str], hosts: str = "") -> list[list[str]]:
    places = [Place(host, host, [0], host) for host in hosts or "a" * len(sights)]
    everywhere = [Sight(gpus) for gpus in sights]
    return [gpus_of(everywhere, places, rank) for rank in range(len(sights))]


def test_gpus_are_dealt_out_whole() -> None:
    four = ["0", "1", "2", "3"]
    assert deal(four) == [four]
    assert deal(four, four) == [["0", "2"], ["1", "3"]]
    assert deal(four, four, four) == [["0", "3"], ["1"], ["2"]]
    assert deal(["0"], ["0"], ["0"]) == [["0"], [], []]
    # Bound, wholly or in part.
    assert deal(["0"], ["1"]) == [["0"], ["1"]]
    assert deal(["0", "1"], ["1"], ["1", "2"]) == [["0"], ["1"], ["2"]]
    assert deal([], []) == [[], []]


def test_gpus_of_other_hosts_do_not_count() -> None:
    assert deal(["0"], ["0"], ["0"], hosts="aba") == [["0"], ["0"], []]


def test_slurm_gives_every_rank_a_gpu_of_the_same_name() -> None:
    sight = own_sight({"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_PER_TASK": "1"})
    places = [Place("a", "a", [0], "a")] * 2
    assert [gpus_of([sight, sight], places, rank) for rank in range(2)] == [["0"], ["0"]]
