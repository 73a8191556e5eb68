"""Schema migrations, run by the gateway itself.

A new one is a file in versions/ named after what it does; it names its predecessor in
`down_revision`. A gateway of the version before must be able to work on the new schema: add first,
remove a release later.
"""
