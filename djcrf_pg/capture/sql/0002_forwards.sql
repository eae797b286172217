-- What groups, serializers and handlers have failed on. A migration references this file: it is frozen once released.

CREATE TABLE /* :schema */djcrf_pg_failure (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The observer's identity, and the same as its messages have it.
    observer text NOT NULL,
    address text NOT NULL,
    -- groups, serializer or handler.
    part text NOT NULL,
    model text NOT NULL,
    -- The key's fields as a JSON list of texts; an empty text stands for the rows of an observer that are more than are
    -- kept.
    pk text NOT NULL,
    change_id bigint NOT NULL,
    error text NOT NULL,
    traceback text NOT NULL,
    times bigint NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Whether the subscribers have had their resync.
    told boolean NOT NULL DEFAULT false,
    -- Whether somebody has asked the leader to send the row again.
    retry boolean NOT NULL DEFAULT false,
    UNIQUE (address, part, pk)
);

REVOKE ALL ON TABLE /* :schema */djcrf_pg_failure FROM PUBLIC;
