"""What serves again leaves live cleanups at once; what no policy wants is withdrawn."""

from __future__ import annotations

from itertools import pairwise

from synsweep.cluster.errors import ApiRefused
from synsweep.cluster.listwatch import Added, Listed
from synsweep.core.cleanup import Mode
from synsweep.core.cleanup_wire import cleanup_to_wire
from tests.unit.controller.world import EPOCH, START, World

NOT_FOUND = ApiRefused(status=404, reason="NotFound", message="gone", fields=())


def two_gone() -> World:
    """Make a world in which one cleanup names two backends."""
    world = World().ready()
    world.slice("web-1", "web")
    world.run(0.3)
    assert world.written.backends() == {"10.0.0.1", "10.0.0.2"}
    return world


def test_a_backend_that_comes_back_is_taken_out_at_once() -> None:
    world = two_gone()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(0.0)
    assert world.written.backends() == {"10.0.0.2"}
    assert [verb for verb, _, _ in world.written.log] == ["create", "patch"]


def test_a_cleanup_with_nothing_left_is_deleted() -> None:
    world = two_gone()
    world.slice("web-1", "web", "10.0.0.1", "10.0.0.2")
    world.run(0.0)
    assert world.written.objects == {}
    assert [verb for verb, _, _ in world.written.log] == ["create", "delete"]


def test_one_object_is_patched_at_most_twice_a_second() -> None:
    world = World().ready()
    ips = [f"10.0.1.{number}" for number in range(10)]
    world.slice("web-1", "web", *ips)
    world.run(1.0)
    world.slice("web-1", "web")
    world.run(0.5)
    start = world.time - START
    for number in range(1, 10):
        world.slice("web-1", "web", *ips[:number])
        world.run(0.1)
    world.run(1.0)
    patched = world.written.times("patch")
    assert len(patched) <= 4
    assert patched[0] - start < 0.01
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(patched))
    assert world.written.backends() == {ips[9]} | {"10.0.0.1", "10.0.0.2"}


def test_a_backend_that_goes_again_is_condemned_again() -> None:
    world = two_gone()
    world.slice("web-1", "web", "10.0.0.1")
    world.run(1.0)
    world.slice("web-1", "web")
    world.run(1.0)
    assert len(world.written.times("create")) == 2
    assert world.written.backends() == {"10.0.0.1", "10.0.0.2"}


def test_what_somebody_deleted_is_forgotten() -> None:
    world = two_gone()
    world.written.trouble["patch"] = NOT_FOUND
    world.slice("web-1", "web", "10.0.0.1")
    world.run(0.0)
    assert world.ledger.live() == ()


def test_a_refused_revocation_is_tried_again_and_said() -> None:
    world = two_gone()
    world.written.trouble["patch"] = ApiRefused(
        status=403, reason="Forbidden", message="no", fields=()
    )
    world.slice("web-1", "web", "10.0.0.1")
    world.run(2.0)
    assert len(world.written.times("patch")) > 1
    del world.written.trouble["patch"]
    world.run(6.0)
    assert world.written.backends() == {"10.0.0.2"}


def test_news_does_not_make_a_hot_loop_of_what_is_refused() -> None:
    world = two_gone()
    world.written.trouble["patch"] = ApiRefused(
        status=403, reason="Forbidden", message="no", fields=()
    )
    for number in range(200):  # each wakes the writer
        world.slice("web-1", "web", "10.0.0.1", *["10.0.0.9"] * (number % 2))
        world.writer.step()
        world.time += 0.005
    assert 2 <= len(world.written.times("patch")) <= 5


def test_a_change_of_mode_withdraws_and_publishes_in_the_new_mode() -> None:
    world = two_gone()
    world.policy("all", mode="DryRun")
    world.run(1.5)
    [cleanup] = world.written.objects.values()
    assert cleanup.mode == "DryRun"
    assert [verb for verb, _, _ in world.written.log] == ["create", "delete", "create"]


