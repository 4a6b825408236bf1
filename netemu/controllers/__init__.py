"""The controller manager: what makes Pods of Deployments, slices of Services, and order of the rest.

One module per controller, each a pure `reconcile` from objects to actions; `loop` runs them, `manager` wires them.
"""

from netemu.controllers.manager import run

__all__ = ["run"]
