"""Limits as the settings ask for them."""

from dataclasses import fields

import pytest

from service.pipeline.limits import Limits
from service.settings import Settings


def test_every_limit_of_a_settings_name_has_its_value() -> None:
    settings = Settings()
    limits = Limits.of(settings)
    same = [
        one.name for one in fields(Limits) if one.name in Settings.model_fields and one.name != "uri_hosts"
    ]
    assert len(same) > 20
    for name in same:
        given = getattr(settings, name)
        if given is not None:  # else it follows from `max_memory`
            assert getattr(limits, name) == given, name


def test_limits_that_are_not_set_follow_from_the_memory() -> None:
    assert Limits.of(Settings(max_memory=8 << 30)).max_in_flight_bytes == 1 << 30
    assert Limits.of(Settings(max_memory=8 << 30, max_in_flight_bytes=5)).max_in_flight_bytes == 5


def test_limits_of_images_and_videos_are_those_of_the_settings() -> None:
    settings = Settings(
        max_image_bytes=1, max_image_pixels=2, max_video_bytes=3, max_video_pixels=4, max_video_seconds=5,
        max_video_frames=6, workers=7,
    )  # fmt: skip
    limits = Limits.of(settings)
    assert (limits.image.max_bytes, limits.image.max_pixels) == (1, 2)
    assert (limits.video.max_bytes, limits.video.max_pixels) == (3, 4)
    assert (limits.video.max_seconds, limits.video.max_frames) == (5, 6)
    assert limits.max_kept_images == 16


@pytest.mark.parametrize(
    ("text", "hosts"),
    [("", set()), (" , ,", set()), ("A.example", {"a.example"}), (" b:8443 ,a,", {"a", "b:8443"})],
)
def test_hosts_are_read_from_a_list_with_commas(text: str, hosts: set[str]) -> None:
    assert Limits.of(Settings(uri_hosts=text)).uri_hosts == hosts
