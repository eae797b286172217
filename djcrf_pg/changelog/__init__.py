"""Reading the change log: windows between snapshots, net effect, row images to instances."""
