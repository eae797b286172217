"""Shadow mode: DCRF's signals deliver, triggers capture beside them, and the leader says where the two differ.

What signals have sent is noted by the process that sent it (:mod:`.recorder`), what triggers would have sent by the
leader (:mod:`.comparison`), both in ``djcrf_pg_shadow_message``. There they are matched: by observer, row and content,
and what is left over some seconds later is a difference (:mod:`.differences`). No transaction is asked for its id on
the way: that would be one more query in each of the project's transactions, and in some of its tests one too many.
"""
