"""The gateway: the map of its packages, one rank a block.

    cli/         commands of `posegate`: run the gateway, or call it; one file a command

    server/      app (`build_gateway`, the only wiring of concrete classes), lifecycle (signals, drain),
                 interceptors (request id, errors to status codes, one log line a call), admission (calls and
                 bytes in flight), bounds (of request fields), accounts (API keys and plans), health, tls
    web/         the HTTP door and its page: a process of its own, a client of the gateway like any other
    models/      offline tools: checkpoints to graphs to TensorRT engines; `verify` before Triton starts

    servicers/   the RPC methods; requests/ (messages to domain), responses/ (domain to messages)

    pipeline/    use cases: estimator (image to persons) with preparation (file to tensor) and second_stage,
                 scheduler (slots at the model), stream_limiter (videos and streams at once, and their
                 memory), limits, angles, render, export, video/, stream, sequence_analyzer
    accounts/    use cases: API keys, plans, monthly quotas (the quota check), rates, usage; administration
    evaluation/  accuracy of a model on annotated images, judged by pycocotools: sets, AP, intervals

    triton/      client (also: Triton's errors as ours, such as a full queue with its retry hint),
                 model_config (the tensor contract), catalog, shared_memory; of the bundled Triton: process,
                 launch (how it is started), logs, cleanup
    media/       image (header check before decoding), download (`image.uri`), container_probe, spool,
                 reading and writing video, walks (lost parts of a container that FFmpeg passes over)
    store/       custom skeletons, tenants, API keys, quotas and usage in SQLite or PostgreSQL: tables,
                 migrations, repositories
    skeletons/   the templates that ship, as JSON

    telemetry/   call context, metrics, traces, logs

    client       the channel that callers should open
    settings     POSEGATE_* environment variables, with defaults and ranges
    message_fields  fields of messages as JSON values, for the commands and the HTTP door

    core/        pure functions of arrays: poses, geometry, yolo, topdown, skeleton/, sequence/ (tracking,
                 smoothing, range of motion), drawing/, export/, angles/ (definitions: the sign convention of
                 all angles; specs: each measurement, such as knee flexion)

    errors       everything that is refused or fails, with its reasons; no gRPC

A rank imports the ranks below it; packages of one rank do not import one another. import-linter keeps it so
(pyproject.toml), and a new package has to be given its rank there. Third parties are confined too:
tritonclient to `triton`, SQLAlchemy and database drivers to `store`, FFmpeg and Pillow to `media`,
OpenTelemetry and Prometheus to `telemetry`; `accounts`, `core`, `media`, `pipeline`, `skeletons` and `store`
know no gRPC and no protobuf.
"""
