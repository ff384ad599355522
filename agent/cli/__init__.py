"""attachctl: what the operator types. Asks the agent over the bus, or reads its journal."""

import warnings

# oslo.messaging imports eventlet, which says so to everybody; an operator cannot act on it.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
