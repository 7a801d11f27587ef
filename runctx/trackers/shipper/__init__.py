"""Who keeps the views of runs up to date while they go on? One process outside the user's, for all runs of a project.

`spool` is what the user's process does: it announces a run, and starts a shipper if there is none. All else happens
in the shipper: `process` follows the runs that were announced, `delivery` brings them to a tracker, and `system` looks
at the machine for them.
"""
