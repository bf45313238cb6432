"""What the API wants of actors, in terms of events; calls themselves are ``Runtime.submit``."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from hpcfut.core.events import ActorKillWanted, NameClaimed, NameGivenBack, NamesListed, NameSought, OwnActorHeld
from hpcfut.model.named import NamedActor
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.packing import pack_inline

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpcfut.runtime.runtime import Runtime

#: An actor that is about to end has its name until then; so often is asked whether it is free.
ASK_EVERY_S: Final = 0.002

#: The id of an actor, and its descriptor.
Named = tuple[int, tuple[int, bytes]]


class Actors:
    """What this rank knows of actors that its code holds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        #: What is known of their classes, by the id of the template of the constructor.
        self.interfaces: WeakValueDictionary[int, Any] = WeakValueDictionary()
        #: Refs to actors made here that live until the session ends.
        self.detached: dict[int, Any] = {}

    def new_id(self) -> int:
        """The id of an actor that is about to be made here."""
        return next(self._runtime.ids)

    def define_method(
        self, make_template: Callable[[int, bytes], TaskTemplate], retried: tuple[type[BaseException], ...]
    ) -> int:
        """Register a method, which is tried again after the exceptions ``retried``; gives the id of its template."""
        return self._runtime.define(lambda key, function, nested, types: make_template(key, types), None, retried)

    def kill(self, actor_id: int, *, is_final: bool) -> None:
        """End an actor."""
        self._runtime.demand_session()
        self._runtime.engine.post(ActorKillWanted(actor_id, is_final))
        if is_final:
            self.detached.pop(actor_id, None)

    def hold(self, actor_id: int, ref: Any) -> None:
        """Let an actor live until the session ends, or it is killed here."""
        self.detached[actor_id] = ref

    def held(self, actor_id: int) -> int:
        """An actor that lives here, held once more by the method of its own that runs; gives its id."""
        self._runtime.engine.post(OwnActorHeld(self._runtime.task_id))
        self._runtime.mailbox.append(actor_id)
        return actor_id

    def n_calls(self, actor_id: int) -> int:
        """Calls that have been made here and have not ended."""
        engine = self._runtime.engine
        engine.hear_now()  # Of calls that were made just before.
        return engine.core.addresses.n_calls(actor_id)

    def pack(self, value: Any) -> bytes:
        """Pickle something small that has no refs inside."""
        return pack_inline(self._runtime.pickling.dumps(value))

    def claim(self, namespace: str, name: str, actor_id: int, descriptor: tuple[int, bytes]) -> Named | None:
        """Give an actor that is about to be made a name; gives who has it already, held once, and its descriptor."""
        packed = self.pack(descriptor)
        question = partial(NameClaimed, namespace=namespace, name=name, actor_id=actor_id, descriptor=packed)
        return self._found(question, claimed_id=actor_id)

    def give_back_name(self, actor_id: int) -> None:
        """The actor that was claimed a name for is not made after all."""
        self._runtime.engine.post(NameGivenBack(actor_id))

    def seek(self, namespace: str, name: str) -> Named | None:
        """The actor of a name, held once, and its descriptor."""
        return self._found(partial(NameSought, namespace=namespace, name=name))

    def _found(self, question: Any, claimed_id: int = 0) -> Named | None:
        runtime = self._runtime

        def give_back(named: NamedActor | None) -> None:
            if named is not None and named.actor_id:
                runtime.released.append(named.actor_id)
            elif named is None and claimed_id:
                self.give_back_name(claimed_id)

        while True:
            named: NamedActor | None = runtime.queries.ask(question, give_back)
            if named is None:
                return None
            if named.actor_id:
                return named.actor_id, runtime.pickling.loads(named.descriptor)
            # Its owner has answered that it is about to end, and nobody is told when rank 0 has heard of that.
            time.sleep(ASK_EVERY_S)
            runtime.demand_no_interruption()

    def names(self) -> list[tuple[str, str]]:
        """All names, each with its namespace first."""
        return self._runtime.queries.ask(NamesListed)  # type: ignore[no-any-return]

    @property
    def here(self) -> Any:
        """The home of the actor whose method runs on this thread, if one does."""
        current = self._runtime.executor.current
        return current.home if current.task_id and current.method_id == current.task_id else None