def test_what_waited_for_its_turn_is_not_published_in_the_former_mode() -> None:
    for mode in ("DryRun", "Disabled"):
        world = World().ready()
        ips = [f"10.1.{number // 250}.{number % 250}" for number in range(4000)]
        for at in range(0, 4000, 100):
            world.slice(f"big-{at}", "web", *ips[at : at + 100])
        world.run(1.0)
        for at in range(0, 4000, 100):
            world.no_slice(f"big-{at}")
        world.run(0.6)
        assert world.written.objects
        world.policy("all", mode=mode)
        world.run(1.5)
        assert Mode.ENFORCE not in {one.mode for one in world.written.objects.values()}


def test_a_cleanup_that_shows_up_after_its_policy_changed_is_withdrawn() -> None:
    world = two_gone()
    [late] = world.written.objects.values()
    world.policy("all", mode="Disabled")
    world.run(0.5)
    body = cleanup_to_wire(late, namespace="ns")  # created, but the answer was lost
    body["metadata"] |= {"uid": "c", "creationTimestamp": "2025-10-09T08:53:20Z"}
    world.written.objects[late.name] = late
    world.ledger.fold(Added(body=body, server_time=EPOCH))
    world.run(2.5)
    assert world.written.objects == {}


def test_a_refused_withdrawal_does_not_hold_up_revocations() -> None:
    world = two_gone()
    world.policy("other", priority=5, serviceSelector={"matchLabels": {"app": "other"}})
    world.service("other", "10.96.0.11", labels={"app": "other"})
    world.slice("other-1", "other", "10.0.1.1")
    world.run(1.0)
    world.no_slice("other-1")
    world.run(1.0)
    world.written.trouble["delete"] = ApiRefused(
        status=403, reason="Forbidden", message="no", fields=()
    )
    world.no_policy("other")
    world.slice("web-1", "web", "10.0.0.1")
    world.run(1.0)
    assert "10.0.0.1" not in world.written.backends()
    assert world.counted("api_write_failures_total", result="refused") >= 1


def test_disabling_or_deleting_the_policy_withdraws_at_once() -> None:
    for stop in (World.no_policy, lambda world, name: world.policy(name, mode="Disabled")):
        world = two_gone()
        stop(world, "all")
        world.run(0.0)
        assert world.written.objects == {}
        world.run(5.0)
        assert world.written.objects == {}


def test_an_invalid_policy_keeps_its_last_good_behaviour() -> None:
    world = two_gone()
    world.policy("all", mode="Whatever")
    world.run(2.0)
    assert world.written.backends() == {"10.0.0.1", "10.0.0.2"}
    [seen] = world.view.seen_policies()
    assert seen.invalid is not None
    assert seen.invalid.field == "spec.mode"
    assert seen.good is not None


def test_a_changed_label_moves_a_service_to_another_policy_within_2_s() -> None:
    world = two_gone()
    world.policy(
        "hands-off", priority=9, mode="Disabled", serviceSelector={"matchLabels": {"a": "b"}}
    )
    world.run(1.0)
    assert world.written.objects
    world.service("web", "10.96.0.10", labels={"a": "b"})
    world.run(2.0)
    assert world.written.objects == {}


def test_a_new_controller_revokes_what_came_back_meanwhile() -> None:
    before = two_gone()
    [cleanup] = before.written.objects.values()
    body = cleanup_to_wire(cleanup, namespace="ns")
    body["metadata"] |= {"uid": "c", "creationTimestamp": "2025-10-09T08:53:20Z"}
    world = World()
    world.written.objects[cleanup.name] = cleanup
    world.ledger.fold(Listed(items=(body,), vanished=(), server_time=EPOCH))
    world.ready()
    assert world.written.objects == {}


def test_cleanups_are_tidied_up_when_their_time_is_over() -> None:
    world = two_gone()
    world.run(299.0)
    assert world.written.times("delete") == []
    world.run(3.0)
    assert len(world.written.times("delete")) == 1
    assert world.ledger.live() == ()
