"""Generated parts of the Helm chart: the compiled contract for Envoy, and the names of the settings.

python -m scripts.chart            # writes helm/posegate/files/posegate.binpb and the settings in its schema
python -m scripts.chart --check    # fails where they have drifted
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import google.rpc.status_pb2
from grpc_tools import protoc
from pydantic_settings import BaseSettings

from service.settings import Settings
from service.web.settings import WebSettings

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "posegate"
DESCRIPTOR = CHART / "files" / "posegate.binpb"
SCHEMA = CHART / "values.schema.json"

# What the chart sets itself, from values of its own or because the image says where.
OF_THE_CHART = frozenset(
    {
        "AUTH", "AUTH_PLAINTEXT", "PLANS",
        "LISTEN", "HEALTH_LISTEN", "METRICS_LISTEN", "TRITON_URL", "TRITON_SHARED_MEMORY", "DEFAULT_MODEL",
        "DRAIN_GRACE_S", "TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "DATABASE_URL", "MODEL_REPOSITORY", "HOME",
        "SKELETONS", "VIDEO_SPOOL", "MAX_SPOOL_BYTES",
    }
)  # fmt: skip


OF_THE_CHART_FOR_THE_DOOR = frozenset(
    {"LISTEN", "GATEWAY", "GATEWAY_TLS", "GATEWAY_CA", "GATEWAY_CERT", "GATEWAY_KEY", "DRAIN_GRACE_S"}
)


def descriptor() -> bytes:
    """The contract and all that it imports, as a FileDescriptorSet without comments."""
    common = Path(google.rpc.status_pb2.__file__).parents[2]
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set.binpb"
        files = sorted(
            str(path.relative_to(ROOT / "protos")) for path in ROOT.glob("protos/posegate/v1/*.proto")
        )
        files.append("google/rpc/error_details.proto")  # no proto imports it, and errors as JSON need it
        paths = [f"-I{path}" for path in (ROOT / "protos", common, well_known)]
        arguments = ["protoc", *paths, "--include_imports", f"--descriptor_set_out={target}", *files]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        return target.read_bytes()


def schema() -> str:
    """The chart's schema of values, with the settings that the gateway and the HTTP door know."""
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    document["definitions"]["settings"]["properties"] = _settings(Settings, OF_THE_CHART)
    document["definitions"]["webSettings"]["properties"] = _settings(WebSettings, OF_THE_CHART_FOR_THE_DOOR)
    return json.dumps(document, indent=2) + "\n"


def _settings(kind: type[BaseSettings], of_the_chart: frozenset[str]) -> dict[str, Any]:
    """A type for each; the gateway checks the ranges when it starts."""
    properties: dict[str, Any] = {}
    described = kind.model_json_schema()
    for name, field in sorted(described["properties"].items()):
        if name.upper() in of_the_chart or field.get("format") == "password":
            continue
        if reference := field.get("$ref"):  # a group: POSEGATE_GROUP__NAME
            group = described["$defs"][reference.rpartition("/")[2]]
            for inner, member in sorted(group["properties"].items()):
                properties[f"{name}__{inner}".upper()] = _kind(member)
        else:
            properties[name.upper()] = _kind(field)
    return properties


def _kind(field: dict[str, Any]) -> dict[str, Any]:
    if "enum" in field:
        return {"enum": field["enum"]}
    if field.get("type") == "number":  # what `helm --set` makes of 1.5 is a text
        return {"type": ["number", "string"], "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
    return {"type": field["type"]} if field.get("type") in ("boolean", "integer", "string") else {}


def main() -> int:
    """Write or check."""
    wanted = {DESCRIPTOR: descriptor(), SCHEMA: schema().encode("utf-8")}
    drifted = [path for path, text in wanted.items() if not path.is_file() or path.read_bytes() != text]
    if "--check" in sys.argv:
        for path in drifted:
            print(f"{path.relative_to(ROOT)} has drifted: run python -m scripts.chart")
        return int(bool(drifted))
    for path in drifted:
        path.write_bytes(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
