"""The embedded engine: OpenVINO on this machine's processor."""

from outthink.models.openvino.engine import OpenVINOEngine

__all__ = ["OpenVINOEngine"]
