"""From the change log to the channel layer.

One leader per database reads the log, turns changes into messages and sends them; standbys wait for its lock.
"""
