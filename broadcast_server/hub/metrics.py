"""What a hub counts, as Prometheus reads it at ``/metrics``.

Nothing is counted here. Readers, backplane and fan-out count what they do anyway; at each request
the hub's collector reads those numbers, on the thread of the client that asks. So a metric costs
nothing until somebody looks, and then a few microseconds for each room.

Each start of a hub has a registry of its own: two hubs in one process do not mix, and the global
one of ``prometheus_client`` is left to the program. The library is imported at the first request.
No label has values that clients could make up: there are no names of rooms, and close codes of
clients' own are counted together. docs/reference/metrics.md lists everything; a test holds it to
what a hub exports.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .core import Core, Counts
from .delivery.fanout import PASS_SECONDS
from .rooms import encodings

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# Close codes with a label of their own (RFC 6455 §7.4.1, IANA's registry), at 0 from the start: so
# the first of a kind is an increase already. Clients may choose from 2,000 more.
CLOSE_CODES = (
    1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
)  # fmt: skip
OTHER_CODE = "other"

# What `Core.count_refusal` is called with; the same holds for them.
REFUSALS = (
    "bad_request", "busy", "control_rate", "filter", "forwarded", "handshake_slots", "host",
    "key_reused", "max_clients", "max_fragments", "max_header_bytes", "max_rooms", "no_thread",
    "origin", "per_address", "rate", "rooms_per_address", "stopping", "timeout", "tls", "token",
    "too_big",
)  # fmt: skip


class MetricsMissing(Exception):
    """The library that writes metrics is not installed."""


def expose(core: Core, accept: str) -> tuple[bytes, str]:
    """Return a hub's metrics and their media type.

    Any thread. No lock is held but for the moment in which a number is read.

    Args:
        core: the hub's parts.
        accept: the request's ``Accept``: OpenMetrics for whoever asks for it, else the text format.

    Raises:
        MetricsMissing: there is no prometheus_client.
    """
    try:
        from prometheus_client import exposition, process_collector, registry
    except ImportError as error:
        text = "there are no metrics: prometheus-client is not installed where the hub runs"
        raise MetricsMissing(text) from error
    if core.registry is None:
        # Of two requests at the same moment each makes one, and either is as good.
        made = registry.CollectorRegistry()
        made.register(HubCollector(core))
        # Descriptors and memory are what a hub with a thread for each client runs out of first.
        process_collector.ProcessCollector(registry=made)
        core.registry = made
    try:
        encode, content_type = exposition.choose_encoder(accept)
    except (TypeError, ValueError):
        # It compares versions without looking whether they are numbers.
        encode, content_type = exposition.choose_encoder("")
    return encode(core.registry), content_type


class HubCollector:
    """Reads the numbers of one hub. Any thread.

    Args:
        core: the hub's parts.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its present value."""
        yield from self._present()
        counts = self._core.counts()
        yield from self._messages(counts)
        yield from self._connections(counts)
        yield from self._fanout()

    def _present(self) -> Iterator[Metric]:
        core = self._core
        settings = core.settings
        sizes = [room.sizes() for room in core.rooms.all()]
        yield _gauge("clients", "Clients now.", core.client_count())
        yield _gauge("clients_limit", "Clients that there may be.", settings.max_clients)
        yield _gauge("rooms", "Rooms now, also those of which only messages are held.", len(sizes))
        yield _gauge("rooms_limit", "Rooms that there may be.", settings.max_rooms)
        yield _gauge(
            "log_bytes", "What the logs of all rooms hold.", sum(held for held, _ in sizes), "bytes"
        )
        yield _gauge(
            "log_limit_bytes", "What they may hold.", settings.total_log_bytes, unit="bytes"
        )
        yield _gauge(
            "fanout_lag_bytes",
            "Bytes of messages that the fan-out has not offered to anybody yet.",
            sum(lag for _, lag in sizes),
            "bytes",
        )
        yield _gauge(
            "fanout_lag_max_bytes",
            "The same of the room that has most of them.",
            max((lag for _, lag in sizes), default=0),
            "bytes",
        )

    def _messages(self, counts: Counts) -> Iterator[Metric]:
        core = self._core
        writer = core.fanout.writer
        backplane = core.backplane
        yield _counter("messages", "Messages accepted.", backplane.messages)
        yield _counter("duplicates", "Messages sent again with a known key.", backplane.duplicates)
        yield _counter(
            "received_bytes", "Bytes of the frames of messages taken.", counts.bytes_in, "bytes"
        )
        encodes = {form.name: writer.encodes[form] for form in encodings.ALL}
        encodes[encodings.RAW.name] = counts.encodes
        yield _labelled("encodes", "Messages made into a form.", "form", encodes.items())
        yield _counter("deliveries", "Messages sent whole to a client.", writer.deliveries)
        yield _counter("sent_bytes", "Bytes sent to clients.", writer.bytes_out, "bytes")
        yield _counter("sends", "Calls to the kernel that sent to a client.", writer.sends)

    def _connections(self, counts: Counts) -> Iterator[Metric]:
        ended = dict.fromkeys((*map(str, CLOSE_CODES), OTHER_CODE), 0)
        for code, count in counts.ended.items():
            ended[str(code) if code in CLOSE_CODES else OTHER_CODE] += count
        yield _labelled("disconnects", "Clients gone, by close code.", "code", ended.items())
        yield _counter(
            "evictions",
            "Clients ended for not doing their part.",
            self._core.fanout.writer.evictions,
        )
        refused = dict.fromkeys(REFUSALS, 0) | counts.refused
        yield _labelled("refusals", "Requests and messages refused.", "reason", refused.items())

    def _fanout(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import HistogramMetricFamily

        fanout = self._core.fanout
        # The sum first: its passes are in what is counted then.
        seconds = fanout.pass_seconds
        bounds = [*map(str, PASS_SECONDS), "+Inf"]
        yield HistogramMetricFamily(
            "broadcast_fanout_pass_seconds",
            "How long it took to offer a batch to all clients of a room.",
            list(zip(bounds, itertools.accumulate(list(fanout.passes)), strict=True)),
            seconds,
            unit="seconds",
        )


def _gauge(name: str, text: str, value: float, unit: str = "") -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    return GaugeMetricFamily(f"broadcast_{name}", text, value, unit=unit)


def _counter(name: str, text: str, value: float, unit: str = "") -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily

    return CounterMetricFamily(f"broadcast_{name}", text, value, unit=unit)


def _labelled(name: str, text: str, label: str, values: Iterable[tuple[str, int]]) -> Any:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(f"broadcast_{name}", text, labels=(label,))
    for value, count in values:
        family.add_metric((value,), count)
    return family
