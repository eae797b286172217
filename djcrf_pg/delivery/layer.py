"""The channel layer that events travel through: the project's default one, as it is DCRF's."""

from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer
from django.utils.module_loading import import_string

from djcrf_pg.exceptions import ChannelLayerError
from djcrf_pg.observations import LayerFailed, cause_of, emit
from djcrf_pg.pages import see

try:
    from channels_redis.core import RedisChannelLayer
    from channels_redis.pubsub import RedisPubSubChannelLayer
except ImportError:  # an extra
    RedisChannelLayer = RedisPubSubChannelLayer = ()

#: Seconds that it has for one message. One that it took all the same comes twice, with one number.
PATIENCE = 4.0


def channel_layer() -> Any:
    """The project's default channel layer.

    Raises:
        ChannelLayerError: None is configured, or it cannot be made.
    """
    try:
        layer = get_channel_layer()
    except (InvalidChannelLayerError, ImportError, TypeError, ValueError) as error:
        raise ChannelLayerError(
            f"CHANNEL_LAYERS['default'] cannot be made ({cause_of(error)}): correct its BACKEND and CONFIG. "
            f"channels_redis.core.RedisChannelLayer needs `pip install 'djcrf_pg[redis]'`, and takes a CONFIG of "
            f"{{'hosts': ['redis://localhost:6379']}}."
        ) from error
    if layer is None:
        raise ChannelLayerError(
            "No channel layer: events travel through it. Set CHANNEL_LAYERS['default'] in the settings, to "
            "channels_redis.core.RedisChannelLayer, or for a single process to channels.layers.InMemoryChannelLayer."
        )
    return layer


def is_in_memory(layer: Any) -> bool:
    """Whether a layer reaches the consumers of its own process alone."""
    return isinstance(layer, InMemoryChannelLayer)


def describe(layer: Any) -> str:
    """The class of a layer, and where its hosts are, without passwords."""
    # Not by getattr: that of the pubsub layer wants a loop.
    known = getattr(layer, "__dict__", {})
    hosts = known.get("hosts") or known.get("_kwargs", {}).get("hosts")
    places = [place for host in hosts if (place := _place_of(host))] if isinstance(hosts, list | tuple) else []
    return type(layer).__name__ + (f" at {', '.join(places)}" if places else "")


def _place_of(host: Any) -> str:
    """What can be said of where a host of a layer of channels_redis is."""
    if isinstance(host, dict):
        sentinels = host.get("sentinels")
        if isinstance(sentinels, list | tuple):
            return f"{host.get('master_name')} by {', '.join(map(_place_of, sentinels))}"
        address = host.get("address") or ":".join(str(host[key]) for key in ("host", "port") if key in host)
        return _place_of(address or str(host.get("path") or ""))
    if isinstance(host, tuple | list):
        return ":".join(map(str, host))
    # Of a URL, the user's part and the query may have a password.
    return str(host).partition("?")[0].rpartition("@")[2].rpartition("://")[2]


def how_to_fix(layer: Any, why: str) -> str:
    """Say of a layer what it does instead of working, and what fixes that.

    Args:
        layer: The layer.
        why: A verb and more, such as ``fails (…)``.
    """
    return (
        f"{describe(layer)} {why}: start its server, or correct CHANNEL_LAYERS. "
        f"{see('how-to/run-in-production.md#take-a-channel-layer-that-reaches-other-processes')}"
    )


def report_failure(error: Exception, delay: float) -> None:
    """Say that the default layer took no message.

    Args:
        error: What it raised.
        delay: Seconds until it is tried again.
    """
    emit(LayerFailed(layer=describe(channel_layer()), error=cause_of(error), delay=delay))


def receiving_layer(*, anew: bool = False) -> Any:
    """A layer to receive on beside the consumers of this process.

    With channels_redis's ``core`` it is an object of its own: all channels that one object has made are received under
    one lock and share one queue in Redis, and a receive that is cancelled with its consumer loses what it has taken off
    that queue. Whatever its class, it reaches what the default layer reaches.

    Args:
        anew: Have connections of its own with ``pubsub`` too: nothing comes through those that there are.

    Raises:
        ChannelLayerError: None is configured.
    """
    layer = channel_layer()
    if isinstance(layer, RedisChannelLayer) or (anew and isinstance(layer, RedisPubSubChannelLayer)):
        config = channel_layers.configs.get(DEFAULT_CHANNEL_LAYER)
        if config is not None and import_string(config["BACKEND"]) is type(layer):
            return channel_layers.make_backend(DEFAULT_CHANNEL_LAYER)
    return layer


async def close(layer: Any) -> None:
    """Close the connections of a layer, if it is one that :func:`receiving_layer` has made.

    Args:
        layer: The layer.
    """
    if layer is channel_layer():
        return
    if isinstance(layer, RedisPubSubChannelLayer):
        await layer.flush()
    else:
        await layer.close_pools()
