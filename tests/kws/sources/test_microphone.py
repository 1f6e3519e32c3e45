import queue
import re

import pytest

from kws.sources.microphone import ChunkQueue, Device, ambiguous, matching, unknown

DEVICES = [
    Device(id=str(number), name=name, default=number == 0, source="pyaudio")
    for number, name in [(0, "USB Mic"), (3, "USB Mic Pro"), (7, "Webcam 3")]
]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("3", ["3"]),  # a number goes before a name that contains it
        ("usb mic", ["0"]),  # a whole name before a part
        ("pro", ["3"]),
        ("usb", ["0", "3"]),
        ("jack", []),
    ],
)
def test_a_device_is_found_by_number_name_or_part_of_it(wanted, ids):
    assert [device.id for device in matching(wanted, DEVICES)] == ids


def test_errors_list_what_there_is():
    assert str(ambiguous("usb", DEVICES[:2])) == (
        "`--device` must name one microphone. Received: usb, which fits 2: 0 (USB Mic), "
        "3 (USB Mic Pro). Give its number or more of its name."
    )
    assert str(unknown("Webcan 3", DEVICES)) == (
        "`--device` must name a microphone that is there. Received: Webcan 3. Did you mean "
        "`Webcam 3`? There is: 0 (USB Mic), 3 (USB Mic Pro), 7 (Webcam 3)."
    )
    assert re.search("There is: none", str(unknown("x", [])))


def test_a_full_queue_drops_the_oldest_and_counts():
    chunks = ChunkQueue(2)
    for chunk in (b"1", b"2", b"3", b"4"):
        chunks.put(chunk)
    assert chunks.n_dropped == 2
    assert [chunks.get(timeout_s=0.01) for _ in range(2)] == [b"3", b"4"]
    with pytest.raises(queue.Empty):
        chunks.get(timeout_s=0.01)
