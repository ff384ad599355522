"""Bugs to plant in what moves instances between hosts; the rest are in mutations.py."""

from tools.mutation import Mutation

MOVING = (
    Mutation(
        "a host that is silent has the instance",
        "guest/whereabouts.py",
        'if there is None:\n        return "unknown"',
        'if there is None:\n        return "there"',
    ),
    Mutation(
        "a migration is not given up before somebody asks where the instance is",
        "saga/settle.py",
        "ending = self._ask(record, lambda: plan.commit.give_up(scene))",
        "ending = None",
    ),
    Mutation(
        "volumes are disconnected while the other host still fetches memory",
        "steps/migrate.py",
        "        if progress is not None:\n            return self._fetched(scene, progress)\n",
        "",
    ),
    Mutation(
        "what is left of the domain is cleared away wherever it runs",
        "steps/migrate.py",
        'if where != "there":\n                raise _lost_sight(self.travel, where, runs',
        "if False:\n                raise _lost_sight(self.travel, where, runs",
    ),
    Mutation(
        "a lease ends although the instance is on its way",
        "service/leases.py",
        'return f"the {found.job} of the instance on {there}" if found.job else None',
        "return None",
    ),
    Mutation(
        "a lease ends although nobody knows whether the instance is on its way",
        "service/leases.py",
        'return f"the agent of {there}, which does not answer"',
        "return None",
    ),
    Mutation(
        "what is given up where it comes from stays until its lease ends",
        "service/leases.py",
        "return answer is True",
        "return False",
    ),
    Mutation(
        "an instance that has come is looked for by the ids of its new attachments",
        "service/leases.py",
        "attachment = _with_disk_of(guest, disk, row.attachment).marked(disk.mark, disk.serial)",
        "attachment = row.attachment",
    ),
    Mutation(
        "a migration that was cancelled is prepared later",
        "journal/migration_fence.py",
        'how = "is over" if fence.newest == _ARRIVED else "was cancelled"',
        'how = "is over"\n        if fence.newest != _ARRIVED:\n            return',
    ),
)
