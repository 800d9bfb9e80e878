"""``make bundle``: one folder that installs everything on a machine without a network."""
