"""What the gateway keeps, in SQLite or PostgreSQL: custom skeletons, tenants, API keys, quotas and
usage. The only package that imports SQLAlchemy, Alembic and the drivers.

    address     POSEGATE_DATABASE_URL, parsed
    engine      connections: the differences of SQLite and PostgreSQL
    database    read and write transactions, made ready on first use, with a time limit
    failures    the drivers' errors as the domain's
    schema      the tables
    migrations  how the tables came to be (Alembic), run at start under a lock
    skeletons   SkeletonStore: list, get, create, update, delete
    cache       SkeletonCache: what detection asks
    tenants     TenantStore: tenants and API keys, and what of them changed
    quotas      QuotaStore: units of monthly quotas that gateways have taken
    usage       UsageStore: calls, images, seconds of video and failures by tenant, day and RPC
"""
