"""Changes to events: who receives a change, with which instances, groups and bodies. User code runs here."""
