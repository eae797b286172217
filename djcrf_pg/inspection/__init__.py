"""The change log for people: what is in it, and whom a change went to. Whatever reads here reads only."""
