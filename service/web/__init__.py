"""The HTTP door: a process of its own that answers HTTP calls by calling the gateway over gRPC.

It is a client of the gateway like any other and may import `posegate` (protos), `service.client`,
`service.settings` and `service.errors`, and nothing else of the service.

    settings       POSEGATE_WEB_*
    app            the only wiring: routes, middleware, the connection to the gateway
    server         uvicorn with the limits of `connection`
    connection     limits below HTTP: slow headers, large headers, callers who leave
    middleware     request ids, admission, errors to problem documents, one log line a request
    problems       RFC 9457 problem documents and how gRPC statuses become them
    gateway        calls to the gateway: metadata, deadlines, quota headers
    body, form     request bodies while they stream in; forms, JSON and bare images
    fields         options of a call, with every wrong one reported at once
    answers        messages of the contract as JSON
    pose, detect, videos, infer, skeletons, stream, info     the calls
    openapi, docs, page/     the description of the API and the page
"""
