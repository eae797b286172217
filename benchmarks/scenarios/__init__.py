"""One module for each scenario, with ``run(bench)``; :data:`ALL` is their order."""

ALL = (
    "write_one",
    "write_concurrent",
    "write_bulk",
    "latency",
    "throughput",
    "own_groups",
    "bulk_delivery",
    "fan_out",
    "many_clients",
    "churn",
    "unwanted",
    "far_redis",
    "subscribe",
    "memory",
    "backlog",
    "growth",
    "idle",
)
