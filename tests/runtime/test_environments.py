"""Environment variables of tasks that run at the same time."""

from __future__ import annotations

import os
from itertools import permutations

import pytest

from hpcfut.runtime.environments import Environments

NAME, OTHER = "HPCFUT_TEST_ONE", "HPCFUT_TEST_TWO"


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> Environments:
    monkeypatch.setenv(NAME, "before")
    monkeypatch.delenv(OTHER, raising=False)
    environments = Environments(lambda: 0)
    # Equal variables of different tasks are not mixed up either.
    environments.of_task.update({1: {NAME: "1"}, 2: {NAME: "2", OTHER: "2"}, 3: {NAME: "1"}})
    return environments


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_in_whatever_order_tasks_end_all_is_as_before(environments: Environments, order: tuple[int, ...]) -> None:
    for task_id in (1, 2, 3):
        environments.put_on(task_id)
        assert os.environ[NAME] == environments.of_task[task_id][NAME], "Those that were put on last win."
    left = [1, 2, 3]
    for task_id in order:
        environments.take_off(task_id)
        left.remove(task_id)
        values = [environments.of_task[other][NAME] for other in left]
        assert os.environ[NAME] == (values[-1] if values else "before")
        assert (OTHER in os.environ) == (2 in left)


def test_a_task_without_variables_changes_nothing(environments: Environments) -> None:
    environments.put_on(9)
    environments.take_off(9)
    assert os.environ[NAME] == "before"


def test_what_a_task_sets_by_itself_stays(environments: Environments, monkeypatch: pytest.MonkeyPatch) -> None:
    environments.put_on(1)
    monkeypatch.setenv(OTHER, "its own")
    environments.take_off(1)
    assert os.environ[OTHER] == "its own"
