"""Replacements for ranks that have died: each test is a small user program, told above it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from hpcfut.core import events as e
from hpcfut.core.replacements import N_IN_VAIN_MAX, WITHIN_S
from hpcfut.model.failure import Failure
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.wire.messages import DeathNoted
from tests.protocol.wired import Ranks

MakeRanks = Callable[..., Ranks]


@pytest.fixture
def ranks(make_ranks: MakeRanks) -> Ranks:
    """Three ranks on three hosts, in a job in which the dead are replaced."""
    return make_ranks(survives_deaths=True, n_respawns_minute_max=30)


@pytest.fixture
def four(make_ranks: MakeRanks) -> Ranks:
    """Four of them."""
    return make_ranks(4, survives_deaths=True, n_respawns_minute_max=30)


def active(ranks: Ranks) -> list[tuple[int, ...]]:
    """Who may be given tasks, as each living rank sees it."""
    return [ranks.hands[rank].core.membership.active for rank in ranks.alive]


def replace(ranks: Ranks) -> int:
    """A replacement comes, and all are linked with it."""
    rank = ranks.arrive()
    ranks.settle()
    return rank


def test_a_replacement_takes_the_place_of_a_dead_rank(ranks: Ranks) -> None:
    # Rank 2 dies; f.options(on=3).remote() runs on its replacement, calls g on rank 1, and hands a ref on.
    ranks.kill(2)
    assert [(record.rank, record.replaces) for record in ranks.wanted] == [(3, 2)]
    assert replace(ranks) == 3
    assert active(ranks) == [(0, 1, 3)] * 3
    x = ranks.put(0, b"x")
    task = ranks.call(ranks.function(on=3), nested=(x,))
    assert ranks.running[task] == 3
    ranks.hold(3, x)
    inner = ranks.call(ranks.function(3, on=1), nested=(x,), parent=task)
    ranks.hold(1, x)
    ranks.returns(inner)
    ranks.drop(3, inner, x)
    ranks.returns(task)
    ranks.drop(0, task, x)
    assert ranks.knows(0, x), "Rank 1 holds it."
    ranks.drop(1, x)
    assert not ranks.knows(0, x)


def test_tasks_that_wait_find_the_replacement_at_once(make_ranks: MakeRanks) -> None:
    # Two calls that take all of a rank; there were two such ranks, and one has died.
    ranks = make_ranks(survives_deaths=True, n_respawns_minute_max=30, extra={1: {"gpu": 1}, 2: {"gpu": 1}})
    function = ranks.function(resources=(("gpu", RESOURCE_UNIT),))
    ranks.kill(2)
    tasks = [ranks.call(function) for _ in range(2)]
    assert [ranks.running.get(task) for task in tasks] == [1, None]
    replace(ranks)
    assert [ranks.running.get(task) for task in tasks] == [1, 3]
    for task in tasks:
        ranks.returns(task)
        ranks.drop(0, task)


def test_nobody_is_started_while_a_spare_stands_in(make_ranks: MakeRanks) -> None:
    # One of three ranks is a spare; two die.
    ranks = make_ranks(survives_deaths=True, n_respawns_minute_max=30, n_spares=1)
    ranks.kill(1)
    assert not ranks.wanted
    ranks.kill(2)
    assert [(record.replaces, record.is_spare) for record in ranks.wanted] == [(1, False)]
    replace(ranks)
    assert active(ranks) == [(0, 3)] * 2


@pytest.mark.parametrize("late", [0, 1, 3])
def test_a_death_that_somebody_hears_of_late_settles(four: Ranks, late: int) -> None:
    # Rank 2 dies, and so does its replacement; one rank hears of the first death only when the replacement is there.
    four.kill(2, unaware=(late,) if late else ())
    if not late:
        four.held.append((1, 0))
    replace(four)
    four.held.clear()
    if late and four.can_hear(late, 2):
        four.hear(late, 2)
    four.settle()
    assert active(four) == [(0, 1, 3, 4)] * 4
    four.kill(4)
    replace(four)
    assert active(four) == [(0, 1, 3, 5)] * 4
    assert not any(four.hands[rank].core.statistics().n_deaths for rank in four.alive)


def test_a_rank_that_dies_before_it_was_linked_is_told_of(four: Ranks) -> None:
    # Rank 2 dies; rank 1 dies while its replacement waits for it. That knows of both deaths in the end.
    four.kill(2)
    four.links_wait = True
    four.arrive()
    four.settle()
    assert four.unmade == [(1, 4)]
    four.kill(1)
    four.make_link()
    four.links_wait = False
    four.settle()
    four.unmade.clear() if not four.unmade else four.make_link()
    four.settle()
    assert active(four) == [(0, 3, 4)] * 3
    replace(four)
    assert active(four) == [(0, 3, 4, 5)] * 4


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_replacement_that_dies_while_it_joins_is_replaced(four: Ranks, is_linked: bool) -> None:
    # Rank 2 dies, and its replacement before all others were linked with it; nobody waits for it.
    four.kill(2)
    four.links_wait = True
    four.arrive()
    four.settle()
    if is_linked:
        four.make_link()
        four.settle()
    four.kill(4)
    late = list(four.unmade)
    four.unmade.clear()
    four.links_wait = False
    for rank, replacement in late:
        four.tell(rank, e.LinkMade(replacement, False))
    four.settle()
    assert replace(four) == 5
    assert active(four) == [(0, 1, 3, 5)] * 4
    assert all(four.hands[rank].core.membership.n_ranks == 6 for rank in four.alive)


def test_a_replacement_that_dies_before_it_is_activated_is_known_to_be_dead(ranks: Ranks) -> None:
    # Rank 2 dies, and its replacement when all are linked, before its word that it takes tasks has come to rank 1.
    ranks.kill(2)
    ranks.held.append((3, 1))
    ranks.arrive()
    ranks.settle()
    ranks.kill(3)
    ranks.held.clear()
    assert active(ranks) == [(0, 1)] * 2
    replace(ranks)
    assert active(ranks) == [(0, 1, 4)] * 3


def test_after_some_replacements_in_vain_the_job_goes_on_with_fewer_ranks(ranks: Ranks) -> None:
    # Every replacement dies at once.
    ranks.kill(2)
    for n in range(N_IN_VAIN_MAX + 1):
        assert len(ranks.wanted) == 1, n
        assert not ranks.announced, n
        ranks.links_wait = True
        ranks.kill(ranks.arrive())
    assert not ranks.wanted
    assert "could not be used" in ranks.announced[0]
    assert "2 ranks" in ranks.announced[0]


def test_who_cannot_be_started_is_tried_again_and_said(ranks: Ranks) -> None:
    # There is no room for another process.
    ranks.kill(1)
    record = ranks.wanted.pop()
    ranks.tell(0, e.SpawnFailed(record.rank, "There is no room."))
    assert [other.rank for other in ranks.wanted] == [record.rank]
    assert "There is no room." in ranks.announced[0]


def test_only_so_many_are_replaced_within_a_minute(make_ranks: MakeRanks) -> None:
    # A task that kills its rank is called again and again.
    ranks = make_ranks(survives_deaths=True, n_respawns_minute_max=2)
    for _ in range(2):
        ranks.kill(ranks.alive[-1])
        replace(ranks)
    ranks.pass_time(61)
    ranks.kill(1)
    assert replace(ranks) == 5
    for _ in range(2):
        ranks.kill(ranks.alive[-1])
        if ranks.wanted:
            replace(ranks)
    assert not ranks.wanted
    assert "within a minute" in ranks.announced[0]
    assert active(ranks) == [(0, 4)] * 2


def test_a_query_does_not_wait_for_who_was_not_asked(ranks: Ranks) -> None:
    # available_resources() is called while a replacement joins.
    ranks.kill(2)
    ranks.held.append((1, 0))
    ranks.tell(0, e.ResourcesQueried(7))
    ranks.links_wait = True
    ranks.arrive()
    ranks.settle()
    ranks.held.clear()
    ranks.settle()
    assert [sorted(answer.answers) for answer in ranks.answers] == [[0, 1]]


def test_nothing_is_noted_twice(ranks: Ranks) -> None:
    # Both sides of a link tell each other of each death once.
    ranks.kill(2)
    replace(ranks)
    notes = [
        (source, destination, message.dead)
        for source, destination, message in ranks.log
        if isinstance(message, DeathNoted)
    ]
    assert len(notes) == len(set(notes))


@pytest.fixture
def lathe(make_ranks: MakeRanks) -> Ranks:
    """Three ranks, of which the last alone has a lathe."""
    return make_ranks(survives_deaths=True, n_respawns_minute_max=30, extra={2: {"lathe": 1}})


TURN = (("lathe", RESOURCE_UNIT),)


def failure_of(ranks: Ranks, rank: int, task: int) -> Failure:
    """Why a task has failed."""
    value = ranks.value(rank, task)
    assert isinstance(value, Failure)
    return value


@pytest.mark.parametrize("owner", [0, 1])
def test_what_only_a_dead_rank_could_run_waits_for_its_replacement(lathe: Ranks, owner: int) -> None:
    # turn asks for a lathe, which one rank has; it dies with a call of turn, and another call follows.
    turn = lathe.function(owner, resources=TURN, n_retries_max=1)
    before = lathe.call(turn)
    assert lathe.running == {before: 2}
    large = lathe.put(owner, is_large=True)
    lathe.kill(2)
    after = lathe.call(turn, arguments=(large, large))
    assert not lathe.running
    lathe.links_wait = True
    lathe.arrive()
    lathe.settle()
    assert not lathe.running, "It has not been linked with all."
    lathe.links_wait = False
    lathe.make_link()
    lathe.settle()
    assert lathe.running[before] == 3
    lathe.returns(before)
    assert lathe.running == {after: 3}
    lathe.returns(after)
    lathe.drop(owner, before, after, large)


def test_what_no_replacement_could_run_fails_at_once(lathe: Ranks) -> None:
    # Calls that ask for more than anybody ever had, and one that is bound to the dead rank itself.
    lathe.kill(2)
    greedy = lathe.call(lathe.function(resources=(("lathe", 2 * RESOURCE_UNIT),)))
    assert "the most on one rank is 0" in failure_of(lathe, 0, greedy).text
    bound = lathe.call(lathe.function(resources=TURN, on=2))
    assert "bound to rank 2" in failure_of(lathe, 0, bound).text
    lathe.drop(0, greedy, bound)


def test_what_waits_for_a_replacement_fails_when_none_comes_any_more(lathe: Ranks) -> None:
    # No replacement can be started; calls of turn by two ranks wait until that is given up.
    turn = {owner: lathe.function(owner, resources=TURN, n_retries_max=1) for owner in (0, 1)}
    tasks = {owner: lathe.call(turn[owner]) for owner in (0, 1)}
    lathe.returns(tasks[0])
    lathe.kill(2)
    again = lathe.call(lathe.function(resources=TURN))
    waits = [lathe.get(0, again), lathe.get(1, tasks[1])]
    for n in range(N_IN_VAIN_MAX + 1):
        assert not any(wait in lathe.woken for wait in waits), n
        lathe.tell(0, e.SpawnFailed(lathe.wanted.pop().rank, "There is no room."))
    lathe.settle()
    for rank, task in ((0, again), (1, tasks[1])):
        text = failure_of(lathe, rank, task).text
        assert "It was killed; it could." in text
        assert "could not be used" in text
    late = lathe.call(lathe.function(1, resources=TURN))
    assert "could not be used" in failure_of(lathe, 1, late).text
    lathe.drop(0, tasks[0], again)
    lathe.drop(1, tasks[1], late)


@pytest.mark.parametrize("is_there", [False, True])
def test_nobody_waits_for_ever_for_a_replacement_that_does_not_come(lathe: Ranks, is_there: bool) -> None:
    # A replacement starts, and gets stuck before it takes tasks.
    lathe.kill(2)
    task = lathe.call(lathe.function(1, resources=TURN))
    wait = lathe.get(1, task)
    if is_there:
        lathe.links_wait = True
        lathe.arrive()
        lathe.settle()
    lathe.pass_time(WITHIN_S - 1)
    assert wait not in lathe.woken
    lathe.pass_time(1)
    assert f"within {WITHIN_S:g} s" in failure_of(lathe, 1, task).text
    assert f"within {WITHIN_S:g} s" in lathe.announced[0]
    if is_there:  # It comes after all, and is as good as any.
        lathe.links_wait = False
        lathe.make_link()
        lathe.settle()
        late = lathe.call(lathe.function(1, resources=TURN))
        assert lathe.running == {late: 3}
        lathe.returns(late)
        lathe.drop(1, late)
    lathe.drop(1, task)


def test_where_a_spare_has_taken_the_place_nobody_waits(make_ranks: MakeRanks) -> None:
    # Ranks 1 and 2 have a lathe each, and rank 3 is a spare; both die, and one replacement comes.
    extra = {1: {"drill": 1}, 2: {"lathe": 1}}
    ranks = make_ranks(4, survives_deaths=True, n_respawns_minute_max=30, n_spares=1, extra=extra)
    ranks.kill(2)
    task = ranks.call(ranks.function(resources=TURN))
    assert "it could" in failure_of(ranks, 0, task).text
    ranks.kill(1)
    tasks = [ranks.call(ranks.function(resources=((name, RESOURCE_UNIT),))) for name in ("lathe", "drill")]
    assert not ranks.running
    assert replace(ranks) == 4
    assert ranks.running == {tasks[1]: 4}
    assert "it could" in failure_of(ranks, 0, tasks[0]).text
    ranks.returns(tasks[1])
    ranks.drop(0, task, *tasks)


def test_who_has_heard_of_one_of_two_deaths_waits_for_its_replacement(make_ranks: MakeRanks) -> None:
    # Ranks 1 and 2 die; rank 3 has heard of one death only when the replacement for the other is there.
    ranks = make_ranks(4, survives_deaths=True, n_respawns_minute_max=30, extra={2: {"lathe": 1}})
    ranks.kill(1, 2, unaware=(3,))
    ranks.hear(3, 2)
    task = ranks.call(ranks.function(3, resources=TURN))
    assert replace(ranks) == 4
    assert not ranks.running
    ranks.hear(3, 1)
    ranks.settle()
    assert replace(ranks) == 5
    assert ranks.running == {task: 5}
    ranks.returns(task)
    ranks.drop(3, task)


def test_who_waits_for_a_replacement_does_not_stand_still(make_ranks: MakeRanks) -> None:
    # f holds a lathe, and waits for a call that needs one; rank 2, which could run it, has died.
    extra = {1: {"lathe": 1}, 2: {"lathe": 1}}
    ranks = make_ranks(survives_deaths=True, n_respawns_minute_max=30, extra=extra)
    outer = ranks.call(ranks.function(resources=TURN, on=1))
    ranks.kill(2)
    inner = ranks.call(ranks.function(1, resources=TURN), parent=outer)
    ranks.tell(1, e.WaitStarted(1, [inner], 1, True, True, outer, True))
    for _ in range(8):
        ranks.pass_time(ranks.hands[0].core.context.config.standstill_after_s)
    assert replace(ranks) == 3
    assert ranks.running[inner] == 3
    ranks.returns(inner)
    ranks.drop(1, inner)
    ranks.returns(outer)
    ranks.drop(0, outer)


class Story:
    """A random program under random deaths, with messages and links in a random order."""

    def __init__(self, ranks: Ranks, seed: int) -> None:
        self.ranks = ranks
        self.choose = random.Random(seed)
        self.unheard: list[tuple[int, int]] = []
        self.held: list[tuple[int, int]] = []
        self.tasks: list[int] = []

    def play(self, n_steps: int) -> None:
        """Some steps; then all that is under way arrives, everybody lets go, and nothing is left."""
        ranks, choose = self.ranks, self.choose
        ranks.links_wait = True
        for _ in range(n_steps):
            choose.choice([self.hold_links, self.hold_links, self.die, self.hear, self.arrive, self.link, self.use])()
        for _ in range(9):
            ranks.held.clear()
            self.hear(all_of_them=True)
            while ranks.unmade:
                ranks.make_link()
            ranks.settle()
            self.arrive()
        if self.tasks:
            waiter_id = ranks.get(0, *self.tasks)
            while waiter_id not in ranks.woken:
                ranks.pass_time(0.1)
                for task in list(ranks.running):
                    ranks.returns(task)
        for rank, object_id in self.held:
            if rank in ranks.alive:
                ranks.drop(rank, object_id)

    def hold_links(self) -> None:
        """Other messages than before get through."""
        n = len(self.ranks.hands)
        pairs = [(self.choose.randrange(n), self.choose.randrange(n)) for _ in range(n)]
        self.ranks.held[:] = pairs
        self.ranks.settle()

    def die(self) -> None:
        """A rank dies, and nobody has heard of it."""
        if len(self.ranks.alive) > 2:
            dead = self.choose.choice(self.ranks.alive[1:])
            self.ranks.kill(dead, unaware=tuple(self.ranks.alive))
            self.unheard += [(rank, dead) for rank in self.ranks.alive]

    def hear(self, *, all_of_them: bool = False) -> None:
        """Some rank hears of a death."""
        self.choose.shuffle(self.unheard)
        for rank, dead in list(self.unheard):
            if self.ranks.can_hear(rank, dead):
                self.unheard.remove((rank, dead))
                self.ranks.hear(rank, dead)
                if not all_of_them:
                    return

    def arrive(self) -> None:
        """A replacement comes."""
        if self.ranks.wanted:
            rank = self.ranks.arrive()
            self.ranks.settle()
            self.unheard += [(rank, dead) for dead in self.ranks.dead]

    def link(self) -> None:
        """Two ranks are linked."""
        if self.ranks.unmade:
            self.ranks.make_link()

    def use(self) -> None:
        """The driver puts a value, and calls a function with the ref, which keeps it."""
        ranks = self.ranks
        on = self.choose.choice(ranks.hands[0].core.membership.active)
        x = ranks.put(0, b"x")
        resources = TURN if self.choose.random() < 0.3 else ()
        function = ranks.function(on=on, n_retries_max=3, affinity_soft=True, resources=resources)
        task = ranks.call(function, nested=(x,))
        ranks.drop(0, x)
        where = ranks.running.get(task)
        if where is not None and where in ranks.alive:
            ranks.hold(where, x)
            self.held.append((where, x))
        self.held.append((0, task))
        self.tasks.append(task)


@pytest.mark.parametrize("part", range(4))
def test_whatever_dies_and_joins_in_whatever_order_nothing_is_left(part: int) -> None:
    # Thirty random stories.
    for seed in range(30 * part, 30 * part + 30):
        ranks = Ranks(4, survives_deaths=True, n_respawns_minute_max=1000, extra={2: {"lathe": 1}})
        Story(ranks, seed).play(40)
        rosters = {ranks.hands[rank].core.membership.n_ranks for rank in ranks.alive}
        assert len(rosters) == 1, seed
        assert len(set(active(ranks))) == 1, (seed, active(ranks))
        ranks.end()
