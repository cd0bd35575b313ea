"""What is an image, sound or video, and what only has its name."""

import pytest

from cascade_rl.data.asking import media_fault
from cascade_rl.data.media import is_media
from cascade_rl.data.messages import normal_messages
from cascade_rl.types import CascadeError

CONTAINERS = (
    "swebench/sweb.eval.x86_64.django_1776_django-11099:latest",
    "python:3.11",
    "ghcr.io/owner/env@sha256:0f9d3c",
)
MEDIA = (
    "coco/train2017/000000033471.jpg",
    "https://example.org/a/b.PNG?size=3",
    "clip.mp4",
    "data:image/png;base64,iVBORw0KGgo=",
    "/9j/" + "4AAQSkZJRgABAQAAAQABAAD" * 3,
    b"\x89PNG",
    {"bytes": b"x", "path": None},
    {"bytes": None, "path": "a.bin"},
    {"url": "https://example.org/1"},
    {"array": [0.1], "sampling_rate": 8000},
    ["a.bin"],
    [{"bytes": b"x"}],
    [0.1, 0.2],
)


@pytest.mark.parametrize("value", MEDIA)
def test_what_can_be_looked_at_or_listened_to_is_refused(value):
    assert is_media(value)
    for name in ("image", "videos"):
        assert name in media_fault({"prompt": "what is this?", name: value})
        with pytest.raises(CascadeError, match=name):
            normal_messages([{"role": "user", "content": "what is this?", name: value}])


@pytest.mark.parametrize(
    "value", [*CONTAINERS, {"name": "python", "tag": "3.11"}, 3, 0.5, True, "", [], {}, None, [None]]
)
def test_other_values_of_that_name_are_harmless(value):
    assert not is_media(value)
    for name in ("image", "audio"):
        assert media_fault({"prompt": "mend it", name: value}) is None
        message = {"role": "user", "content": "mend it", **({} if value is None else {name: value})}
        assert normal_messages([message]) == (message,)


def test_a_placeholder_in_the_question_asks_for_the_picture():
    row = {"conversations": [{"from": "human", "value": "<image>\nWhat is this?"}], "image": "33471"}
    assert "image" in media_fault(row)
    assert media_fault({**row, "conversations": [{"from": "human", "value": "What is <video>?"}]}) is None
    assert "image" in media_fault({"q": "<image> this?", "image": "33471"}, "{q}")
    assert media_fault({"q": "this?", "prompt": "<image>", "image": "33471"}, "{q}") is None
    with pytest.raises(CascadeError, match="image"):
        normal_messages([{"role": "user", "content": "<image> this?", "image": "33471"}])
