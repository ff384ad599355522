"""The agent as it is shipped, but of the next version of the wire."""

from agent.model import contract

NEXT = "1.1"

if __name__ == "__main__":
    contract.WIRE_VERSION = NEXT  # before anybody reads it
    from agent.service.main import main

    main()
