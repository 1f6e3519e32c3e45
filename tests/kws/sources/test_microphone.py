import queue
import re

import pytest

from kws.errors import DeviceError
from kws.sources.microphone import ChunkQueue, Device, select_device, unknown_device

DEVICES = [
    Device(id=str(number), name=name, default=number == 0, source="pyaudio")
    for number, name in [(0, "USB Mic"), (3, "USB Mic Pro"), (7, "Webcam 3")]
]


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        ("3", DEVICES[1]),  # a number goes before a name that contains it
        ("usb mic", DEVICES[0]),  # a whole name before a part
        ("pro", DEVICES[1]),
        ("jack", None),
    ],
)
def test_a_device_is_found_by_number_name_or_part_of_it(wanted, device):
    assert select_device(wanted, DEVICES) is device


def test_errors_list_what_there_is():
    with pytest.raises(DeviceError) as ambiguous:
        select_device("usb", DEVICES)
    assert str(ambiguous.value) == (
        "`--device` must name one microphone. Received: usb, which fits 2: 0 (USB Mic), "
        "3 (USB Mic Pro). Give its number or more of its name."
    )
    assert str(unknown_device("Webcan 3", DEVICES)) == (
        "`--device` must name a connected microphone. Received: Webcan 3. Did you mean "
        "`Webcam 3`? Connected: 0 (USB Mic), 3 (USB Mic Pro), 7 (Webcam 3)."
    )
    assert re.search("Connected: none", str(unknown_device("x", [])))


def test_a_full_queue_drops_the_oldest_and_counts():
    chunks = ChunkQueue(2)
    for chunk in (b"1", b"2", b"3", b"4"):
        chunks.put(chunk)
    assert chunks.n_dropped == 2
    assert [chunks.get(timeout_s=0.01) for _ in range(2)] == [b"3", b"4"]
    with pytest.raises(queue.Empty):
        chunks.get(timeout_s=0.01)
