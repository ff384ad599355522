"""attachctl: what the operator types. Asks the agent over the bus, or reads its journal."""
