"""Accounts: API keys, tenants, plans, monthly quotas, rates and usage. No gRPC and no SQL.

    keys            format of API keys: made, read, compared
    plans           what tenants may use, from a TOML file
    months          UTC calendar months and days
    keyring         every live key in memory, brought up to date from the database
    peers           failed attempts by peer address
    lease           arithmetic of leased units, and the units that one gateway holds of one tenant
    quotas          monthly quotas, spent from leases
    rates           token buckets
    places          calls and streams at once by tenant
    usage           calls, images, seconds of video and failures, counted in memory and written in batches
    gate            use case: a call with a key to an account with a place, a rate and a unit of its quota
    administration  use case: tenants and keys are made, changed and removed

It may import `store`, `telemetry`, `core` and `errors`.
"""
