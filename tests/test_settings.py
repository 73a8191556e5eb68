"""Every knob, its default, and what it must not be."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, cpu_count


@pytest.fixture(autouse=True)
def _no_settings_of_the_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"POSEGATE_{name.upper()}", raising=False)


def test_without_variables_the_limits_are_those_of_the_contract() -> None:
    settings = Settings()
    assert settings.max_image_bytes == 25_000_000
    assert settings.max_image_pixels == 50_000_000
    assert settings.max_batch_size == 32
    assert settings.max_persons == 300
    assert settings.uri_hosts == ""
    assert settings.listen == "127.0.0.1:50051"  # nobody else's unless somebody says so


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_does(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("LISTEN", "0.0.0.0:8001", "0.0.0.0:8001"),
        ("LISTEN", "[::]:0", "[::]:0"),
        ("LISTEN", "unix:/run/posegate.sock", "unix:/run/posegate.sock"),
        ("METRICS_LISTEN", "[::]:9090", "[::]:9090"),
        ("METRICS_LISTEN", "", ""),
        ("COMMIT", "0d1e2f3", "0d1e2f3"),
        ("COMMIT", "", ""),
        ("HEALTH_LISTEN", "", ""),
        ("HEALTH_LISTEN", "0.0.0.0:50052", "0.0.0.0:50052"),
        ("TLS_CERT", "", None),
        ("TLS_KEY", "", None),
        ("TRITON_SHARED_MEMORY", "off", "off"),
        ("MAX_IN_FLIGHT", "7", 7),
        ("DRAIN_DELAY_S", "0", 0.0),
        ("REFLECTION", "false", False),
        ("LOG_LEVEL", "debug", "debug"),
        ("MODEL_REPOSITORY", "/models", Path("/models")),
    ],
)
def test_a_setting_comes_from_its_variable(
    name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"POSEGATE_{name}", text)
    assert getattr(Settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LISTEN", ""),
        ("LISTEN", "50051"),
        ("LISTEN", "127.0.0.1"),
        ("LISTEN", "127.0.0.1:99999"),
        ("LISTEN", "127.0.0.1:-1"),
        ("LISTEN", "127.0.0.1:http"),
        ("HEALTH_LISTEN", "50052"),
        ("HEALTH_LISTEN", "127.0.0.1:99999"),
        ("METRICS_LISTEN", "9090"),
        ("METRICS_LISTEN", "127.0.0.1:99999"),
        ("METRICS_LISTEN", "unix:/run/metrics.sock"),
        ("COMMIT", "main"),
        ("COMMIT", "0d1e2f3-dirty"),
        ("TLS_KEY", "tls.key"),
        ("TLS_CLIENT_CA", "ca.crt"),
        ("TLS_RELOAD_S", "0"),
        ("TRITON_SHARED_MEMORY", "maybe"),
        ("MAX_IMAGE_BYTES", "0"),
        ("MAX_IMAGE_PIXELS", "-1"),
        ("MAX_BATCH_SIZE", "1001"),
        ("MAX_PERSONS", "many"),
        ("MAX_IN_FLIGHT", "0"),
        ("MAX_MESSAGE_BYTES", "1000"),
        ("MAX_INFERENCES", "0"),
        ("WORKERS", "0"),
        ("REQUEST_TIMEOUT_S", "0"),
        ("HEALTH_INTERVAL_S", "0"),
        ("DRAIN_GRACE_S", "-1"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"POSEGATE_{name}", text)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert [problem["loc"] for problem in refused.value.errors()] == [(name.lower(),)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_cert": "c"}, {"tls_key": "is missing: POSEGATE_TLS_CERT needs its private key"}),
        ({"tls_key": "k"}, {"tls_key": "needs POSEGATE_TLS_CERT, which is missing"}),
        ({"tls_client_ca": "a"}, {"tls_client_ca": "needs POSEGATE_TLS_CERT, which is missing"}),
        (
            {"tls_cert": "c", "tls_client_ca": "a"},
            {"tls_key": "is missing: POSEGATE_TLS_CERT needs its private key"},
        ),
        ({"tls_cert": "c", "tls_key": "k"}, {}),
        ({"tls_cert": "c", "tls_key": "k", "tls_client_ca": "a"}, {}),
    ],
    ids=lambda given: " ".join(given),
)
def test_what_is_missing_for_tls_is_told(
    given: dict[str, str], told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in given.items():
        monkeypatch.setenv(f"POSEGATE_{name.upper()}", text)
    problems = {}
    try:
        Settings()
    except ValidationError as error:
        problems = {str(one["loc"][0]): one["msg"].removeprefix("Value error, ") for one in error.errors()}
    assert problems == told


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().max_in_flight = 1


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (None, 4),
        ("max 100000", 4),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("900000 100000", 4),
        ("nonsense", 4),
    ],
    ids=["no cgroup", "no quota", "two", "two and a half", "half", "more than there are", "unreadable"],
)
def test_the_cpus_are_those_of_the_container(
    quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota, encoding="ascii")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    monkeypatch.setattr("service.settings.Path", lambda _path: file)
    assert cpu_count() == expected


def test_the_names_of_variables_in_descriptions_are_right() -> None:
    for field in Settings.model_fields.values():
        for name in re.findall(r"POSEGATE_(\w+)", field.description or ""):
            assert name.lower().partition("__")[0] in Settings.model_fields


@pytest.mark.parametrize(
    ("listen", "refused"),
    [
        ("127.0.0.1:50051", False),
        ("localhost:50051", False),
        ("[::1]:50051", False),
        ("127.3.2.1:50051", False),
        ("unix:/run/posegate.sock", False),
        ("0.0.0.0:50051", True),
        ("[::]:50051", True),
        ("192.0.2.1:50051", True),
        ("gateway.example:50051", True),
        ("localhost.example:50051", True),
    ],
)
def test_keys_in_clear_text_beyond_this_host_have_to_be_allowed(listen: str, refused: bool) -> None:
    assert Settings(listen=listen).auth == "off"
    assert Settings(listen=listen, auth="keys", auth_plaintext="allow")
    assert Settings(listen=listen, auth="keys", tls_cert=Path("a"), tls_key=Path("b"))
    if refused:
        with pytest.raises(ValidationError, match="POSEGATE_AUTH_PLAINTEXT=allow"):
            Settings(listen=listen, auth="keys")
    else:
        assert Settings(listen=listen, auth="keys")
