"""The gateway: a gRPC service for human pose estimation in front of NVIDIA Triton.

    __main__, cli/     `posegate`: runs the gateway, calls it, builds models; one command a file
    server/            the only wiring (app: build_gateway), life cycle and drain, interceptors, admission
                       of unary calls, health, TLS
    web/               the HTTP door: a process of its own, a client of the gateway like any other
    models/            checkpoints to graphs to engines; a tool that is not used while serving
    servicers/         RPC methods; requests/ (protobuf to domain), responses/ (domain to protobuf,
                       errors to statuses)
    pipeline/          use cases: estimator (image to persons), scheduler (slots at the model), angles,
                       render, export, stream, stream_limiter (streams at once), video/; limits
    accounts/          tenants, keys, plans and quotas; no gRPC, no SQL
    triton/            the only importer of tritonclient: client, catalog of models, shared memory;
                       process, launch, logs and cleanup of the bundled server
    media/             bytes to images and back: image (header check, decoding), download, videos
    store/             the only importer of SQLAlchemy: tables, migrations, custom skeletons
    skeletons/         skeleton templates that ship, as JSON
    telemetry/         call context, metrics, traces, logs
    client             the channel that callers should open
    settings           every environment variable POSEGATE_*
    core/              pure functions of arrays: poses, geometry, yolo, topdown, model; skeleton/,
                       angles/ (measurements and their sign conventions), drawing/, sequence/, export/
    errors             every error that a caller may see, and its reasons

Imports run downwards only, and packages of one rank do not import one another. Of one rank are server, web
and models; pipeline and accounts; triton, media, store and skeletons; client and settings. The contracts in
pyproject.toml enforce that.
"""
