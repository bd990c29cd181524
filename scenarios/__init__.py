"""The scenario file: schema, units, loading, and the bundled files.  Read `schema.py` for what may stand in one."""
