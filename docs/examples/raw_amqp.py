"""The same without oslo.messaging, as any AMQP 0-9-1 library can: raw_amqp.py BROKER:PORT HOST

This one is py-amqp; the frames are the same from Go, Java or Erlang.
"""

import json
import sys
import uuid

import amqp

EXCHANGE, TOPIC = "attachment_agent", "attachment-agent-control"
address, host = sys.argv[1:]


def call(channel: amqp.Channel, method: str, arguments: dict, seconds: float) -> dict:
    """One RPC call. Raises socket.timeout without an answer: then ask again."""
    answers = []
    reply_queue = f"reply_{uuid.uuid4().hex}"
    channel.queue_declare(reply_queue, exclusive=True)
    channel.basic_consume(reply_queue, callback=answers.append, no_ack=True)
    message = {
        "method": method,
        "args": arguments,
        "version": "1.0",
        "_msg_id": uuid.uuid4().hex,  # names this call in its answer
        "_reply_q": reply_queue,
        "_unique_id": uuid.uuid4().hex,  # the agent drops a second message with the same one
    }
    envelope = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    channel.basic_publish(
        amqp.Message(
            json.dumps(envelope),
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            expiration=f"{int(seconds * 1000)}",
        ),
        exchange=EXCHANGE,
        routing_key=f"{TOPIC}.{host}",
        mandatory=True,  # returned where no agent of that name has ever listened
    )
    while True:
        while not answers:
            channel.connection.drain_events(timeout=seconds)
        answer = json.loads(json.loads(answers.pop().body)["oslo.message"])
        if answer["failure"]:  # an unknown method or version, nothing else
            raise RuntimeError(json.loads(answer["failure"])["message"])
        if answer["ending"]:  # else: it lives and works at it (call monitor)
            return answer["result"]


with amqp.Connection(address, userid="guest", password="guest") as connection:
    print(json.dumps(call(connection.channel(), "ping", {}, seconds=10)))
