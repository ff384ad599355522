"""Bugs to plant in the core; tools/mutation_check.py plants them (docs/testing.rst)."""

from tools.mutation import Mutation
from tools.mutations_of_moving import MOVING

MUTATIONS = (
    Mutation(
        "a restart undoes what was going forward",
        "saga/settle.py",
        "return self._save(found.but(position=0) if begins_anew else found)",
        'return self._turn(found, plan, Problem.of(Cancelled("restart"))) if begins_anew '
        "else self._save(found)",
    ),
    Mutation(
        "an error at the commit means that it did not happen",
        "saga/settle.py",
        "if record.intended >= plan.commit_position:",
        "if False:",
    ),
    Mutation(
        "a host that cannot be asked means that the commit did not happen",
        "saga/settle.py",
        "if isinstance(asked, Unavailable):\n                return self._wait(record, asked)\n",
        "asked = False if isinstance(asked, Unavailable) else asked\n",
    ),
    Mutation(
        "a part that does not answer is a reason to undo",
        "saga/settle.py",
        """            return self._wait(record, learnt)
        if isinstance(learnt, AgentError):
            if plan.irrevocable""",
        """            return self._turn(record, plan, Problem.of(learnt))
        if isinstance(learnt, AgentError):
            if plan.irrevocable""",
    ),
    Mutation(
        "the promise stands while it is undone",
        "saga/settle.py",
        "turned = record.but_parts(promised=False).but(",
        "turned = record.but(",
    ),
    Mutation(
        "the last intended step is not taken back",
        "saga/settle.py",
        '            direction="undoing",\n',
        '            direction="undoing",\n            intended=record.intended - 1,\n',
    ),
    Mutation(
        "no intent is written before the effect",
        "saga/settle.py",
        'intended = self._save(intended, "start" if record.intended < 0 else None)',
        "intended = intended.but(updated_at=self.host.clock.now())",
    ),
    Mutation(
        "an operation is closed first, and its attachment written after that",
        "saga/settle.py",
        '            if closed.state == "done":\n'
        "                plan.on_done(book, closed)\n"
        '            notify(book, self.host.name, closed, "end" if closed.state == "done" '
        'else "error")\n\n'
        "        self.journal.write(write)\n",
        '            notify(book, self.host.name, closed, "end" if closed.state == "done" '
        'else "error")\n\n'
        "        self.journal.write(write)\n"
        '        if closed.state == "done":\n'
        "            self.journal.write(lambda book: plan.on_done(book, closed))\n",
    ),
    Mutation(
        "nobody is told of the end",
        "saga/settle.py",
        'notify(book, self.host.name, closed, "end" if closed.state == "done" else "error")',
        "pass",
    ),
    Mutation(
        "what is parked forgets when the guest was asked",
        "saga/transitions.py",
        "return record.learn(about, parked.learnt).but(",
        "return record.but(",
    ),
    Mutation(
        "an attach does not wait for the parked detach before it",
        "journal/book.py",
        "if o and o.open and o.sequence < record.sequence)",
        "if o and o.open and o.sequence < 0)",
    ),
    Mutation(
        "deaths are forgotten while earlier steps look again",
        "saga/transitions.py",
        "return 0 if is_beyond else record.deaths",
        "return 0",
    ),
    Mutation(
        "deaths on the way back are not counted",
        "saga/settle.py",
        "        if not step.only_looks:\n            record = self._save(executing(record))\n",
        "",
    ),
    Mutation(
        "what kills the agent is tried again with each start",
        "saga/settle.py",
        "        if self._stands_back(record):\n            return record\n        deaths",
        "        deaths",
    ),
    Mutation(
        "a look that learns nothing is written",
        "saga/settle.py",
        "return self._save(resting) if record.wake_at is None else resting",
        "return self._save(resting)",
    ),
    Mutation(
        "a detach may be undone after the guest was asked",
        "saga/plan.py",
        "return self.commit.irrevocable and intended >= self.commit_position",
        "return False",
    ),
    Mutation(
        "it may expire with its volume connected",
        "saga/plan.py",
        "return any(not step.only_looks for step in self.steps[: intended + 1])",
        "return intended >= self.commit_position",
    ),
    Mutation(
        "an event while a step runs is lost",
        "saga/schedule.py",
        "        if instance.stirred:\n",
        "        if False:\n",
    ),
    Mutation(
        "what parks keeps its instance's turn",
        "saga/schedule.py",
        "        instance.running = None\n        if instance.stirred:",
        "        if instance.stirred:\n            instance.running = None\n"
        "        if instance.stirred:",
    ),
    Mutation(
        "a connect promises nothing",
        "steps/volume.py",
        '    name: ClassVar[str] = "connect-volume"\n    promises: ClassVar[bool] = True',
        '    name: ClassVar[str] = "connect-volume"\n    promises: ClassVar[bool] = False',
    ),
    Mutation(
        "a promise counts from acceptance on, before there is anything to take back",
        "journal/rows.py",
        "    promises = record.open and part.promised",
        '    promises = record.open and part.role == "joins" and record.direction != "undoing"',
    ),
    Mutation(
        "who asks who is left withdraws only afterwards",
        "steps/volume.py",
        """        journal.withdraw(self.attachment.attachment_id)
        return disconnect_unless_used(scene, self.attachment, device)""",
        """        gone = disconnect_unless_used(scene, self.attachment, device)
        journal.withdraw(self.attachment.attachment_id)
        return gone""",
    ),
    Mutation(
        "the last user is asked for without the volume's lock",
        "steps/volume.py",
        "    with host.locks.volume(volume_id):\n        stays = ",
        "    if True:\n        stays = ",
    ),
    Mutation(
        "a quarantined device is disconnected",
        "steps/volume.py",
        "        if stays:",
        "        if False:",
    ),
    Mutation(
        "the journal's promises are no users",
        "steps/users.py",
        "    return promised + [",
        "    return [] + [",
    ),
    Mutation(
        "domains' disks are no users",
        "steps/users.py",
        "        for use in uses_of(host, volume_id, source)\n        if instance_id in",
        "        for use in ()\n        if instance_id in",
    ),
    Mutation(
        "a disk that is only defined is no user",
        "steps/users.py",
        "for facts in (guest.live, guest.inactive):",
        "for facts in (guest.live,):",
    ),
    Mutation(
        "a wrong device is told of before it is quarantined",
        "steps/identity.py",
        "        journal.quarantine(attachment.volume_id, device, reason)\n",
        "",
    ),
    Mutation(
        "the other half is not plugged",
        "steps/disk.py",
        "for half, live in ((guest.live, True), (guest.inactive, False)):",
        "for half, live in ((guest.live, True),):",
    ),
    Mutation(
        "a half that is there is plugged once more, in another place",
        "steps/disk.py",
        "        return choose_place(attachment.disk, guest.live, guest.inactive)\n    return keep",
        "        pass\n    return choose_place(attachment.disk, guest.live, guest.inactive)\n"
        "    return keep",
    ),
    Mutation(
        "what was plugged is not taken back",
        "steps/disk.py",
        "        if _was_in_place(scene, attachment):",
        "        if True:",
    ),
    Mutation(
        "what was in place before is taken back",
        "steps/disk.py",
        "        if _was_in_place(scene, attachment):",
        "        if False:",
    ),
    Mutation(
        "the definition forgets before the guest has let go",
        "steps/disk.py",
        "        if not look.active:\n            _forget(",
        "        if look.active or not look.active:\n            _forget(",
    ),
    Mutation(
        "nobody looks whether the disk came back while it was forgotten",
        "steps/disk.py",
        "        return _let_go(scene, guest, alias, self.attachment) or {}\n",
        "        return {}\n",
    ),
    Mutation(
        "a guest is asked for the disk each time that it is looked at",
        "steps/disk.py",
        "if now >= asked_at + _pause_seconds(host, asks):",
        "if True:",
    ),
    Mutation(
        "the note stays in the domain",
        "steps/disk.py",
        "        notes.pop(guest.alias_of(self.attachment_id, self.alias), None)\n",
        "",
    ),
    Mutation(
        "a disk with another serial is unplugged",
        "steps/guest_checks.py",
        "if wanted is not None and disk.serial is not None and disk.serial != wanted:",
        "if False:",
    ),
    Mutation(
        "a domain that migrates is asked all the same",
        "steps/guest_checks.py",
        "    if job is not None:\n",
        "    if False:\n",
    ),
    Mutation(
        "a saved operation keeps no wish to be cancelled",
        "journal/book.py",
        '            "UPDATE operations SET open = ?,',
        '            "UPDATE operations SET cancel_wanted = 0, open = ?,',
    ),
    Mutation(
        "an operation counts itself as a user",
        "journal/book.py",
        "AND promised AND operation_id != ?",
        "AND promised AND '' != ?",
    ),
    Mutation(
        "a withdrawn attachment still counts",
        "journal/book.py",
        "FROM attachments WHERE promised\n",
        "FROM attachments\n",
    ),
    Mutation(
        "a fence can be lowered",
        "journal/book.py",
        "newest = nullif(max(coalesce(newest, -1), coalesce(?2, -1)), -1),",
        "newest = ?2,",
    ),
    Mutation(
        "a restart takes up only what was parked",
        "service/workers.py",
        "                record = as_planned(found, plan_of(found))\n",
        "                record = as_planned(found, plan_of(found))\n"
        "                if not record.parked:\n                    continue\n",
    ),
    Mutation(
        "after a write that failed the memory is believed",
        "service/workers.py",
        "            self._unread.add(record.operation_id)\n",
        "",
    ),
    Mutation(
        "a cancel does not wake what waits",
        "service/workers.py",
        "            self._schedule.wake(operation_id)\n",
        "",
    ),
    Mutation(
        "the end of an operation wakes nobody who waits for it",
        "service/workers.py",
        "if is_called_off or not about.isdisjoint(other.attachment_ids):",
        "if False:",
    ),
    Mutation(
        "nobody asks again who shares the volume when it is plugged",
        "steps/disk.py",
        "        refuse_conflicts(everyone, attachment, device.path)\n",
        "",
    ),
    Mutation(
        "a boot order that is taken meanwhile is seen only by libvirt",
        "steps/disk.py",
        "            if reason is not None:\n                possible",
        "            if False:\n                possible",
    ),
    Mutation(
        "an attach that was accepted does not count for the next one",
        "admission/admit.py",
        "for other in (*here, *coming):",
        "for other in here:",
    ),
    Mutation(
        "what is parked sleeps until the clock on the wall says so",
        "service/workers.py",
        "now = self._ticked_at = self._clock.monotonic()",
        "now = self._ticked_at = self._clock.now()",
    ),
    Mutation(
        "an agent that dies in a connect forgets who was at the address",
        "steps/volume.py",
        'return {} if was is None else {"was": was.reveal()}',
        "return {}",
    ),
    Mutation(
        "what sits at the target name is the attachment's disk",
        "steps/guest_checks.py",
        "    if attachment is None or is_user_alias(attachment.alias):\n",
        "    if True:\n",
    ),
    Mutation(
        "how far an operation is counts by the plan of today",
        "service/workers.py",
        "record = as_planned(found, plan_of(found))",
        "record = found",
    ),
    Mutation(
        "a replay is accepted as something new",
        "admission/admit.py",
        "        record = self.book.operation(request_id)\n",
        "        record = None\n",
    ),
    Mutation(
        "a copy that failed is begun again for ever",
        "steps/copy.py",
        'if scene.known.get("copy_started"):',
        "if False:",
    ),
    Mutation(
        "an undone swap leaves its copy running",
        "steps/copy.py",
        "host.copies.abort(instance_id, disk.target_dev)",
        "pass",
    ),
    Mutation(
        "a definition that libvirt has lost in the pivot keeps the old volume",
        "steps/copied.py",
        "            host.domains.redefine(attachment.instance_id, xml)\n",
        "",
    ),
    Mutation(
        "a guest gets a volume while what it holds is copied to another",
        "admission/swapping.py",
        'if record.verb == "swap":',
        "if False:",
    ),
    *MOVING,
)
