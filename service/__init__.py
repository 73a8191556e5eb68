"""The gateway: the map of its packages, one rank a block.

    cli/         commands of `posegate`: run the gateway, or call it; one file a command

    server/      app (the only wiring of concrete classes), interceptors (request id; admission: calls and
                 bytes in flight; errors to status codes; one log line a call), health, tls, malloc
    models/      offline tools: checkpoints to graphs to TensorRT engines; `verify` before Triton starts

    servicers/   the RPC methods; requests/ (messages to domain), responses/ (domain to messages)

    pipeline/    use cases: estimator (image to persons), scheduler (slots at the model), stream_limiter
                 (videos and streams at once, and their memory), video/, stream, sequence_analyzer, tracking

    triton/      client (also: Triton's errors as ours, such as a full queue with its retry hint),
                 model_config (the tensor contract), catalog, shared_memory; of the bundled Triton: process,
                 launch (how it is started), logs, cleanup
    media/       image (header check before decoding), download (`image.uri`), container_probe, spool,
                 reading and writing video
    store/       custom skeletons in SQLite or PostgreSQL: tables, migrations, cache
    skeletons/   the templates that ship, as JSON

    telemetry/   call context, metrics, traces, logs

    client       the channel that callers should open
    settings     POSEGATE_* environment variables, with defaults and ranges

    core/        pure functions of arrays: poses, geometry, yolo, topdown, skeleton/, sequence/, drawing/,
                 export/, angles/ (definitions: the sign convention; specs: each measurement)

    errors       everything that is refused or fails, with its reasons; no gRPC

A rank imports the ranks below it; packages of one rank do not import one another. import-linter keeps it so
(pyproject.toml), and a new package has to be given its rank there. Third parties are confined too:
tritonclient to `triton`, SQLAlchemy and database drivers to `store`, FFmpeg and Pillow to `media`,
OpenTelemetry and Prometheus to `telemetry`; `core`, `media`, `pipeline`, `skeletons` and `store` know no gRPC
and no protobuf.
"""
