import pytest

from service.errors import AnswerTooLarge
from service.pipeline.answer_size import AnswerSize


def test_parts_add_up_to_the_limit_and_no_further() -> None:
    size = AnswerSize(10)
    size.add(4)
    size.add(6)
    with pytest.raises(AnswerTooLarge) as refused:
        size.add(1)
    assert refused.value.metadata == {"limit_bytes": "10", "actual_bytes": "11"}
