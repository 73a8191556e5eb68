"""Values that are wrong, or that contradict each other: helm refuses them and says which."""

from __future__ import annotations

import pytest

from service.pipeline.limits import Limits
from service.settings import Settings
from tests.helm.chart import HELMS, refusal, render

WRONG = {
    "a name that is not there": ("replicaCount=3", ["replicaCount"]),
    "a misspelt name inside": ("gateway.replica=3", ["gateway", "replica"]),
    "a misspelt setting": ("gateway.settings.LOGLEVEL=info", ["settings", "LOGLEVEL"]),
    "a setting that the chart makes": ("gateway.settings.LISTEN=x", ["settings", "LISTEN"]),
    "a setting of the wrong type": ("gateway.settings.MAX_IN_FLIGHT=many", ["MAX_IN_FLIGHT"]),
    "a text for a number": ("gateway.replicas=two", ["gateway", "replicas"]),
    "a negative number": ("triton.replicas=-1", ["triton", "replicas"]),
    "a per cent above all": ("gateway.autoscaling.targetCPU=150", ["targetCPU"]),
    "a source that is not known": ("models.source=ftp", ["models", "source"]),
    "an autoscaler that is not known": ("triton.autoscaling.kind=both", ["kind"]),
    "a digest that is none": ("gateway.image.digest=latest", ["digest"]),
    "a quantity that is none": ("gateway.spoolSize=big", ["spoolSize"]),
    "an origin with a path": ("envoy.allowedOrigins[0]=https://a.example/x", ["allowedOrigins"]),
    "an option of tritonserver that is none": ("triton.arguments[0]=verbose", ["arguments"]),
    "another maker's GPU": ("triton.gpu.resource=amd.com/gpu", ["resource"]),
    "a public object store": ("models.objectStore.url=https://example.com", ["url"]),
}


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("case", WRONG)
def test_the_schema_refuses(version: str, case: str) -> None:
    setting, words = WRONG[case]
    said = refusal("defaults", setting, version=version)
    assert "values don't meet the specifications of the schema" in said
    assert all(word in said for word in words), said


