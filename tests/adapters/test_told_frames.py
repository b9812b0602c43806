"""The frames of an outcome as pamqp, which did not write them, reads them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.adapters.rabbitmq.told_frames import ToldFrames
from notifier.domain.outcome_event import ClientTold, State, dump_told

_names = st.text(st.characters(codec="utf-8"), max_size=60)


def read(payload: bytes) -> list[Any]:
    """All frames of it, each for channel 7."""
    found = []
    while payload:
        size, channel, one = frame.unmarshal(payload)
        assert channel == 7
        found.append(one)
        payload = payload[size:]
    return found


@given(iss=_names, client_id=_names, most=st.integers(1, 500))
def test_they_say_what_is_meant(iss: str, client_id: str, most: int) -> None:
    """The method, the properties, and the body in frames of the agreed size."""
    told = ClientTold(id="5dc7ee53", at=0.0, state=State.FAILING, iss=iss, client_id=client_id)
    method, header, *bodies = read(ToldFrames(7, "n.outcomes", "/notifier/n", most).of(told))
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == ("n.outcomes", "client.failing", False)
    assert isinstance(header, ContentHeader)
    assert header.properties.headers == {"iss": iss, "client_id": client_id, "event_id": ""}
    assert header.properties.content_type == "application/cloudevents+json"
    assert (header.properties.delivery_mode, header.properties.message_id) == (2, "5dc7ee53")
    assert all(isinstance(one, ContentBody) and len(one) <= most for one in bodies)
    body = b"".join(one.value for one in bodies)
    assert body == dump_told(told, "/notifier/n")
    assert header.body_size == len(body)
