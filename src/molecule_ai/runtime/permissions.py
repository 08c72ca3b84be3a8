"""Which tools a role of config.yaml may use (`rbac`, contract 02 §10)."""

from molecule_ai.runtime.config import RbacConfig

EVERYTHING = frozenset({"delegate", "approve", "memory.read", "memory.write"})
BUILT_IN = {
    "admin": EVERYTHING,
    "operator": EVERYTHING,
    "read-only": frozenset({"memory.read"}),
    "memory-readonly": frozenset({"memory.read"}),
    "no-delegation": EVERYTHING - {"delegate"},
    "no-approval": EVERYTHING - {"approve"},
}


def allowed_actions(rbac: RbacConfig) -> frozenset[str]:
    """Return the union over all roles; a role nobody defined allows nothing."""
    actions: set[str] = set()
    for role in rbac.roles:
        custom = rbac.allowed_actions.get(role)
        actions |= set(custom) if custom is not None else BUILT_IN.get(role, frozenset())
    return frozenset(actions)
