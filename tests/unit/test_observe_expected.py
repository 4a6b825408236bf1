"""What is expected of a packet on the way that it took: a prediction cut down to the nodes that it passed."""

from __future__ import annotations

from netemu.observe.predict import Ending, Outcome, Prediction, Step
from netemu.observe.reasons import Reason
from netemu.observe.story.expected import Expected, expected_of
from tests.unit.trace_scene import CLIENT, SERVICE, VIP, WEB, names, objects

HERE, THERE = "10.244.1.9:8080", f"{WEB}:8080"


def judged(node: str, verdict: str = "dnat", reason: Reason = Reason.TRANSLATED) -> Step:
    return Step(node, verdict, reason, f"{node} says {verdict}")


def answer(endpoint: str, *steps: Step, sees: str = CLIENT) -> Ending:
    return Ending(Outcome.ANSWERED, Reason.TRANSLATED, "", endpoint, "", sees, steps)


def expected(*endings: Ending, passed: tuple[str, ...] = ("node/worker-1",), port: int = 80) -> Expected:
    prediction = Prediction("shop/client", VIP, port, "TCP", CLIENT, endings)
    return expected_of(prediction, passed, names(), objects())


def test_any_endpoint_of_the_node_that_decides_will_do() -> None:
    found = expected(answer(HERE, judged("worker-1")), answer(THERE, judged("worker-1"), judged("worker-2", "none")))

    assert (found.verdict, found.node, found.endpoints) == ("dnat", "worker-1", frozenset({HERE, THERE}))
    assert found.sources == {(HERE, CLIENT), (THERE, CLIENT)}
    assert (found.service, found.port, found.via) == (SERVICE, SERVICE.spec.ports[0], "cluster IP")


def test_of_the_nodes_behind_a_load_balancer_the_one_that_was_passed_counts() -> None:
    drop = Ending(Outcome.DROPPED, Reason.NO_LOCAL_ENDPOINT, "no endpoint here", steps=(judged("worker-1", "drop"),))
    endings = (answer(THERE, judged("worker-2")), drop)

    assert expected(*endings, passed=("underlay", "node/worker-2")).endpoints == {THERE}
    lonely = expected(*endings, passed=("underlay", "node/worker-1"))
    assert (lonely.verdict, lonely.reason, lonely.node) == ("drop", Reason.NO_LOCAL_ENDPOINT, "worker-1")


def test_what_meets_no_service_is_sent_straight_on() -> None:
    found = expected(
        Ending(Outcome.ANSWERED, Reason.DIRECT, "", THERE, source=CLIENT, steps=(judged("worker-1", "none"),))
    )

    assert (found.verdict, found.node, found.endpoints) == ("direct", "worker-1", frozenset({THERE}))


def test_a_port_that_the_service_does_not_have_leaves_the_service_known() -> None:
    end = Ending(Outcome.UNREACHABLE, Reason.NO_ROUTE, "no route", steps=(judged("worker-1", "none"),))
    found = expected(end, port=81)

    assert (found.verdict, found.service, found.port) == ("unreachable", SERVICE, None)
