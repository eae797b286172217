"""Changes to events: who is told of a change, with which instances, groups and bodies. User code runs here."""
