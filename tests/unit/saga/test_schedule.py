"""Who runs next, as histories of names."""

from agent.saga.schedule import Schedule


def accepted(*operations: tuple[str, str]) -> Schedule:
    schedule = Schedule()
    for operation_id, instance_id in operations:
        schedule.accept(operation_id, instance_id)
    return schedule


def test_one_at_a_time_for_an_instance_and_all_instances_at_once() -> None:
    schedule = accepted(("a", "one"), ("b", "one"), ("c", "two"))
    assert schedule.take() == ["a", "c"]
    assert schedule.take() == []
    schedule.close("a")
    assert schedule.take() == ["b"]


def test_what_parks_gives_its_turn_away() -> None:
    schedule = accepted(("a", "one"), ("b", "one"))
    schedule.take()
    schedule.park("a", wake_at=60.0)
    assert schedule.is_parked("a")
    assert schedule.take() == ["b"]


def test_what_wakes_goes_to_the_head_and_waits_for_who_runs() -> None:
    schedule = accepted(("a", "one"), ("b", "one"), ("c", "one"))
    schedule.take()
    schedule.park("a", wake_at=60.0)
    schedule.take()
    schedule.stir("one")
    assert schedule.take() == [], "b runs"
    schedule.close("b")
    assert schedule.take() == ["a"]
    schedule.close("a")
    assert schedule.take() == ["c"]


def test_what_steps_aside_waits_for_nobody_and_may_come_back() -> None:
    schedule = accepted(("a", "one"), ("b", "one"), ("c", "one"))
    schedule.take()
    assert schedule.queued() == ["b", "c"]
    schedule.step_aside("b")
    assert schedule.take() == ["b"], "though a runs"
    assert (schedule.is_running("b"), schedule.is_queued("c")) == (True, True)
    assert not schedule.move("b", "one")
    assert schedule.take() == []
    schedule.close("a")
    assert schedule.take() == ["c"]


def test_what_waits_for_its_turn_may_be_closed() -> None:
    schedule = accepted(("a", "one"), ("b", "one"), ("c", "one"))
    schedule.take()
    schedule.close("b")
    schedule.close("a")
    assert schedule.take() == ["c"]


def test_an_operation_on_several_instances_takes_one_turn_after_the_other() -> None:
    schedule = accepted(("every", "every"), ("a", "one"), ("b", "two"))
    assert schedule.take() == ["every", "a", "b"]
    assert not schedule.move("every", "one"), "a runs there"
    assert schedule.take() == []
    schedule.close("a")
    assert schedule.take() == ["every"]
    assert schedule.move("every", "one"), "it goes on in the same turn"
    schedule.accept("c", "one")
    assert not schedule.move("every", "two")
    assert schedule.take() == ["c"], "the turn that it left is free at once"
    schedule.close("b")
    assert schedule.take() == ["every"]


def test_where_it_parks_an_event_of_that_instance_wakes_it() -> None:
    schedule = accepted(("every", "every"))
    schedule.take()
    schedule.move("every", "one")
    schedule.take()
    schedule.park("every", wake_at=60.0)
    schedule.stir("every")
    assert schedule.take() == []
    schedule.stir("one")
    assert schedule.take() == ["every"]
    schedule.close("every")
    assert schedule.next_alarm() is None


def test_what_wakes_together_runs_in_the_order_of_acceptance() -> None:
    schedule = accepted(("z", "one"), ("a", "one"), ("m", "one"))
    for operation_id in ("z", "a", "m"):
        assert schedule.take() == [operation_id]
        schedule.park(operation_id, wake_at=60.0)
    schedule.stir_all()
    order = []
    for _ in range(3):
        (operation_id,) = schedule.take()
        order.append(operation_id)
        schedule.close(operation_id)
    assert order == ["z", "a", "m"]


def test_an_event_while_it_runs_is_not_lost_when_it_parks() -> None:
    schedule = accepted(("a", "one"))
    schedule.take()
    schedule.stir("one")
    schedule.park("a", wake_at=60.0)
    assert schedule.take() == ["a"], "it looks again"
    schedule.park("a", wake_at=60.0)
    assert schedule.take() == [], "and waits then"


def test_an_event_of_another_instance_wakes_nobody() -> None:
    schedule = accepted(("a", "one"))
    schedule.take()
    schedule.park("a", wake_at=60.0)
    schedule.stir("two")
    assert schedule.take() == []


def test_alarms_ring_when_they_are_due() -> None:
    schedule = accepted(("a", "one"), ("b", "two"))
    schedule.take()
    schedule.park("a", wake_at=60.0)
    schedule.park("b", wake_at=30.0)
    assert schedule.next_alarm() == 30.0
    schedule.ring(29.9)
    assert schedule.take() == []
    schedule.ring(30.0)
    assert schedule.take() == ["b"]
    assert schedule.next_alarm() == 60.0


def test_the_alarm_of_what_was_woken_otherwise_means_nothing() -> None:
    schedule = accepted(("a", "one"))
    schedule.take()
    schedule.park("a", wake_at=30.0)
    schedule.stir("one")
    schedule.take()
    schedule.park("a", wake_at=90.0)
    schedule.ring(30.0)
    assert schedule.take() == []
    assert schedule.next_alarm() == 90.0


def test_what_is_closed_is_forgotten() -> None:
    schedule = accepted(("a", "one"), ("b", "one"))
    schedule.take()
    schedule.park("a", wake_at=30.0)
    schedule.take()
    schedule.close("a")
    schedule.close("b")
    schedule.stir_all()
    schedule.ring(100.0)
    assert schedule.take() == []
    assert schedule.next_alarm() is None