JOB = (
    "engines.build=job", "triton.gpu.product=NVIDIA-L4", "engines.models[0].name=m",
    f"engines.models[0].sha256={'a' * 64}",
)  # fmt: skip
CONTRADICTIONS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "two Tritons": (
        "defaults",
        ("gateway.bundledTriton=true",),
        "gateway.bundledTriton and triton.enabled are both",
    ),
    "keys without a database": (
        "defaults",
        ("gateway.auth.mode=keys",),
        "there is no gateway.database.secretName: each pod would have tenants and keys of its own",
    ),
    "keys in clear text": (
        "defaults",
        ("gateway.auth.mode=keys", "gateway.database.secretName=a"),
        "keys would travel in clear text: set gateway.tls.enabled, or gateway.auth.encryption to mesh",
    ),
    "plans without keys": (
        "defaults",
        ("gateway.auth.testSecretName=a",),
        "are of no effect while gateway.auth.mode is off",
    ),
    "no Triton": ("defaults", ("triton.enabled=false",), "there is no Triton"),
    "a Triton elsewhere and one here": ("defaults", ("gateway.tritonUrl=a:8001",), "gateway.tritonUrl is"),
    "gateway is killed while it drains": (
        "defaults",
        ("gateway.drainGraceSeconds=60",),
        "less than preStopSeconds 5 + DRAIN_DELAY_S 1 + drainGraceSeconds 60 + 4 to close: at least 70",
    ),
    "a long delay before draining counts": (
        "defaults",
        ("gateway.settings.DRAIN_DELAY_S=12.5",),
        "DRAIN_DELAY_S 13",
    ),
    "bundled Triton is killed while it stops": (
        "cpu",
        ("gateway.terminationGracePeriodSeconds=45",),
        "+ 15 for the bundled Triton",
    ),
    "Triton is killed while it infers": (
        "defaults",
        ("triton.exitTimeoutSeconds=90",),
        "triton.terminationGracePeriodSeconds is 60",
    ),
    "Envoy is killed while it serves": (
        "defaults",
        ("envoy.enabled=true", "envoy.timeoutSeconds=300"),
        "envoy.terminationGracePeriodSeconds is 75",
    ),
    "gateways from more to less": (
        "defaults",
        ("gateway.autoscaling.enabled=true", "gateway.autoscaling.minReplicas=17"),
        "gateway.autoscaling: minReplicas 17 is above maxReplicas 16",
    ),
    "a share of no CPU": (
        "defaults",
        ("gateway.autoscaling.enabled=true", "gateway.resources.requests.cpu=null"),
        "gateway.autoscaling needs gateway.resources.requests.cpu",
    ),
    "Tritons from more to less": (
        "production",
        ("triton.autoscaling.minReplicas=9",),
        "triton.autoscaling: minReplicas 9 is above maxReplicas 8",
    ),
    "an autoscaler of nothing": (
        "cpu",
        ("triton.autoscaling.kind=hpa",),
        "triton.autoscaling.kind is hpa, but triton.enabled is false",
    ),
    "KEDA without Prometheus": (
        "defaults",
        ("triton.autoscaling.kind=keda",),
        "triton.autoscaling.prometheusAddress",
    ),
    "a fallback out of range": (
        "production",
        ("triton.autoscaling.fallbackReplicas=1",),
        "fallbackReplicas 1 is not between",
    ),
    "a rollout that cannot begin": (
        "defaults",
        ("triton.maxUnavailable=0",),
        "triton.maxSurge and triton.maxUnavailable are both 0",
    ),
    "requests that fill the memory": (
        "defaults",
        ("gateway.resources.limits.memory=2559Mi",),
        "is less than 2684354560: twice MAX_IN_FLIGHT_BYTES (536870912) + MAX_VIDEO_MEMORY_BYTES",
    ),
    "engines in another folder": (
        "production",
        ("models.folder=fleet",),
        'models.folder is "fleet": the builder writes to gpu',
    ),
    "a job that nobody waits for": (
        "production",
        ("engines.verify=report",),
        "engines.build is job, but engines.verify is report",
    ),
    "more video than memory": (
        "defaults",
        ("gateway.settings.MAX_VIDEO_MEMORY_BYTES=4000000000",),
        "MAX_VIDEO_MEMORY_BYTES (4000000000)",
    ),
    "a video that the disk does not hold": (
        "defaults",
        ("gateway.spoolSize=2Gi", "gateway.settings.MAX_VIDEO_BYTES=2100000000"),
        "gateway.spoolSize 2Gi leaves 2040109465 bytes for videos",
    ),
    "the usual video on a small disk": (
        "defaults",
        ("gateway.spoolSize=1Gi",),
        "MAX_VIDEO_BYTES (2000000000)",
    ),
    "TLS without a certificate": ("defaults", ("gateway.tls.enabled=true",), "needs gateway.tls.secretName"),
    "mutual TLS without TLS": ("defaults", ("gateway.tls.mutual=true",), "gateway.tls.mutual needs"),
    "Envoy without trust": (
        "production",
        ("envoy.enabled=true",),
        "envoy.enabled with gateway.tls.enabled needs",
    ),
    "an image without a name": (
        "defaults",
        ("models.source=image",),
        "models.source is image: models.image.reference",
    ),
    "an object store without an address": (
        "defaults",
        ("models.source=objectStore",),
        "models.source is objectStore: models.objectStore.url",
    ),
    "engines into an image": (
        "defaults",
        ("models.source=image", "models.image.reference=a", *JOB),
        "engines.build is job, but models.source image cannot be written to",
    ),
    "engines without a GPU": ("defaults", (*JOB, "triton.gpu.count=0"), "triton.gpu.count is 0"),
    "engines for no GPU in particular": (
        "defaults",
        (*JOB, "triton.gpu.product="),
        "triton.gpu.product must say for which GPU",
    ),
    "engines of nothing": (
        "defaults",
        ("engines.build=init", "triton.gpu.product=x"),
        "engines.models names none",
    ),
    "engines of an unknown file": ("defaults", (*JOB, "engines.models[0].sha256="), "m has no sha256"),
    "engines without Triton": (
        "cpu",
        ("engines.build=job",),
        "engines.build is job, but triton.enabled is false",
    ),
    "one volume, many pods": (
        "init",
        ("triton.replicas=2",),
        "models.claim.accessModes is ReadWriteOnce, but up to 2 Triton pods",
    ),
    "one volume, many pods later": (
        "init",
        ("triton.autoscaling.kind=hpa",),
        "models.claim.accessModes is ReadWriteOnce, but up to 4 Triton pods",
    ),
    "a Job on a volume that Triton holds": (
        "init",
        ("engines.build=job",),
        "the Job and Triton want the volume at once",
    ),
    "engines on a volume that is read": (
        "init",
        ("models.claim.accessModes[0]=ReadOnlyMany",),
        "cannot be written to",
    ),
    "nobody's account": ("defaults", ("serviceAccount.create=false",), "serviceAccount.name must name one"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_refused(case: str) -> None:
    values, sets, words = CONTRADICTIONS[case]
    said = refusal(values, *sets)
    assert "These values contradict each other" in said
    assert words in said


def test_helm_3_says_the_same() -> None:
    said = refusal("defaults", "gateway.tls.enabled=true", version="helm3")
    assert "gateway.tls.enabled needs gateway.tls.secretName" in said


def test_all_contradictions_are_told_at_once() -> None:
    said = refusal(
        "defaults", "gateway.tls.enabled=true", "triton.autoscaling.kind=keda", "triton.maxUnavailable=0"
    )
    assert said.count("\n  - ") == 3


def test_the_guards_know_the_defaults_of_the_gateway() -> None:
    limits = Limits.of(Settings(max_memory=4 << 30))
    assert limits.max_in_flight_bytes == 536870912
    assert limits.max_video_memory_bytes == 1073741824
    assert Settings.model_fields["max_streams"].default == 16
    assert Settings.model_fields["video_look_ahead_bytes"].default == 67108864
    assert Settings.model_fields["max_video_bytes"].default == 2_000_000_000
    assert Settings.model_fields["drain_delay_s"].default == 0.5


def test_what_is_refused_is_taken_once_it_is_right() -> None:
    assert render("defaults", "gateway.drainGraceSeconds=60", "gateway.terminationGracePeriodSeconds=70")
    assert render("defaults", "gateway.resources.limits.memory=2560Mi")
    assert render("defaults", "gateway.spoolSize=2Gi", "gateway.settings.MAX_VIDEO_BYTES=2000000000")
