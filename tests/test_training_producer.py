"""The producer process: numbered blocks, and what goes wrong is told."""

import numpy as np
import pytest
from conftest import run_python
from synthetic_corpus import KEYWORDS, write_part
from test_training_examples import DATA, FRONTEND, maker

from streamkws.training import producer
from streamkws.training.augment import AugmentConfig


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus") / "train"
    write_part(root, 1)
    return root


def test_producer_hands_out_numbered_blocks(part):
    class Stop(BaseException):
        pass

    class Queue(list):
        def put(self, message, timeout):
            self.append(message)
            if len(self) == 3:
                raise Stop

    queue = Queue()
    config = producer.ProducerConfig(str(part), KEYWORDS, DATA, AugmentConfig(), FRONTEND, 1, first=4, block=3)
    with pytest.raises(Stop):
        producer.produce(config, queue)
    assert [name for name, _ in queue] == ["ready", "block", "block"]
    np.testing.assert_array_equal(queue[2][1][0][1], maker(part).make(8).features)


def test_producer_reports_what_went_wrong(tmp_path):
    queue = type("Queue", (list,), {"put": lambda self, message, timeout: self.append(message)})()
    producer.produce(producer.ProducerConfig(str(tmp_path), KEYWORDS, DATA, AugmentConfig(), FRONTEND, 1, 0, 3), queue)
    ((name, text),) = queue
    assert name == "error" and text.startswith(f"ConfigError: expected a set of long files with {tmp_path}")


def test_the_process_that_makes_examples_does_without_torch():
    assert run_python("import sys, streamkws.training.producer; print('torch' in sys.modules)") == "False"
