"""The whole way: real writers, a real PostgreSQL, a real listener, a real WebSocket."""
