"""Device classes: limits that every model on such a device must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgecheck.declare.budget import Budget
from edgecheck.names import resolve


@dataclass(frozen=True)
class DeviceClass:
    """A class of devices.

    Attributes:
        name: of the command line.
        budget: limits that every model on such a device must keep.
        precisions: what the hardware runs; None for all.
        source: where the figures come from.
    """

    name: str
    budget: Budget
    precisions: tuple[str, ...] | None
    source: str


DEVICE_CLASSES: Mapping[str, DeviceClass] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            DeviceClass(
                "mcu",
                Budget(size="2 MiB", activation_memory="512 KiB", flash="2 MiB"),
                ("int8", "int8-qat"),
                "Cortex-M7 such as STM32F7: 2 MB flash and 512 KB SRAM, which the static plan must "
                "fit; resident memory of this machine says nothing about it",
            ),
            DeviceClass(
                "mobile",
                Budget(size="50 MB", latency_p95="50 ms", peak_memory="1.5 GB"),
                None,
                "a 50 MB download, real time at 50 ms, and iOS ends an app at about 1.5 GB",
            ),
            DeviceClass(
                "sbc",
                Budget(latency_p95="200 ms", peak_memory="8 GB"),
                None,
                "Raspberry Pi 5: 8 GB; interactive at 200 ms",
            ),
            DeviceClass(
                "edge-gpu",
                Budget(latency_p95="50 ms", peak_memory="8 GB"),
                None,
                "the smallest Jetson Orin: 8 GB; real time at 50 ms",
            ),
            DeviceClass(
                "edge-tpu", Budget(size="8 MB"), ("int8", "int8-qat"), "Coral: int8 only, 8 MB"
            ),
            DeviceClass(
                "browser",
                Budget(size="20 MB", size_gzip="20 MB", latency_p95="200 ms"),
                None,
                "every user downloads the model; interactive at 200 ms",
            ),
        )
    }
)


def find_device_class(name: str) -> DeviceClass:
    """The device profile of a name.

    Raises:
        SelectionError: there is none.
    """
    return DEVICE_CLASSES[resolve(name, DEVICE_CLASSES, "profile")]
