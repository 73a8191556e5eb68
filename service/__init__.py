"""The gateway.

    cli, up, commands     the command line: run the gateway, or call it
    server                the composition root: names every concrete class, drains on SIGTERM
    interceptors          request id, admission, errors to status codes, one log line per call
    servicers/            messages to domain and back
    health                watches Triton; grpc.health.v1
    estimator             the use case: a picture to the people in it
    certificates          the gateway's certificate: checked, and reloaded when its files change
    catalog               the models that Triton serves
    triton                the only importer of tritonclient
    embedded              the bundled tritonserver for `posegate up`, demo and tests
    media/                bytes to pictures and back
    skeletons/            the templates that ship
    status, client        errors as google.rpc.Status; the channel that callers should open
    settings, logging, memory, shared_memory
    core/                 pure functions of arrays
    errors                what is refused or fails, in the domain's words

Imports run downwards only, and rows of one rank do not import one another; the contracts in
pyproject.toml hold that.
"""
