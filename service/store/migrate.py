"""Brings the schema up to date, with Alembic. Plain functions on a connection; locks and
transactions are the caller's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

VERSION_TABLE = "posegate_schema"  # not Alembic's usual name: the database may hold other applications


class SchemaTooNew(Exception):
    """A later version of the gateway has migrated the database."""


def is_current(connection: Connection) -> bool:
    """Whether the schema is the newest this gateway knows.

    Raises:
        SchemaTooNew: it is one that this gateway does not know.
    """
    scripts = ScriptDirectory.from_config(_config())
    options = {"version_table": VERSION_TABLE}
    heads = MigrationContext.configure(connection, opts=options).get_current_heads()
    unknown = set(heads) - {script.revision for script in scripts.walk_revisions()}
    if unknown:
        raise SchemaTooNew(f"the schema is at {', '.join(sorted(unknown))}, which this version does not know")
    return set(heads) == set(scripts.get_heads())


def upgrade(connection: Connection) -> None:
    """Run every migration that is missing, in the connection's transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["version_table"] = VERSION_TABLE
    return config
