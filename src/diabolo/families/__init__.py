"""One file per member of the family: its network and its face."""
