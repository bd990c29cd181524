"""The scenario file: schema, units, loading, and the bundled files.  Read `schema.py` for what may stand in one."""

import os

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them reads every installed distribution
