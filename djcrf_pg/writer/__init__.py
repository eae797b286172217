"""What a writer can say about its changes: the context they carry, and that nobody is to receive them."""
