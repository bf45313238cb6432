"""Routes: which machine hears of which event, and of which message.

They are laid once for a rank. ``rank.py`` adds what concerns several machines, and what may end the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpcfut.core import events as e
from hpcfut.core.ahead import ReadsAhead
from hpcfut.core.context import Handler, Unheld
from hpcfut.wire import actors as a
from hpcfut.wire import messages as m
from hpcfut.wire import queries as q
from hpcfut.wire import standstills as s

if TYPE_CHECKING:
    from hpcfut.core.rank import RankCore

#: Takes the rank that has sent a message, and that.
MessageHandler = Callable[[int, Any], None]


def events_of(core: RankCore) -> dict[type, Handler]:
    """What the machines do about each event."""
    references, transfers, cancel = core.references, core.transfers, core.cancellations.cancel_maker
    ask = core.membership.ask
    return {
        e.TemplateDefined: lambda event: core.templates.define(event.template),
        e.TemplateDropped: lambda event: core.templates.drop(event.template_id),
        e.TaskSubmitted: core.tasks.submit,
        e.ActorCreated: core.actors.create,
        e.MethodCalled: core.calls.submit,
        e.ActorKillWanted: core.actors.kill,
        e.NameClaimed: core.names.claim,
        e.NameGivenBack: lambda event: core.names.give_up(event.actor_id),
        e.OwnActorHeld: core.residents.hold_own,
        e.NameSought: core.names.seek,
        e.NamesListed: core.names.list_all,
        e.QueryAbandoned: core.names.abandon,
        e.ObjectPut: lambda event: references.put(event.object_id, event.result),
        e.SourcePut: references.put_source,
        e.BytesLost: core.recovery.on_bytes_lost,
        e.RefsAdded: lambda event: references.add_local(event.object_ids),
        e.RefsReleased: lambda event: references.drop_local(event.object_ids),
        e.WaitStarted: core.waits.start,
        e.WaitAbandoned: lambda event: core.waits.abandon(event.waiter_id),
        e.WatchStarted: core.watches.start,
        e.WatchEnded: lambda event: core.watches.end(event.watch_id),
        e.StreamAdvanced: core.tasks.items.advance,
        e.StreamEndWanted: core.tasks.items.want_end,
        e.RunYielded: lambda event: core.streams.yielded(event.task_id, event.object_id, event.result),
        e.RunHeldBack: lambda event: core.streams.held_back(event.task_id),
        e.CancelRequested: lambda it: cancel(it.object_id, it.is_recursive, it.is_forced),
        e.ReadCompleted: lambda event: transfers.on_read_completed(event.transfer_id),
        e.ReadFailed: lambda event: transfers.on_read_failed(event.transfer_id, event.failure),
        e.ReadDenied: lambda event: transfers.on_read_denied(event.transfer_id, event.failure),
        e.SendCompleted: lambda event: transfers.on_send_completed(event.object_id),
        e.DraftBegun: lambda event: core.copies.begin_draft(event.object_id),
        e.DraftTaken: core.copies.take_draft,
        e.RoomWanted: core.pressure.on_room_wanted,
        e.RoomReturned: core.pressure.on_room_returned,
        e.ObjectsSpilled: core.pressure.on_spilled,
        e.SpillFailed: core.pressure.on_spill_failed,
        e.ViewsClosed: lambda event: core.copies.close_views(event.object_ids),
        e.ResourcesQueried: lambda event: ask(event.query_id, q.ResourcesAsked(event.query_id)),
        e.InventoriesQueried: lambda event: ask(event.query_id, q.InventoryAsked(event.query_id)),
        e.SiteNoted: core.inventories.note,
        **core.deaths.replacements.events(),
        e.DriverEnded: lambda event: core.membership.end_driver(event.status, is_final=event.is_final),
    }


def messages_of(core: RankCore) -> dict[type, MessageHandler]:
    """What they do about each message."""
    references, transfers, cancel = core.references, core.transfers, core.cancellations.cancel_maker
    return {
        m.TemplateRegistered: core.templates.on_registered,
        m.TemplateForgotten: lambda _, message: core.templates.on_forgotten(message),
        m.LeaseRequested: core.scheduler.on_lease_requested,
        m.LeaseGranted: lambda _, message: core.leases.on_granted(message),
        m.LeaseReturned: core.scheduler.on_lease_returned,
        m.TaskPushed: core.runs.on_pushed,
        m.ArgumentsFollow: ReadsAhead(core.context, core.copies, core.pressure, transfers).on_follow,
        m.TasksHandedBack: core.tasks.on_handed_back,
        m.TaskDone: core.tasks.on_done,
        m.TaskReturned: core.tasks.on_returned,
        m.TaskRaised: core.tasks.on_raised,
        m.ItemYielded: core.tasks.items.on_item,
        m.StreamCredit: lambda _, message: core.streams.on_credit(message),
        m.CancelAsked: lambda _, message: cancel(message.object_id, message.recursive, message.forced),
        m.TaskCancelled: core.cancelled_runs.on_cancelled,
        m.ObjectAsked: references.on_asked,
        m.ObjectResolved: core.answers.on_answer,
        m.ObjectLocated: core.answers.on_answer,
        m.ObjectFailed: core.answers.on_answer,
        m.ObjectLost: core.recovery.on_lost,
        m.BorrowAdded: references.on_borrow_added,
        m.BorrowConfirmed: lambda _, message: references.on_borrow_confirmed(message),
        m.BorrowReleased: references.on_borrow_released,
        **core.deaths.messages(),
        **_messages_of_actors(core),
        m.ReadRequested: transfers.on_read_requested,
        m.ReadRefused: transfers.on_read_refused,
        m.ReadRedirected: transfers.on_read_redirected,
        m.CopyGone: references.keepers.on_copy_gone,
        m.RedirectionEnded: transfers.readers.on_redirection_ended,
        m.LoanRequested: transfers.on_loan_requested,
        m.BytesLent: transfers.on_lent,
        m.LoanReturned: transfers.loans.on_returned,
        m.LoanRecalled: transfers.on_recalled,
        m.ObjectFreed: lambda _, message: core.copies.withdraw(message.object_id),
        q.ResourcesAsked: core.inventories.on_resources_asked,
        q.ResourcesReported: core.membership.on_resources_reported,
        q.InventoryAsked: core.inventories.on_asked,
        q.InventoryReported: core.membership.on_inventory_reported,
        s.WaitersAsked: core.standstills.on_asked,
        s.WaitersReported: core.standstills.on_reported,
        s.StandstillFound: lambda _, message: core.standstills.on_found(message),
    }


def _messages_of_actors(core: RankCore) -> dict[type, MessageHandler]:
    actors, names, addresses = core.actors, core.names, core.addresses
    return {
        a.MethodPushed: core.residents.on_called,
        a.MethodRefused: lambda _, message: core.calls.on_refused(message),
        a.MethodGivenUp: lambda _, message: core.residents.on_given_up(message),
        a.ActorAsked: actors.on_asked,
        a.ActorLocated: lambda _, message: addresses.on_located(message),
        a.ActorGone: lambda _, message: addresses.end(message.actor_id, message.failure),
        a.ActorKilled: lambda _, message: actors.on_killed(message),
        a.ActorDismissed: lambda _, message: core.residents.on_dismissed(message),
        a.ActorLeft: actors.on_left,
        Unheld: lambda _, unheld: actors.on_unheld(unheld),
        a.NameAsked: names.on_asked,
        a.NameTold: lambda _, message: names.on_told(message),
        a.HandleAsked: actors.on_handle_asked,
        a.HandleGiven: names.on_given,
        a.NameDropped: lambda _, message: names.on_dropped(message),
        a.NamesAsked: names.on_list_asked,
        a.NamesTold: lambda _, message: names.on_listed(message),
    }
