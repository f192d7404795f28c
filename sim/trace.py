"""The trace, by the name it has in the simulator."""

from controller.trace import LINE_EVERY_MS, Trace, values_of

__all__ = ["LINE_EVERY_MS", "Trace", "values_of"]
