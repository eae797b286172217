"""The tests of djcrf_pg; `servers` starts what they run against."""
