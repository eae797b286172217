"""From the leader to the consumers: both ends of the wire."""
