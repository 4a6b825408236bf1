"""A Kubernetes network emulator: real packets, real kube-proxy rules, real cluster DNS.

Where to start reading: `docs/architecture.md` follows one packet and one manifest through the rooms of this package.
"""

__version__ = "0.1.0"
