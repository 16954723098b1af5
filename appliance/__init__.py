"""An application that talks to this box always gets its answer."""

__version__ = "0.1.0"
