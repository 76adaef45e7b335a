"""Programs that a model wrote, run where they can do no harm."""

from outthink.sandbox.host import Execution, Limits, Sandbox

__all__ = ["Execution", "Limits", "Sandbox"]
