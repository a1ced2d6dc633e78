"""The rollback machine: a request becomes a plan, a plan orders to resources, their reports an end that people are told."""

from reconciler.machines.rollback.head import Head, fences_of
from reconciler.machines.rollback.machine import MACHINE_VERSION, RollbackMachine

__all__ = ["MACHINE_VERSION", "Head", "RollbackMachine", "fences_of"]
