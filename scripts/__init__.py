"""What developers and CI run (README.md lists it). May import: `service`, which never imports it."""
