"""The adapter to RabbitMQ, and what orchestrators import: agent.bus.client."""

import warnings

from oslo_service import backend

# oslo.messaging imports oslo.service, which without a word from anybody would load eventlet.
# A program that has chosen its backend, or does so later with init_backend, is not overruled.
backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)

# futurist, under oslo.messaging, looks whether eventlet is there; nobody here uses it.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
